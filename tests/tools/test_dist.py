"""Several ranks on a machine without GPU: the same result, every substitution said, clear ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from helpers.classifier import write_classifier
from helpers.drawn_sets import draw_set
from mmengine.registry import MODELS
from mmengine.runner import save_checkpoint

from projects.runs.running import choose_start
from projects.xray import compat  # noqa: F401
from projects.xray.hooks import verified_load  # noqa: F401
from tools.train import main

SWIN = dict(
    arch=dict(embed_dims=24, depths=[2, 2], num_heads=[2, 4]),
    img_size=96,
    stage_cfgs=dict(block_cfgs=dict(window_size=12)),
)


def script(repo, name, *arguments, cwd=None, **environment):
    return subprocess.run(
        [repo / 'tools' / name, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
        timeout=3600,
    )


FAILING_RANK = """
import os, signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class FailOnce(Hook):
    priority = 'LOWEST'
    def after_train_iter(self, runner, **kwargs):
        first = int(os.environ['TORCHELASTIC_RESTART_COUNT']) == 0
        if first and os.environ['RANK'] == '1' and runner.iter == 2:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_nodes_of_which_one_fails_train_the_weights_of_one_process(classifier, tmp_path, repo):
    """Rank 1 is killed in the second epoch; torchrun starts both again, from the last checkpoint.

    Without batch norm the sum of gradients of two ranks is that of one with twice the batch: equal to 1e-6,
    since the order of summation is not.
    """
    (tmp_path / 'failing.py').write_text(FAILING_RANK)
    alone = classifier.with_name('alone.py')
    text = classifier.read_text().replace("'hooks')", "'hooks', 'resuming')")
    text += "custom_hooks.append(dict(type='ResumeHook', minutes=0))\n"
    alone.write_text(text)
    text += "custom_imports['imports'].append('failing')\ncustom_hooks.append(dict(type='FailOnce'))\n"
    classifier.write_text(text)
    port, nodes = free_port(), []
    result = [tmp_path / 'node0.txt', tmp_path / 'node1.txt']
    for rank in range(2):
        environment = dict(
            NNODES='2', NODE_RANK=str(rank), PORT=str(port), MAX_RESTARTS='1', PYTHONPATH=str(tmp_path)
        )
        command = [repo / 'tools' / 'dist_train.sh', classifier, '1', '--work-dir', 'two']
        with result[rank].open('w') as file:
            nodes.append(
                subprocess.Popen(
                    [str(word) for word in command],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**os.environ, **environment},
                )
            )
    try:
        codes = [node.wait(3600) for node in nodes]
    finally:
        for node in nodes:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)
    output = ''.join(file.read_text() for file in result)
    assert codes == [0, 0], output
    assert 'no CUDA: nccl -> gloo, 2 ranks' in output
    assert re.search(r'resumes two/resume_3\.pth', output), output

    assert main([str(alone), '--work-dir', 'one', '--cfg-options', 'train_dataloader.batch_size=8']) == 0
    one, two = (torch.load(tmp_path / name / 'epoch_2.pth') for name in ('one', 'two'))
    assert one['meta']['iter'] == two['meta']['iter'] == 4
    for key, value in one['state_dict'].items():
        torch.testing.assert_close(two['state_dict'][key], value, atol=1e-6, rtol=0)
    untrained = main([str(alone), '--work-dir', 'none', '--cfg-options', 'optim_wrapper.optimizer.lr=0.0'])
    assert untrained == 0
    start = torch.load(tmp_path / 'none' / 'epoch_2.pth')['state_dict']
    assert max((start[k] - v).abs().max() for k, v in one['state_dict'].items()) > 1e-3

    done = script(repo, 'dist_test.sh', alone, 'two/epoch_2.pth', 2, '--work-dir', 'two')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'two' / 'test.json').is_file()


