"""tools/train.py: one command for every config, resumable after a kill, one line for bad input."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.config_grammar import find
from mmengine.config import Config
from mmengine.registry import VISBACKENDS

from projects.runs import provenance, running
from projects.runs.digests import digest
from projects.xray.renamed import RENAMED
from tools.train import main


def weights(path):
    return torch.load(path)['state_dict']


def test_trains_into_the_folder_of_the_configs_name(classifier, tmp_path, capsys):
    assert main([str(classifier)]) == 0
    folder = tmp_path / 'work_dirs' / classifier.stem
    assert (folder / 'epoch_2.pth').is_file()
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith('commit '))
    assert re.match(r'commit ([0-9a-f]{40}|unknown)', line)
    assert f'config {classifier}' in line
    assert 'seed 0' in line
    log = next(folder.rglob('*.log')).read_text()
    assert line in log
    assert 'data_share' in log
    assert 'random weights' in log


def test_the_seed_decides_the_weights(classifier, tmp_path):
    runs = dict(first=[], again=['randomness.seed=0'], other=['randomness.seed=1'])
    for name, options in runs.items():
        # Runners of one process share what carries the same name, and a name is good for a second.
        copy = classifier.with_name(f'{classifier.stem}_{name}.py')
        copy.write_text(classifier.read_text())
        options = ['--cfg-options', 'train_cfg.max_epochs=1', *options]
        assert main([str(copy), '--work-dir', str(tmp_path / name), *options]) == 0
    first, again, other = (weights(tmp_path / name / 'epoch_1.pth') for name in runs)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_mixed_precision_is_asked_for_by_a_flag(classifier, capsys):
    assert main([str(classifier), '--amp', '--cfg-options', 'train_cfg.max_epochs=1']) == 0
    assert 'no CUDA: AmpOptimWrapper -> OptimWrapper (fp32)' in capsys.readouterr().out


@pytest.mark.long
def test_a_compiled_recipe_takes_the_steps_of_the_plain_one(two_iterations, tmp_path):
    """The recipe itself, except for the size of the run."""
    options = [*two_iterations, 'auto_scale_lr=None']
    config = str(find('simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px'))
    for compiled in ('False', 'True'):
        folder = ['--work-dir', str(tmp_path / compiled)]
        assert main([config, *folder, '--cfg-options', *options, f'compile={compiled}']) == 0
    losses = {}
    for compiled in ('False', 'True'):
        (path,) = (tmp_path / compiled).rglob('scalars.json')
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        losses[compiled] = [row['loss'] for row in rows if 'loss' in row]
    assert len(losses['True']) == 2
    assert losses['True'] == pytest.approx(losses['False'], abs=1e-4)
    plain, fast = (weights(tmp_path / compiled / 'epoch_1.pth') for compiled in ('False', 'True'))
    for key, value in plain.items():
        torch.testing.assert_close(fast[key], value, atol=1e-3, rtol=1e-2)
    log = next((tmp_path / 'True').rglob('*.log')).read_text()
    assert 'Model has been "compiled"' in log


def test_load_from_starts_at_epoch_0_with_the_weights(classifier, tmp_path):
    assert main([str(classifier), '--work-dir', 'a']) == 0
    copy = classifier.with_name(f'{classifier.stem}_loaded.py')
    copy.write_text(classifier.read_text())
    options = ['--cfg-options', 'optim_wrapper.optimizer.lr=0.0', 'train_cfg.max_epochs=1']
    assert main([str(copy), '--work-dir', 'b', '--load-from', 'a/epoch_2.pth', *options]) == 0
    before, after = weights('a/epoch_2.pth'), weights('b/epoch_1.pth')
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert re.search(r'matched +(\d+) of \1 tensors', next((tmp_path / 'b').rglob('*.log')).read_text())


@pytest.mark.slow
def test_a_killed_training_resumes_at_its_last_epoch(classifier, tmp_path, repo, capsys):
    """kill -9 at any moment; the config's own load_from must not be taken for the run to go on with."""
    start = tmp_path / 'start.pth'
    assert main([str(classifier), '--work-dir', 'first', '--cfg-options', 'train_cfg.max_epochs=1']) == 0
    (tmp_path / 'first' / 'epoch_1.pth').rename(start)
    capsys.readouterr()
    classifier.write_text(classifier.read_text() + f'load_from = {str(start)!r}\n')

    command = [sys.executable, repo / 'tools' / 'train.py', classifier, '--work-dir', 'run']
    options = ['--cfg-options', 'train_cfg.max_epochs=1000000']
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    pointer = tmp_path / 'run' / 'last_checkpoint'
    try:
        while not (pointer.is_file() and re.search(r'epoch_([3-9]|\d\d+)\.pth', pointer.read_text())):
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.01)
        assert main([str(classifier), '--work-dir', 'run']) == 2
        assert 'run: another process is training there; wait for it' in one_line(capsys)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    files = sorted((tmp_path / 'run').glob('epoch_*.pth'), key=lambda file: file.stat().st_mtime)
    named = re.search(r'epoch_(\d+)\.pth', pointer.read_text())
    # The kill may have come while the name was being written: then the newest file is whole.
    last = int((named or re.search(r'epoch_(\d+)\.pth', files[-1].name))[1])
    options = ['--cfg-options', f'train_cfg.max_epochs={last + 2}']
    assert main([str(classifier), '--work-dir', 'run', '--resume', *options]) == 0
    # Logs are named by the second: a run that goes on within the second in which it began shares its log.
    _, resumed, log = sorted((tmp_path / 'run').rglob('*.log'))[-1].read_text().rpartition('resumed epoch: ')
    assert resumed and log.startswith(f'{last},')
    assert re.findall(r'Saving checkpoint at (\d+) epochs', log) == [str(last + 1), str(last + 2)]
    assert 'Hand-over' not in log
    assert pointer.read_text().endswith(f'epoch_{last + 2}.pth')
    momentum = torch.load(pointer.read_text())['optimizer']['state']
    assert len(momentum) > 0


