"""On a GPU: mixed precision and its resume, NCCL, operators, detectors that agree with the CPU.

`make test-gpu` runs them on the machine's GPUs; without one they fail. All families: test_nccl.py.
"""

import json
import multiprocessing
import os
import re
import subprocess
import sys

import mmcv.ops
import pytest
import torch
from helpers.resuming import leaves

from projects.benchmark import loader, train
from projects.xray.preprocessors import XraySelfSupDataPreprocessor

SIMSIAM = 'configs/small/simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px.py'
SIMMIM = 'configs/small/simmim_swin-narrow_1xb32-coslr-20e_synthetic-96px.py'
DETECTOR = 'configs/small/faster-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic.py'
TRAIN = """
import sys
sys.path[:0] = sys.argv[1:3]
from helpers import resuming  # registers KillHook
from tools.train import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture(scope='module', autouse=True)
def gpu():
    assert torch.cuda.is_available(), 'no GPU here, expected one; run these tests on a machine that has one'


@pytest.fixture
def run(repo, tmp_path):
    """Run a command in `tmp_path` with further environment variables and return what came of it."""

    def run(*command, **environment):
        # Else PyTorch refuses products whose order of summation may change.
        env = {**os.environ, 'CUBLAS_WORKSPACE_CONFIG': ':4096:8', **environment}
        done = subprocess.run(
            [str(part) for part in command],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        print(done.stdout, done.stderr)
        return done

    return run


def options(root, **further):
    """`--cfg-options` that shrink a small recipe to a few steps on a tiny data set."""
    values = {
        **{f'{split}_dataloader.dataset.data_root': root for split in ('train', 'val', 'test')},
        **{f'{split}_evaluator.ann_file': f'{root}/{split}.json' for split in ('val', 'test')},
        **further,
    }
    return ['--cfg-options', *(f'{key}={value}' for key, value in values.items())]


def test_mixed_precision_killed_and_resumed_is_undisturbed(run, repo, tiny_coco, tmp_path):
    """Killed with half-summed gradients behind the last checkpoint; the scaler comes back too."""
    root = tiny_coco(n=4, unlabeled=48, size=160)
    config = tmp_path / 'recipe.py'

    def trained(folder, *arguments, kill=()):
        config.write_text(
            f"""_base_ = {str(repo / SIMSIAM)!r}
train_cfg = dict(max_epochs=3)
train_dataloader = dict(batch_size=8, dataset=dict(data_root={str(root)!r}))
auto_scale_lr = dict(base_batch_size=16)
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
randomness = dict(seed=0, deterministic=True)
default_hooks = dict(logger=dict(interval=1))
custom_hooks = [
    *(dict(hook, minutes=0) if hook['type'] == 'ResumeHook' else hook for hook in _base_.custom_hooks),
    *{list(kill)!r},
]
"""
        )
        folder = tmp_path / folder
        arguments = [config, '--work-dir', folder, *arguments]
        done = run(sys.executable, '-c', TRAIN, repo, repo / 'tests', *arguments)
        return done.returncode, folder

    code, undisturbed = trained('undisturbed')
    assert code == 0
    # 6 batches an epoch, two to an update: the eleventh's gradients wait for the twelfth's.
    code, killed = trained('killed', kill=[dict(type='KillHook', iteration=10, moment='late')])
    assert code == -9
    assert (killed / 'resume_10.pth').is_file()
    code, killed = trained('killed', '--resume')
    assert code == 0

    first, second = (torch.load(path / 'epoch_3.pth', map_location='cpu') for path in (undisturbed, killed))
    assert 'loss_scaler' in first['optimizer']
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        one, two = dict(leaves(first[part])), dict(leaves(second[part]))
        assert one.keys() == two.keys()
        assert [key for key in one if not torch.equal(one[key], two[key])] == []


BACKEND = """
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class SayBackend(Hook):
    def before_train(self, runner):
        synchronised = sum(type(m).__name__ == 'SyncBatchNorm' for m in runner.model.modules())
        print('SEEN', torch.distributed.get_backend(), next(runner.model.parameters()).device, synchronised)
"""


def test_a_detector_trains_over_nccl_and_tests_alike_on_the_cpu(run, repo, tiny_coco, tmp_path):
    """Mixed precision, synchronised batch norm, one rank; then the same checkpoint on both processors."""
    root = tiny_coco(n=8, size=192)
    (tmp_path / 'saying.py').write_text(BACKEND)
    config = tmp_path / 'detector.py'
    config.write_text(
        f"""_base_ = {str(repo / DETECTOR)!r}