@pytest.mark.slow
def test_a_frozen_swin_with_pretrained_weights_trains_on_two_ranks(classifier, tmp_path, repo):
    """Three steps under DDP: a stage frozen too late stops the second one."""
    source = MODELS.build(
        dict(
            type='mmpretrain.SimMIM',
            data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor'),
            backbone=dict(type='mmpretrain.SimMIMSwinTransformer', out_indices=(1,), **SWIN),
            neck=dict(type='mmpretrain.SimMIMLinearDecoder', in_channels=48, encoder_stride=8),
            head=dict(
                type='mmpretrain.SimMIMHead',
                patch_size=4,
                loss=dict(type='mmpretrain.PixelReconstructionLoss', criterion='L1'),
            ),
        )
    )
    source.init_weights()
    save_checkpoint(dict(state_dict=source.state_dict()), str(tmp_path / 'simmim.pth'))
    backbone = dict(
        type='SwinTransformer',
        out_indices=(1,),
        frozen_stages=1,
        init_cfg=dict(type='Pretrained', checkpoint='simmim.pth', prefix='backbone.'),
        **SWIN,
    )
    text = classifier.read_text()
    text = text.replace("dict(type='Resize', scale=32)", "dict(type='Resize', scale=96)")
    text = text.replace("'datasets', ", "'datasets', 'preprocessors', ")
    text += f"""
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(type='XrayClsDataPreprocessor'),
    backbone={backbone!r},
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=48, loss=dict(type='CrossEntropyLoss')),
)
train_dataloader['batch_size'] = 3
train_cfg['max_epochs'] = 1
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(type='SGD', lr=0.1))
sync_bn = 'torch'
"""
    classifier.write_text(text)
    done = script(repo, 'dist_train.sh', classifier, 2, '--work-dir', 'probe')
    assert done.returncode == 0, done.stderr
    for case in (
        'AmpOptimWrapper -> OptimWrapper (fp32)',
        'nccl -> gloo',
        'device_ids -> None',
    ):
        assert done.stdout.count(case) == 1, done.stdout
    assert 'SyncBN' not in done.stdout  # Swin has none to replace
    log = next((tmp_path / 'probe').rglob('*.log')).read_text()
    assert '(mask_token), allowed' in log
    after = torch.load(tmp_path / 'probe' / 'epoch_1.pth')
    assert after['meta']['iter'] == 3
    before = source.state_dict()
    for key, value in after['state_dict'].items():
        if key.startswith('backbone.'):
            assert torch.equal(value, before[key]), key


KEEP_BUFFERS = """
import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class KeepBuffers(Hook):
    def after_train_iter(self, runner, **kwargs):
        torch.save(dict(runner.model.module.named_buffers()), f'epoch{runner.epoch}-{dist.get_rank()}.pth')
"""
STOPPED_LAUNCHER = """
import os, signal, time
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class StopLauncher(Hook):
    def after_train_iter(self, runner, **kwargs):
        if os.environ['TORCHELASTIC_RESTART_COUNT'] == '1' and runner.iter == 4:
            if os.environ['RANK'] == '0':
                os.kill(os.getppid(), signal.SIGTERM)
            (resume,) = (hook for hook in runner.hooks if type(hook).__name__ == 'ResumeHook')
            while not resume.stopped:  # until torchrun has passed it on
                time.sleep(0.01)
"""
OWN_STATISTICS = """
custom_hooks.append(dict(type='ResumeHook', minutes=0))
train_dataloader['batch_size'] = 2
train_cfg['max_epochs'] = 2
optim_wrapper.update(accumulative_counts=2, optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
sync_bn = 'torch'
model['backbone'] = dict(type='ResNet_CIFAR', depth=18, base_channels=4, stem_channels=4, in_channels=1)
model['neck'] = dict(type='GlobalAveragePooling')
model['head'] = dict(type='LinearClsHead', num_classes=2, in_channels=32, loss=dict(type='CrossEntropyLoss'))
"""