def test_a_run_begun_under_old_module_names_resumes(classifier, tmp_path, monkeypatch):
    """The config that version 0.1 left in the run's folder imports modules that have moved since."""
    assert main([str(classifier), '--work-dir', 'run', '--cfg-options', 'train_cfg.max_epochs=1']) == 0
    dumped = tmp_path / 'run' / classifier.name
    old = "'projects.xray.hooks', 'projects.xray.weights', 'projects.xray.resuming'"
    text = dumped.read_text()
    assert "'projects.xray.hooks'" in text
    dumped.write_text(text.replace("'projects.xray.hooks'", old))
    for name in RENAMED:
        monkeypatch.delitem(sys.modules, name, raising=False)
    options = ['--cfg-options', 'train_cfg.max_epochs=2']
    with pytest.warns(FutureWarning, match='projects.xray.resuming is now projects.xray.hooks.resume'):
        assert main([str(dumped), '--work-dir', 'run', '--resume', *options]) == 0
    assert (tmp_path / 'run' / 'last_checkpoint').read_text().endswith('epoch_2.pth')


def test_resume_without_a_checkpoint_starts_from_the_beginning(classifier, capsys):
    assert main([str(classifier), '--resume', '--cfg-options', 'train_cfg.max_epochs=1']) == 0
    assert 'starts at epoch 0' in capsys.readouterr().out


