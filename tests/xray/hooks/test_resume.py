"""Resume that loses nothing: killed at any moment, a run ends with the weights of the undisturbed one."""

import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback

import numpy as np
import pytest
import torch
from helpers.resuming import ResumeNoise, leaves, settings, train
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from projects.xray import compat  # noqa: F401
from projects.xray.hooks.resume import EXIT_STOPPED, ResumeError, newest_checkpoint
from projects.xray.seeding import SeededBatches, SeededDataset, seed_generators


def validation(arguments, folder):
    """Arguments that validate on the training samples."""
    return dict(
        val_dataloader=arguments['train_dataloader'],
        val_cfg=dict(),
        val_evaluator=dict(type='DumpResults', out_file_path=str(folder / 'out.pkl')),
    )


def in_child(function, *args, **kwargs):
    """Run a function in a forked process; return how it ended (negative: by that signal).

    One that hangs, as a fork can when another thread held a lock, is killed.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        gc.disable()
        code = 1
        try:
            function(*args, **kwargs)
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    end = time.monotonic() + 120
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGABRT)
            end += 120
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(found[1])


def last(folder):
    return torch.load(folder / 'epoch_3.pth', weights_only=True)


def assert_same_end(folder, reference):
    """Weights, averaged weights, statistics, optimizer and schedules are equal bit by bit."""
    found = last(folder)
    for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        first, second = dict(leaves(found[part])), dict(leaves(reference[part]))
        assert first.keys() == second.keys()
        different = [key for key in first if not torch.equal(first[key], second[key])]
        assert not different, (part, different)
    assert found['meta']['iter'] == reference['meta']['iter']
    assert found['meta']['epoch'] == 3
    assert not list(folder.glob('resume_*.pth*'))


MOMENTS = ('before', 'early', 'late', 'write', 'rename')


@pytest.mark.parametrize(('count', 'workers', 'kills'), [(1, 0, 13), (4, 0, 5), (1, 2, 2)])
@pytest.mark.slow
def test_killed_at_random_and_resumed_is_undisturbed(tmp_path, count, workers, kills):
    """Twenty kills; four accumulated steps leave gradients pending at the end of an epoch of six."""
    check_kills(tmp_path, kills, seed=kills, count=count, workers=workers)


@pytest.mark.long
@pytest.mark.parametrize(('count', 'workers', 'kills'), [(1, 0, 120), (4, 0, 40), (1, 2, 40)])
def test_killed_two_hundred_times(tmp_path, count, workers, kills):
    check_kills(tmp_path, kills, seed=kills, count=count, workers=workers)


@pytest.mark.long
def test_a_small_recipe_is_undisturbed_by_kills(tiny_coco, tmp_path, repo):
    """The recipe itself: ResNet, two views by a loader's worker, its own schedule and hooks."""
    root = tiny_coco(n=4, unlabeled=48, size=160)
    recipe = repo / 'configs' / 'small' / 'simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px.py'

    def run(folder, hooks=()):
        cfg = Config.fromfile(recipe)
        cfg.merge_from_dict(
            {
                'train_dataloader.dataset.data_root': str(root),
                'train_dataloader.batch_size': 8,
                'train_cfg.max_epochs': 3,
                'work_dir': str(folder),
                'randomness': dict(seed=0),
                'experiment_name': folder.name,
            }
        )
        for hook in cfg.custom_hooks:
            if hook.type == 'ResumeHook':
                hook.minutes = 0.01
        cfg.custom_hooks = [*cfg.custom_hooks, *hooks]
        found = newest_checkpoint(folder, say=lambda line: None)
        cfg.resume, cfg.load_from = found is not None, found and str(found)
        Runner.from_cfg(cfg).train()

    assert in_child(run, tmp_path / 'undisturbed') == 0
    generator = random.Random(0)
    for _ in range(4):
        kill = dict(type='KillHook', iteration=generator.randrange(18), moment=generator.choice(MOMENTS))
        if in_child(run, tmp_path / 'killed', [kill]) == 0:
            break
    else:
        assert in_child(run, tmp_path / 'killed') == 0
    first, second = (torch.load(tmp_path / name / 'epoch_3.pth') for name in ('undisturbed', 'killed'))
    for part in ('state_dict', 'optimizer'):
        one, two = dict(leaves(first[part])), dict(leaves(second[part]))
        assert [key for key in one if not torch.equal(one[key], two[key])] == []