@pytest.fixture(scope='module')
def two_ranks(tmp_path_factory, repo):
    """Folder with `whole`, a run of two ranks whose batch norms differ, and `cut.py`, to end it twice.

    Four iterations an epoch, of which two make an update.
    """
    folder = tmp_path_factory.mktemp('two-ranks')
    config = write_classifier(folder / 'whole.py', draw_set(folder / 'data', n=16))
    text = config.read_text().replace("'hooks')", "'hooks', 'resuming')") + OWN_STATISTICS
    modules = dict(keeping=KEEP_BUFFERS, failing=FAILING_RANK, stopping=STOPPED_LAUNCHER)
    for name, module in modules.items():
        (folder / f'{name}.py').write_text(module)
    ends = [('failing', 'FailOnce'), ('stopping', 'StopLauncher')]
    for name, hooks in (('whole', [('keeping', 'KeepBuffers')]), ('cut', ends)):
        lines = [
            f"custom_imports['imports'].append('{module}')\ncustom_hooks.append(dict(type='{hook}'))\n"
            for module, hook in hooks
        ]
        (folder / f'{name}.py').write_text(text + ''.join(lines))
    done = script(repo, 'dist_train.sh', config, 2, '--work-dir', 'whole', cwd=folder, PYTHONPATH=str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_a_checkpoint_holds_the_statistics_of_all_ranks(two_ranks):
    """Without SyncBN each rank has its own, which are averaged before the epoch's checkpoint is written."""
    own = [torch.load(two_ranks / f'epoch0-{rank}.pth') for rank in (0, 1)]
    kept = torch.load(two_ranks / 'whole' / 'epoch_1.pth')['state_dict']
    means = [key for key in own[0] if key.endswith('running_mean')]
    assert means and any(not torch.equal(own[0][key], own[1][key]) for key in means)
    for key in means:
        torch.testing.assert_close(kept[key], (own[0][key] + own[1][key]) / 2)


@pytest.mark.slow
def test_ranks_resume_with_their_own_statistics_and_half_summed_gradients(two_ranks, repo):
    """Rank 1 dies between the two batches of an update; after the restart the launcher gets SIGTERM there.

    Two ranks sum alike in any order: bit-identical.
    """
    command = 'dist_train.sh', two_ranks / 'cut.py', 2, '--work-dir', 'cut'
    path = dict(cwd=two_ranks, PYTHONPATH=str(two_ranks))
    cut = script(repo, *command, MAX_RESTARTS='1', **path)
    assert cut.returncode == 143, cut.stderr
    assert 'resumes cut/resume_2.pth' in cut.stdout
    assert not (two_ranks / 'cut' / 'epoch_2.pth').exists()
    cut = script(repo, *command, '--resume', **path)
    assert cut.returncode == 0, cut.stderr
    assert 'resumes cut/resume_6.pth' in cut.stdout  # stopped, the ranks finish the update first
    one, two = (torch.load(two_ranks / name / 'epoch_2.pth') for name in ('whole', 'cut'))
    assert one['meta']['iter'] == two['meta']['iter'] == 8
    assert any(key.endswith('running_mean') for key in one['state_dict'])
    for key, value in one['state_dict'].items():
        assert torch.equal(two['state_dict'][key], value), key


def test_a_restart_of_a_run_begun_again_passes_over_an_older_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, when):
        meta = dict(time=time.strftime('%Y%m%d_%H%M%S', time.localtime(when)), iter=1)
        torch.save(dict(meta=meta), f'run/{name}.pth')

    launched = time.time()
    (tmp_path / 'run').mkdir()
    write('epoch_9', launched - 60)
    (tmp_path / 'run' / 'last_checkpoint').write_text('run/epoch_9.pth')
    monkeypatch.setenv('XRAY_LAUNCHED', str(launched))
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    assert choose_start('run', wanted=False) is None
    assert choose_start('run', wanted=True) == 'run/epoch_9.pth'
    write('resume_1', launched + 60)
    assert choose_start('run', wanted=False) == 'run/resume_1.pth'


def test_the_launcher_tells_the_ranks_when_it_started(repo, tmp_path):
    (tmp_path / 'launched.py').write_text("import os; print(os.environ['XRAY_LAUNCHED'])")
    before = time.time()
    command = [sys.executable, repo / 'tools' / 'launch.py', '--standalone', tmp_path / 'launched.py']
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert before <= float(done.stdout) <= time.time(), done.stderr