@pytest.mark.slow
def test_every_start_of_a_run_notes_its_code_and_machine(classifier, tmp_path):
    file = tmp_path / 'run' / 'starts.json'

    def starts(epochs, *options):
        options = [*options, '--cfg-options', f'train_cfg.max_epochs={epochs}', 'randomness.seed=3']
        assert main([str(classifier), '--work-dir', 'run', *options]) == 0
        return json.loads(file.read_text())['starts']

    (first,) = starts(1)
    assert first.items() >= provenance.provenance(classifier).items() and (first['gpus'], first['seed']) == (
        0,
        3,
    )
    (labels,) = first['labels_sha256'].items()
    assert labels[0].endswith('train.json') and labels[1] == digest(Path(labels[0]))
    file.write_text(json.dumps(dict(starts=[first | dict(commit='another')])))
    assert [start['commit'] for start in starts(2, '--resume')] == ['another', first['commit']]
    for lost in ('{"starts": [', None):  # cut short, or of a run begun before they were noted
        file.unlink()
        if lost:
            file.write_text(lost)
        assert [start['commit'] for start in starts(2, '--resume')] == ['unknown', first['commit']]
    assert len(starts(1)) == 1  # from the beginning, whatever the folder holds
    file_of_labels = Path(labels[0])
    file_of_labels.write_text(file_of_labels.read_text() + '\n')
    assert len(starts(2, '--resume')) == 2
    log = sorted((tmp_path / 'run').rglob('*.log'))[-1].read_text()
    assert f'{labels[0]}: another than when this run began' in log and 'without --resume' in log


def one_line(capsys):
    """The one line on stderr."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith('error: ')
    return lines[0]


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['nowhere/absent.py'], 'nowhere/absent.py: no such config'),
        (['CONFIG', '--load-from', 'absent.pth'], 'absent.pth: no such checkpoint'),
        (['CONFIG', '--cfg-options', 'train_cfg.max_epochs'], "'train_cfg.max_epochs' has no key=value"),
        (['CONFIG', '--cfg-options', 'custom_hooks.9.type=X'], "'custom_hooks.9.type=X' does not fit"),
        (['CONFIG', '--cfg-options', 'train_cfg.max_epoch=2'], 'did you mean `max_epochs`?'),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(classifier, capsys, arguments, expected):
    arguments = [str(classifier) if argument == 'CONFIG' else argument for argument in arguments]
    assert main(arguments) == 2
    assert expected in one_line(capsys)


@pytest.mark.parametrize(
    'text', ['model = dict(', "_base_ = './absent.py'", 'model = undefined', 'a = 1 / 0']
)
def test_a_broken_config_is_one_line_and_exit_2(classifier, capsys, text):
    classifier.write_text(text)
    assert main([str(classifier)]) == 2
    assert f'{classifier}: not readable as a config' in one_line(capsys)


def test_resume_and_load_from_exclude_each_other(classifier, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(classifier), '--resume', '--load-from', 'a.pth'])
    assert caught.value.code == 2
    assert 'not allowed with argument --resume' in capsys.readouterr().err


def test_a_fragment_is_one_line_and_exit_2(repo, capsys):
    assert main([str(repo / 'configs/_base_/probe.py')]) == 2
    assert 'probe.py: no model' in one_line(capsys)


def test_a_name_without_checkpoint_is_one_line(classifier, capsys):
    folder = classifier.parent / 'work_dirs' / classifier.stem
    folder.mkdir(parents=True)
    (folder / 'last_checkpoint').write_text('gone/epoch_7.pth')
    assert main([str(classifier), '--resume']) == 2
    assert 'names gone/epoch_7.pth, which is not there' in one_line(capsys)


@pytest.mark.parametrize('damage', ['name', 'checkpoint', 'moved'])
def test_resume_takes_the_last_whole_checkpoint(classifier, capsys, tmp_path, damage):
    assert main([str(classifier), '--work-dir', 'run']) == 0
    folder = tmp_path / 'run'
    if damage == 'moved':
        folder = folder.rename(tmp_path / 'elsewhere')
    else:
        (folder / 'last_checkpoint').write_text('')  # killed while the name was being written
    if damage == 'checkpoint':
        last = folder / 'epoch_2.pth'
        last.write_bytes(last.read_bytes()[:-1000])
    options = ['--cfg-options', 'train_cfg.max_epochs=3']
    capsys.readouterr()
    time.sleep(1.1)  # runners of one process share what has the same name, and a name is good for a second
    assert main([str(classifier), '--work-dir', str(folder), '--resume', *options]) == 0
    printed = capsys.readouterr().out
    whole = 1 if damage == 'checkpoint' else 2
    assert re.search(rf'resumes \S+epoch_{whole}\.pth', printed)
    assert ('epoch_2.pth: not a readable' in printed) == (damage == 'checkpoint')
    assert (folder / 'epoch_3.pth').is_file()


def test_accumulated_steps_make_up_for_missing_gpus(classifier, tmp_path, capsys):
    """Written for a batch of 8, run with 4: half the batch twice is the whole once, without batch norm."""
    classifier.write_text(classifier.read_text() + 'auto_scale_lr = dict(base_batch_size=8)\n')
    other = classifier.with_name(f'{classifier.stem}_written.py')
    other.write_text(classifier.read_text())
    assert main([str(classifier), '--work-dir', 'few']) == 0
    assert 'batch: 1 x 4 = 4, written for 8: gradients of 2 steps are added up' in capsys.readouterr().out
    assert main([str(other), '--work-dir', 'full', '--cfg-options', 'train_dataloader.batch_size=8']) == 0
    assert 'batch:' not in capsys.readouterr().out
    few, full = weights('few/epoch_2.pth'), weights('full/epoch_2.pth')
    for key, value in full.items():
        torch.testing.assert_close(few[key], value, atol=1e-6, rtol=0)


def fitted(**changes):
    """A config of SimSiam's shape after `fit_batch`, and what it said."""
    cfg = Config(
        dict(
            train_dataloader=dict(batch_size=64),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05)),
            param_scheduler=[
                dict(type='LinearLR', by_epoch=False, begin=0, end=500),
                dict(type='CosineAnnealingLR', by_epoch=True, T_max=100, begin=0, end=100, eta_min=1e-3),
            ],
            custom_hooks=[dict(type='SimSiamHook', lr=0.05), dict(type='PaceHook')],
            auto_scale_lr=dict(base_batch_size=256),
        )
    )
    cfg.merge_from_dict(changes)
    return cfg, running.fit_batch(cfg)