def check_kills(tmp_path, kills, seed, **options):
    """Kill a run `kills` times, resuming it after each, and compare each end that is reached."""
    undisturbed, folder = tmp_path / 'undisturbed', tmp_path / 'killed'
    assert in_child(train, settings(undisturbed, minutes=60, **options)) == 0
    reference = last(undisturbed)
    assert torch.equal(reference['state_dict']['seen'].unique(), torch.tensor([3.0]))
    generator, killed, ended = random.Random(seed), 0, 0
    while killed < kills or ended:
        kill = dict(type='KillHook', iteration=generator.randrange(18), moment=generator.choice(MOMENTS))
        minutes = generator.choice((0.0, 0.0005, 60))
        hooks = [kill] if killed < kills else []
        ended = in_child(train, settings(folder, minutes=minutes, hooks=hooks, **options), resume=True)
        if ended == 0:
            assert_same_end(folder, reference)
            shutil.rmtree(folder)
        else:
            assert ended == -signal.SIGKILL
            killed += 1


def stopped_at(iteration):
    class Preempt(Hook):
        def after_train_iter(self, runner, **kwargs):
            if runner.iter == iteration:
                os.kill(os.getpid(), signal.SIGTERM)

    return Preempt()


@pytest.mark.parametrize(('count', 'written'), [(1, 9), (4, 12)])
def test_sigterm_writes_a_checkpoint_and_exits_with_143(tmp_path, count, written):
    """With accumulated gradients it waits for the next update."""
    options = dict(count=count, minutes=60)
    train(settings(tmp_path / 'undisturbed', **options))
    folder = tmp_path / 'stopped'
    with pytest.raises(SystemExit) as caught:
        train(settings(folder, hooks=[stopped_at(8)], **options))
    assert caught.value.code == EXIT_STOPPED == 143
    assert [path.name for path in folder.glob('resume_*')] == [f'resume_{written}.pth']
    (log,) = folder.rglob('*.log')
    assert f'Stopped by SIGTERM in epoch 2 after iteration {written};' in log.read_text()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(settings(folder, **options), resume=True)
    assert_same_end(folder, last(tmp_path / 'undisturbed'))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.slow