custom_imports = dict(imports=[*_base_.custom_imports['imports'], 'saying'], allow_failed_imports=False)
custom_hooks = [*_base_.custom_hooks, dict(type='SayBackend')]
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
sync_bn = 'torch'
"""
    )
    overrides = options(root, **{'train_cfg.max_epochs': 2})
    path = dict(PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')]))
    script = repo / 'tools' / 'dist_train.sh'
    done = run(script, config, 1, '--work-dir', tmp_path / 'run', *overrides, **path)
    assert done.returncode == 0
    backend, device, synchronised = re.search(r'SEEN (\S+) (\S+) (\d+)', done.stdout).groups()
    assert (backend, device) == ('nccl', 'cuda:0')
    assert int(synchronised) > 0

    best = {}
    for name, visible in (('gpu', os.environ['CUDA_VISIBLE_DEVICES']), ('cpu', '')):
        arguments = [config, tmp_path / 'run' / 'epoch_2.pth', '--work-dir', tmp_path / name, *overrides]
        tool = repo / 'tools' / 'test.py'
        done = run(sys.executable, tool, *arguments, CUDA_VISIBLE_DEVICES=visible, **path)
        assert done.returncode == 0
        found = json.loads((tmp_path / name / 'predictions.json').read_text())['detections']
        best[name] = {d['image_id']: d['score'] for d in sorted(found, key=lambda d: d['score'])}
    assert len(best['cpu']) == 8  # a detection on every radiograph
    assert best['gpu'] == pytest.approx(best['cpu'], abs=0.01)


def test_more_ranks_than_gpus_are_refused_in_a_line(run, repo):
    ranks = torch.cuda.device_count() + 1
    done = run(repo / 'tools' / 'dist_train.sh', repo / SIMSIAM, ranks)
    assert done.returncode == 2
    assert f'{ranks} ranks on {ranks - 1} GPU' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('dtype', [torch.uint8, torch.uint16, torch.float32])
def test_pixels_of_any_depth_are_normalised_as_on_the_cpu(dtype):
    top = 65535 if dtype == torch.uint16 else 255
    pixels = (torch.linspace(0, top, 4 * 64).reshape(4, 1, 8, 8)).to(dtype)
    found = {}
    for device in ('cpu', 'cuda'):
        preprocessor = XraySelfSupDataPreprocessor().to(device)
        batch = dict(inputs=pixels.clone(), data_samples=None)
        found[device] = preprocessor(batch, training=True)['inputs']
    assert found['cuda'].device.type == 'cuda'
    assert found['cuda'].shape == (4, 3, 8, 8)
    assert torch.allclose(found['cuda'].cpu(), found['cpu'], atol=1e-5)


def test_operators_run_on_every_device(run, repo):
    done = run(sys.executable, repo / 'tools' / 'doctor.py')
    assert ' on cpu, cuda:0' in ' '.join(done.stdout.split())


@pytest.mark.parametrize('deterministic', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_operators_give_on_the_gpu_what_they_give_on_the_cpu(dtype, deterministic):
    rng = torch.Generator().manual_seed(0)
    corners = torch.rand(400, 2, generator=rng) * 200
    boxes = torch.cat([corners, corners + 1 + torch.rand(400, 2, generator=rng) * 60], 1)
    scores = torch.rand(400, generator=rng)
    regions = torch.cat([torch.arange(400)[:, None] % 2, boxes / 2], 1).to(dtype)
    features = torch.randn(2, 16, 64, 64, generator=rng).to(dtype)
    found = []
    torch.use_deterministic_algorithms(deterministic)
    try:
        for device in ('cpu', 'cuda', 'cuda'):
            map_ = features.to(device).requires_grad_()
            pooled = mmcv.ops.roi_align(map_, regions.to(device), (7, 7), 0.5)
            pooled.float().pow(2).sum().backward()
            kept = mmcv.ops.nms(boxes.to(device), scores.to(device), 0.5)[1]
            found.append([part.detach().cpu() for part in (kept, pooled.float(), map_.grad.float())])
    finally:
        torch.use_deterministic_algorithms(False)
    cpu, cuda, again = found
    assert torch.equal(cpu[0], cuda[0])
    for mine, theirs in zip(cuda[1:], cpu[1:], strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-2 if dtype != torch.float32 else 1e-4, atol=1e-2)
    assert not deterministic or torch.equal(cuda[2], again[2])


@pytest.mark.parametrize(('config', 'steps'), [(SIMMIM, train.LOSS_STEPS), (SIMSIAM, 1), (DETECTOR, 1)])
def test_faster_arithmetic_trains_to_the_same_losses(repo, tmp_path, config, steps):
    """Compared where nothing magnifies rounding, as batch norm over four views and proposals do."""
    loader.write_radiographs(tmp_path / 'data', 8, 192)
    losses = {}
    for variant in (loader.STOCK, f'{loader.PACKED}, amp+channels_last'):
        pipe, end = multiprocessing.Pipe()
        for message in (True, 2, None):
            pipe.send(message)
        changes = ['train_dataloader.batch_size=4', 'train_dataloader.num_workers=0']
        changes.append('train_dataloader.persistent_workers=False')
        train.serve(end, str(repo / config), changes, tmp_path / 'data', variant, 64)
        answer, _, memory = (pipe.recv() for _ in range(3))
        losses[variant] = answer.losses
        assert memory > 1e6
        assert len(set(answer.losses)) == train.LOSS_STEPS  # no update was skipped
    stock, fast = losses.values()
    assert fast[:steps] == pytest.approx(stock[:steps], rel=0.1 if config == DETECTOR else 0.02, abs=0.02)