def test_a_fraction_of_the_batch_is_accumulated():
    cfg, (result,) = fitted()
    assert cfg.optim_wrapper.accumulative_counts == 4
    assert (cfg.optim_wrapper.optimizer.lr, cfg.custom_hooks[0].lr) == (0.05, 0.05)
    assert cfg.param_scheduler[0].end == 2000  # counted in iterations, of which there are four an update
    assert (cfg.param_scheduler[1].end, cfg.param_scheduler[1].T_max) == (100, 100)
    assert result.startswith('batch: 1 x 64 = 64, written for 256: gradients of 4 steps are added up')
    assert 'learning rate 0.05 as written; batch norm sees 64 images' in result


def test_another_batch_scales_every_learning_rate():
    cfg, (result,) = fitted(**{'train_dataloader.batch_size': 512})
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.1)
    assert cfg.custom_hooks[0].lr == pytest.approx(0.1)
    assert cfg.param_scheduler[1].eta_min == pytest.approx(2e-3)
    assert 'accumulative_counts' not in cfg.optim_wrapper
    assert result.startswith('batch: 1 x 512 = 512, written for 256: learning rate times 2 = 0.1, ')
    assert result.endswith('of the predictor (SimSiamHook) 0.1')
    cfg, _ = fitted(**{'train_dataloader.batch_size': 100})
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.05 * 100 / 256)


def test_the_batch_as_written_changes_nothing():
    for changes in (
        {'train_dataloader.batch_size': 256},
        {'optim_wrapper.accumulative_counts': 4},
        {'auto_scale_lr': None},
    ):
        cfg, result = fitted(**changes)
        assert result == []
        assert cfg.optim_wrapper.optimizer.lr == cfg.custom_hooks[0].lr == 0.05
        assert cfg.param_scheduler[0].end == 500