def test_a_run_with_persistent_workers_ends(tmp_path, repo):
    code = (
        'import sys; sys.path[:0] = ["tests", "."]\n'
        'import pathlib\nfrom helpers import resuming as t\n'
        f't.train(t.settings(pathlib.Path({str(tmp_path / "run")!r}), workers=2, minutes=60, epochs=2))'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=repo, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    # PyTorch watches its workers, and complains of one that ends otherwise than with success.
    assert 'Traceback' not in done.stderr
    assert (tmp_path / 'run/epoch_2.pth').is_file()


def test_sigterm_to_the_whole_group_spares_the_workers(tmp_path):
    """A scheduler signals every process of a job, the loaders' workers too, those of val as well."""

    class PreemptAll(Hook):
        def after_train_iter(self, runner, **kwargs):
            if runner.iter == 8:
                send = ['kill', '-TERM', '--', f'-{os.getpgid(0)}']
                subprocess.run(send, start_new_session=True, check=True)
                time.sleep(0.5)  # long enough for a worker to die and for PyTorch to notice

    def run():
        os.setpgid(0, 0)
        arguments = settings(tmp_path / 'run', workers=1, minutes=60, hooks=[PreemptAll()])
        train(arguments | validation(arguments, tmp_path))

    assert in_child(run) == EXIT_STOPPED
    assert (tmp_path / 'run' / 'resume_9.pth').is_file()


def test_sigterm_ends_a_validation(tmp_path):
    class PreemptVal(Hook):
        def before_val_iter(self, runner, **kwargs):
            os.kill(os.getpid(), signal.SIGTERM)

    arguments = settings(tmp_path / 'run', minutes=60)
    arguments |= validation(arguments, tmp_path)
    with pytest.raises(SystemExit) as caught:
        train(arguments | dict(custom_hooks=[*arguments['custom_hooks'], PreemptVal()]))
    assert caught.value.code == EXIT_STOPPED
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert [path.name for path in (tmp_path / 'run').glob('*.pth')] == ['epoch_1.pth']
    assert train(arguments, resume=True).iter == 18


def test_an_epoch_goes_on_where_as_many_samples_were_seen(tmp_path):
    """Half the batch after a stop in the second epoch: no sample of it is seen twice or missed."""
    with pytest.raises(SystemExit):
        train(settings(tmp_path / 'run', hooks=[stopped_at(8)], minutes=60))
    runner = train(settings(tmp_path / 'run', batch_size=2, minutes=60), resume=True)
    assert (runner.epoch, runner.iter) == (3, 33)
    # The first epoch padded nothing: 22 samples in batches of 4 and 2.
    assert torch.equal(runner.model.seen, torch.full((22,), 3.0))
    assert 'goes on at batch 7 of 11' in max((tmp_path / 'run').rglob('*.log')).read_text()


class Rates(Hook):
    """Remembers the learning rate after each iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.seen = {}

    def after_train_iter(self, runner, **kwargs):
        self.seen[runner.iter + 1] = runner.optim_wrapper.get_lr()['lr'][0]


@pytest.mark.parametrize(
    ('first', 'then', 'stop', 'place'),
    [
        (2, 8, 15, 'at batch 2 of 3'),
        (8, 2, 4, 'at batch 9 of 11'),
        # Stopped after the last batch of an epoch, which is not full.
        (8, 2, 5, 'with the next epoch'),
        (2, 8, 21, 'with the next epoch'),
    ],
)
def test_with_another_batch_the_schedule_is_the_configs(tmp_path, first, then, stop, place):
    def arguments(name, batch_size, rate, *hooks):
        found = settings(tmp_path / name, batch_size=batch_size, minutes=60, hooks=hooks)
        found['optim_wrapper']['optimizer']['lr'] = rate
        by_iter = dict(type='PolyLR', by_epoch=True, begin=0, end=3, convert_to_iter_based=True)
        found['param_scheduler'].append(by_iter)
        return found

    undisturbed, resumed = Rates(), Rates()
    train(arguments('undisturbed', then, 0.02, undisturbed))
    with pytest.raises(SystemExit):
        train(arguments('run', first, 0.01, stopped_at(stop)))
    time.sleep(1.1)  # runners of one process share what has the same name, and a name is good for a second
    runner = train(arguments('run', then, 0.02, resumed), resume=True)
    assert place in max((tmp_path / 'run').rglob('*.log')).read_text()
    assert resumed.seen.items() < undisturbed.seen.items()
    assert runner.iter == max(resumed.seen) == max(undisturbed.seen)
    if place == 'with the next epoch':
        assert torch.equal(runner.model.seen, torch.full((22,), 3.0))


def test_the_validation_that_a_kill_cut_short_is_made_up(tmp_path):
    class Count(Hook):
        validated = 0

        def after_val_epoch(self, runner, metrics=None):
            self.validated += 1

    count = Count()
    arguments = settings(tmp_path / 'run', minutes=60, hooks=[count])
    arguments['train_cfg']['val_interval'] = 3
    arguments |= validation(arguments, tmp_path)
    train(arguments)
    assert count.validated == 1
    assert train(arguments, resume=True).iter == 18
    assert count.validated == 2


def test_draws_depend_on_seed_epoch_and_index_alone():
    data = ResumeNoise(pipeline=[])
    seeded = SeededDataset(data, seed=1)
    first = seeded[2, 5]['inputs']
    seeded[2, 6]
    assert torch.equal(seeded[2, 5]['inputs'], first)
    for other in (seeded[3, 5], seeded[2, 4], SeededDataset(data, seed=2)[2, 5]):
        assert not (other['inputs'][:3] == first[:3]).any()
    assert len(seeded) == 22
    assert seeded.metainfo == data.metainfo


def test_neighbouring_seeds_are_independent():
    """Draws of consecutive epochs and indices are uniform and uncorrelated."""
    drawn = []
    for epoch in range(20):
        for index in range(50):
            seed_generators(0, epoch, index)
            drawn.append([random.random(), np.random.rand(), torch.rand(1).item()])
    drawn = np.array(drawn)
    assert abs(drawn.mean(0) - 0.5).max() < 0.05
    assert abs(drawn.std(0) - 12**-0.5).max() < 0.02
    assert abs(np.corrcoef(np.concatenate([drawn[:-1], drawn[1:]], axis=1).T) - np.eye(6)).max() < 0.12


def test_batches_go_on_after_those_that_were_seen():
    whole = SeededBatches(torch.utils.data.BatchSampler(range(10), 4, drop_last=False))
    assert list(whole) == [[(0, i) for i in batch] for batch in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9])]
    whole.epoch, whole.first = 3, 2
    assert list(whole) == [[(3, 8), (3, 9)]]
    assert len(whole) == 3
    assert whole.batch_size == 4


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Work dir of a run of three epochs and one more checkpoint between them."""
    folder = tmp_path_factory.mktemp('finished') / 'run'
    with pytest.raises(SystemExit):
        train(settings(folder, hooks=[stopped_at(14)], minutes=60))
    return folder


@pytest.mark.parametrize(
    ('model', 'expected'),
    [
        (dict(width=6), r'net.0.weight is of shape \(8, 4\), expected of shape \(6, 4\)'),
        (dict(bias=False), r'net.4.bias is of shape \(2,\), expected absent'),
    ],
)
def test_the_weights_of_another_model_are_refused(finished, tmp_path, model, expected):
    """mmengine loads what fits; the optimizer's state would go to weights of another shape."""
    folder = shutil.copytree(finished, tmp_path / 'copy')
    arguments = settings(folder, minutes=60)
    arguments['model'] |= model
    del arguments['custom_hooks'][0]  # EMAHook stops at another shape by itself
    with pytest.raises(ResumeError, match=rf'resume_15.pth: {expected}; go on with the config'):
        train(arguments, resume=True)


def test_a_tensor_that_the_checkpoint_lacks_is_refused(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / 'copy')
    state = torch.load(folder / 'resume_15.pth', weights_only=True)
    del state['state_dict']['net.4.bias'], state['ema_state_dict']
    torch.save(state, folder / 'resume_15.pth')
    with pytest.raises(ResumeError, match=r'net.4.bias is absent, expected of shape \(2,\)'):
        train(settings(folder, minutes=60), resume=True)


@pytest.mark.parametrize('damage', ['none', 'cut', 'hole', 'empty', 'pickle'])
def test_the_last_whole_checkpoint_is_taken(finished, tmp_path, damage):
    folder = shutil.copytree(finished, tmp_path / 'copy', copy_function=shutil.copyfile)
    newest = folder / 'resume_15.pth'
    content = bytearray(newest.read_bytes())
    middle = len(content) // 2
    if damage == 'cut':
        content = content[:-700]
    elif damage == 'hole':  # a crash of the machine: the size is there, a page of it is not
        content[middle : middle + 512] = bytes(512)
    elif damage == 'empty':
        content = b''
    elif damage == 'pickle':
        content = b'\x80\x02cposix\nsystem\nq\x00.'
    newest.write_bytes(content)
    messages = []
    whole = newest if damage == 'none' else folder / 'epoch_2.pth'
    assert newest_checkpoint(folder, messages.append) == whole
    assert [str(newest) in line for line in messages] == ([] if damage == 'none' else [True])


def test_an_older_run_in_the_same_folder_is_not_taken(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / 'copy')
    state = torch.load(folder / 'epoch_2.pth', weights_only=True)
    state['meta'] |= dict(epoch=20, iter=120, time='20200101_000000')
    del state['meta']['stamp']  # as before there was one
    torch.save(state, folder / 'epoch_20.pth')
    assert newest_checkpoint(folder).name == 'resume_15.pth'


def test_a_copied_work_dir_leaves_the_original_alone(tmp_path):
    """The checkpoints that a run remembers as its best and its last are those of its own folder."""

    def arguments(name, epochs):
        found = settings(tmp_path / name, minutes=60, epochs=epochs)
        found |= validation(found, tmp_path) | dict(val_evaluator=dict(type='ResumeScore'))
        found['default_hooks']['checkpoint'] |= dict(save_best='resume/score', rule='greater')
        return found

    train(arguments('run', 2))
    whole = sorted(path.name for path in (tmp_path / 'run').glob('*.pth'))
    copy = shutil.copytree(tmp_path / 'run', tmp_path / 'copy')
    runner = train(arguments('copy', 3), resume=True)
    assert sorted(path.name for path in (tmp_path / 'run').glob('*.pth')) == whole
    assert [path.name for path in copy.glob('best_*')] == ['best_resume_score_epoch_3.pth']
    runner = train(arguments('copy', 3), resume=True)  # nothing left to train, nor to write
    assert runner.message_hub.get_info('last_ckpt') == str(copy / 'epoch_3.pth')


def test_no_checkpoint_and_none_that_can_be_read(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / 'last_checkpoint').write_text('gone/epoch_3.pth')
    with pytest.raises(ResumeError, match=r'last_checkpoint: names gone/epoch_3.pth, which is not there'):
        newest_checkpoint(tmp_path)


def test_checkpoints_between_epochs_do_not_pile_up(tmp_path):
    folder = tmp_path / 'run'
    with pytest.raises(SystemExit):
        train(settings(folder, minutes=0, hooks=[stopped_at(16)]))
    assert sorted(path.name for path in folder.glob('resume_*')) == ['resume_16.pth', 'resume_17.pth']
    (folder / 'epoch_9.pth.part').write_bytes(b'half')
    train(settings(folder, minutes=60), resume=True)
    assert sorted(path.name for path in folder.glob('*.pth*')) == ['epoch_2.pth', 'epoch_3.pth']


def test_a_clock_that_was_ahead_costs_no_checkpoint(tmp_path):
    """The node that wrote the first checkpoints was five minutes ahead of the one that goes on."""
    folder = tmp_path / 'run'
    with pytest.raises(SystemExit):
        train(settings(folder, minutes=0, hooks=[stopped_at(2)]))
    for path in folder.glob('resume_*.pth'):
        state, ahead = torch.load(path, weights_only=True), path.stat().st_mtime + 300
        state['meta']['time'] = time.strftime('%Y%m%d_%H%M%S', time.localtime(ahead))
        state['meta'].update({key: value + 300 for key, value in state['meta'].items() if key == 'stamp'})
        torch.save(state, path)
        os.utime(path, (ahead, ahead))
    with pytest.raises(SystemExit):
        train(settings(folder, minutes=0, hooks=[stopped_at(4)]), resume=True)
    assert sorted(path.name for path in folder.glob('resume_*')) == ['resume_4.pth', 'resume_5.pth']
    assert newest_checkpoint(folder).name == 'resume_5.pth'
    with pytest.raises(SystemExit):
        train(settings(folder, minutes=60, hooks=[stopped_at(6)]), resume=True)
    assert sorted(path.name for path in folder.glob('resume_*')) == ['resume_5.pth', 'resume_7.pth']