FAULTY_RANK = """
import os, signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Fail(Hook):
    priority = 'LOWEST'
    def after_train_iter(self, runner, **kwargs):
        if os.environ['RANK'] == '1' and runner.iter == 1:
            if os.environ['HOW'] == 'killed':
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError('a fault of the code')
"""


@pytest.mark.slow
def test_ranks_that_fail_end_in_one_line_and_its_exit_code(classifier, repo):
    classifier.write_text(classifier.read_text() + "load_from = 'absent.pth'\n")
    done = script(repo, 'dist_train.sh', classifier, 2)
    assert done.returncode == 1
    assert done.stderr.count('error:') == 1
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(r'error: absent\.pth: no such checkpoint, .+ \(rank [01] of 2, exit code 1\)', last)
    assert 'Traceback' not in done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ('how', 'traces', 'expected', 'code'),
    [
        ('fault', 1, r'RuntimeError: a fault of the code \(rank 1 of 2, exit code 1\)', 1),
        ('killed', 0, r'killed \(SIGKILL\), .+ \(rank 1 of 2, exit code 137\)', 137),
    ],
)
def test_the_ranks_that_a_failed_one_takes_down_say_nothing(
    classifier, tmp_path, repo, how, traces, expected, code
):
    (tmp_path / 'faulty.py').write_text(FAULTY_RANK)
    classifier.write_text(
        classifier.read_text()
        + "custom_imports['imports'].append('faulty')\ncustom_hooks.append(dict(type='Fail'))\n"
    )
    done = script(repo, 'dist_train.sh', classifier, 2, PYTHONPATH=str(tmp_path), HOW=how)
    assert done.returncode == code
    assert re.fullmatch(f'error: {expected}', done.stderr.splitlines()[-1])
    assert done.stderr.count('error:') == 1
    assert done.stderr.count('Traceback') == traces


@pytest.mark.parametrize(
    ('name', 'arguments', 'expected'),
    [
        ('dist_train.sh', [], 'usage: tools/dist_train.sh CONFIG GPUS'),
        ('dist_train.sh', ['a.py'], 'usage'),
        ('dist_train.sh', ['a.py', 'two'], 'usage'),
        ('dist_train.sh', ['absent.py', '2'], 'error: absent.py: no such config'),
        ('dist_test.sh', ['a.py', '2'], 'usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS'),
        ('dist_test.sh', ['absent.py', 'a.pth', '2'], 'error: absent.py: no such file'),
        ('slurm_train.sh', ['gpu', 'job'], 'usage: tools/slurm_train.sh PARTITION JOB CONFIG'),
        ('slurm_train.sh', ['gpu', 'job', 'absent.py'], 'error: absent.py: no such config'),
    ],
)
def test_wrong_use_of_the_scripts_exits_2(repo, tmp_path, monkeypatch, name, arguments, expected):
    monkeypatch.chdir(tmp_path)
    done = script(repo, name, *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stdout == ''


@pytest.mark.parametrize('name', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh'])
def test_help_of_the_scripts(repo, name):
    done = script(repo, name, '--help')
    assert done.returncode == 0
    assert 'example:' in done.stdout + done.stderr


def test_slurm_job(repo, tmp_path, monkeypatch):
    """What srun is told, by an srun that repeats it."""
    monkeypatch.chdir(tmp_path)
    config = tmp_path / 'a.py'
    config.write_text('')
    done = script(repo, 'slurm_train.sh', 'gpu', 'job', config, PATH='/usr/bin:/bin')
    assert done.returncode == 2
    assert 'srun: not found' in done.stderr
    srun = tmp_path / 'bin' / 'srun'
    srun.parent.mkdir()
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    path = f'{srun.parent}:/usr/bin:/bin'
    done = script(
        repo, 'slurm_train.sh', 'gpu', 'job', config, '--resume', PATH=path, GPUS='2', SRUN_ARGS='-t 5 -x n1'
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words[:4] == ['--partition=gpu', '--job-name=job', '--gres=gpu:2', '--ntasks=2']
    assert words[words.index('-t') : words.index('-t') + 4] == ['-t', '5', '-x', 'n1']
    assert words[-4:] == [str(config), '--launcher', 'slurm', '--resume']