ENABLED = ['--cfg-options', 'auto_scale_lr.enable=True']


@pytest.mark.parametrize(
    ('asked', 'batch', 'rate', 'expected'),
    [
        (ENABLED, 8, 0.1, 'gradients of 2 steps are added up, learning rate 0.1 as written'),
        (ENABLED, 6, 0.1 * 4 / 6, 'learning rate times 0.666667 = 0.0666667'),
        (ENABLED, 4, 0.1, 'batch: 4, as written: learning rate 0.1 as written'),
        (['--auto-scale-lr'], 6, 0.1 * 4 / 6, 'learning rate times 0.666667 = 0.0666667'),
    ],
)
def test_asking_for_a_scaled_rate_scales_it_once(classifier, capsys, asked, batch, rate, expected):
    """mmengine's own scaling would come on top; what counts is the optimizer's rate."""
    text = f"auto_scale_lr = dict(base_batch_size={batch})\ntrain_cfg['max_epochs'] = 1\n"
    classifier.write_text(classifier.read_text() + text)
    assert main([str(classifier), '--work-dir', 'run', *asked]) == 0
    assert expected in capsys.readouterr().out
    (group,) = torch.load('run/epoch_1.pth')['optimizer']['param_groups']
    assert group['lr'] == pytest.approx(rate)


def test_a_scaled_rate_needs_the_batch_it_was_written_for(classifier, capsys):
    assert main([str(classifier), '--auto-scale-lr']) == 2
    assert 'auto_scale_lr.enable without auto_scale_lr.base_batch_size' in one_line(capsys)


@pytest.mark.parametrize(
    ('stem', 'size', 'cut'),
    [
        ('simsiam_resnet50_4xb64-coslr-100e_industrial-224px', 512, None),
        ('simsiam_resnet50_4xb64-coslr-100e_industrial-224px', 448, '200 px or more'),
        ('simsiam_resnet50_4xb64-coslr-100e_industrial-views-448px', 0, None),
        ('simsiam_resnet50_4xb64-coslr-100e_industrial-views-448px', 1024, None),
        ('simsiam_resnet50_4xb64-coslr-100e_industrial-views-448px', 512, '362 px or more'),
        ('simmim_swin-base_4xb64-amp-coslr-100e_industrial-384px', 512, None),
        ('simmim_swin-base_4xb64-amp-coslr-100e_industrial-384px', 384, '314 px or more'),
        ('faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial', 512, None),
    ],
)
def test_views_larger_than_what_they_are_cut_from_are_named(stem, size, cut):
    result = running.magnified_views(running.read_config(str(find(stem)), [f'xray_load.size={size}']))
    assert len(result) == (cut is not None)
    assert not cut or cut in result[0]


def test_magnified_views_are_said_at_the_start(classifier, tmp_path, capsys):
    crop = "load.insert(1, dict(type='RandomResizedCrop', scale=(40, 32)))\nload[0]['size'] = 64\n"
    classifier.write_text(classifier.read_text().replace('\nloader = dict(', f'\n{crop}loader = dict('))
    options = ['--cfg-options', 'train_cfg.max_epochs=1']
    assert main([str(classifier), '--work-dir', 'run', *options]) == 0
    result = (
        'warning: views of 40 px are magnified, cut as 18 px or more from radiographs shrunk to 64 px; raise'
    )
    assert result in capsys.readouterr().out
    assert result in next((tmp_path / 'run').rglob('*.log')).read_text()


def errors(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]


@pytest.mark.parametrize(
    ('option', 'expected'),
    [
        ('train_dataloader.dataset.ann_file=absent.json', 'absent.json: no such'),
        ('train_dataloader.dataset.severity=unknown', 'unknown'),
        ('model.backbone.type=LeNet6', 'LeNet6 is not in the mmpretrain::model registry'),
    ],
)
def test_bad_data_and_names_are_one_line_and_exit_1(classifier, capsys, option, expected):
    assert main([str(classifier), '--cfg-options', option]) == 1
    (line,) = errors(capsys)
    assert expected in line


def test_an_argument_that_a_class_does_not_take_is_one_line_and_exit_1(classifier, capsys):
    classifier.write_text(classifier.read_text() + "\ntrain_cfg['max_epoch'] = 2\n")
    assert main([str(classifier)]) == 1
    (line,) = errors(capsys)
    assert "unexpected keyword argument 'max_epoch'; correct this key in the config" in line


def test_a_missing_pretraining_is_one_line_with_its_command(classifier, capsys, repo):
    config = sorted((repo / 'configs' / 'simsiam').glob('*_4xb*.py'))[0]
    init_cfg = dict(
        type='Pretrained', checkpoint=f'work_dirs/{config.stem}/epoch_100.pth', prefix='backbone.'
    )
    classifier.write_text(classifier.read_text() + f'\nmodel["init_cfg"] = {init_cfg}\n')
    assert main([str(classifier)]) == 1
    (line,) = errors(capsys)
    assert 'epoch_100.pth: no such checkpoint, expected by model.init_cfg' in line
    assert f'tools/dist_train.sh configs/simsiam/{config.name} 4' in line


def test_a_torn_checkpoint_is_one_line(classifier, capsys, tmp_path):
    (tmp_path / 'torn.pth').write_bytes(b'PK\x03\x04' + b'\0' * 50)
    assert main([str(classifier), '--load-from', 'torn.pth']) == 1
    (line,) = errors(capsys)
    assert 'torn.pth: not a readable' in line


def test_an_error_in_a_loader_worker_is_one_line(classifier, capsys, tmp_path):
    images = tmp_path / 'data' / 'images'
    for path in images.glob('train_*.png'):
        path.write_bytes(b'not a picture')
    assert main([str(classifier), '--cfg-options', 'train_dataloader.num_workers=1']) == 1
    (line,) = errors(capsys)
    assert re.search(r'train_0\d\d\.png', line)
    assert 'Traceback' not in line


def test_a_fault_of_the_code_keeps_its_traceback(classifier):
    classifier.write_text(classifier.read_text() + "\nmodel['backbone']['num_classes'] = 3.5\n")
    with pytest.raises(TypeError):
        main([str(classifier)])


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as caught:
        main(['--help'])
    assert caught.value.code == 0
    assert 'python tools/train.py configs/' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('backend', 'package'), [('WandbVisBackend', 'wandb'), ('MLflowVisBackend', 'mlflow')]
)
def test_a_logger_that_is_not_installed_ends_in_a_line(tmp_path, capsys, backend, package):
    def fails(argv):
        return VISBACKENDS.build(dict(type=backend, save_dir=str(tmp_path))).experiment

    assert running.one_line_errors(fails)([]) == 1
    assert capsys.readouterr().err == (
        f'error: {package} is not installed, expected by visualizer.vis_backends; install it with '
        f'`.uv/bin/uv pip install --python .venv {package}`, or leave this logger out\n'
    )


def test_a_value_on_the_command_line_keeps_its_blanks_and_commas(classifier):
    option = 'train_dataloader.dataset.data_root=/data/my castings, 2026'
    cfg = running.read_config(str(classifier), [option, 'xray_load.window.percentiles=(0.5, 99.5)'])
    assert cfg.train_dataloader.dataset.data_root == '/data/my castings, 2026'
    assert cfg.train_dataloader.dataset.pipeline[0].window.percentiles == (0.5, 99.5)
    with pytest.raises(
        running.UsageError, match=r"'model.x=\[my castings\]' does not fit .* no Python literal"
    ):
        running.read_config(str(classifier), ['model.x=[my castings]'])
