"""backbone.safetensors: what a pretraining hands over arrives as its checkpoint does; damage is said."""

import json
import re

import pytest
import torch
from helpers.handover import RESNET_TARGET, detector, hand_over
from helpers.pretraining import MASKED, SIMMIM, SIMSIAM, VIEWS, run
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from projects.xray import compat
from projects.xray.handover import HandoverError
from projects.xray.hooks.backbone import NAME, describe, digest, fingerprint_images, load_from_safetensors

RESNET = {**RESNET_TARGET, 'stem_channels': 8, 'base_channels': 8}
SWIN = {
    **SIMMIM['backbone'],
    'type': 'mmpretrain.SwinTransformer',
    'out_indices': (0, 1),
    'pad_small_map': True,
}


def pretrain(tiny_coco, folder, method):
    root = tiny_coco(n=1, types=('crack',), unlabeled=16, size=48)
    model, pipeline = dict(resnet=(SIMSIAM, VIEWS), swin=(SIMMIM, MASKED))[method]
    return run(root, folder, model, pipeline, dict(BackboneHook={}), epochs=1, checkpoint=1)


@pytest.mark.parametrize(('method', 'target'), [('resnet', RESNET), ('swin', SWIN)])
def test_a_detector_starts_from_it_as_from_the_checkpoint(tiny_coco, tmp_path, request, method, target):
    folder = tmp_path / 'pretraining'
    pretrain(tiny_coco, folder, method)
    trained = torch.load(folder / 'epoch_1.pth')['state_dict']
    tensors = load_file(folder / NAME)
    assert tensors.keys() == {key for key in trained if key.startswith('backbone.')}
    assert all(torch.equal(tensors[key], trained[key]) for key in tensors)
    cfg = detector(target, folder / NAME)
    if method == 'swin':
        cfg.neck.in_channels = [12, 24]
    else:
        cfg.neck.in_channels = [8, 16, 32, 64]
    runner, log = hand_over(cfg, tmp_path, request)
    assert re.search(r'matched +(\d+) of (\1|\d+) tensors', log)
    assert f'file        {folder / NAME} (prefix' in log
    assert 'trained as  pretraining' in log.replace(tmp_path.name + '-', '')
    started = runner.model.backbone.state_dict()
    learnt = [key for key in started if f'backbone.{key}' in tensors]
    assert len(learnt) > 40
    assert all(torch.equal(started[key], tensors[f'backbone.{key}']) for key in learnt)


def test_another_window_than_its_own_is_refused(tiny_coco, tmp_path, request):
    folder = tmp_path / 'pretraining'
    runner = pretrain(tiny_coco, folder, 'resnet')
    cfg = detector(RESNET, folder / NAME)
    cfg.neck.in_channels = [8, 16, 32, 64]
    load = dict(type='LoadXray', window=dict(type='percentile', low=1, high=99))
    norm = dict(mean=runner.model.data_preprocessor.mean.flatten().tolist(), std=[57.6])
    other = Config(dict(train_dataloader=dict(dataset=dict(pipeline=[load])), data_preprocessor=norm))
    with pytest.raises(HandoverError, match=r"safetensors .*loaded as window {'type': 'full'}.*percentile"):
        hand_over(cfg, tmp_path, request, cfg=other)
    load.pop('window')
    same = Config(dict(train_dataloader=dict(dataset=dict(pipeline=[load])), data_preprocessor=norm))
    _, log = hand_over(cfg, tmp_path, request, cfg=same)
    assert "loaded as   window {'type': 'full'}, dtype uint8, mean [114.5], std [57.6]" in log


def test_it_says_where_it_comes_from(tiny_coco, tmp_path):
    runner = pretrain(tiny_coco, tmp_path / 'pretraining', 'resnet')
    with safe_open(tmp_path / 'pretraining' / NAME, 'pt') as file:
        meta = file.metadata()
    assert (meta['epoch'], meta['iteration'], meta['images']) == ('1', '1', '16')
    assert json.loads(meta['mean']) == [114.5]
    assert json.loads(meta['std']) == [57.6]
    assert meta['load'] == "LoadXray(window={'type': 'full'}, dtype='uint8', size=0)"
    assert meta['torch'] == torch.__version__.split('+')[0]
    assert meta['images_sha256'] == fingerprint_images(runner.train_dataloader.dataset)


def test_a_config_counts_but_for_where_it_writes(tiny_coco, tmp_path):
    runner = pretrain(tiny_coco, tmp_path / 'pretraining', 'resnet')
    meta = dict(experiment_name='a', epoch=1, iter=1)

    def hash_of(**changes):
        written = dict(work_dir='a', load_from=None, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))
        runner.cfg = Config(written)
        runner.cfg.merge_from_dict(changes)
        return describe(runner, meta, {})['config_sha256']

    assert re.fullmatch('[0-9a-f]{64}', hash_of())
    assert hash_of(work_dir='b', load_from='b/epoch_1.pth', resume=True, launcher='pytorch') == hash_of()
    assert hash_of(**{'optim_wrapper.optimizer.lr': 0.2}) != hash_of()


def test_the_fingerprint_is_that_of_the_images(tiny_coco):
    from projects.xray.datasets import XrayImages

    def of(root):
        return fingerprint_images(XrayImages(data_root=str(root), serialize_data=False))

    first, same, other = (tiny_coco(n=1, types=('crack',), unlabeled=3, name=n) for n in 'abc')
    assert of(first) == of(same)
    path = next((other / 'unlabeled').rglob('*.png'))
    path.write_bytes(path.read_bytes() + b'\0')
    assert of(other) != of(first)
    path.unlink()
    assert of(other) != of(first)


@pytest.fixture
def backbone(tmp_path):
    """A file as the hook writes it, with the backbone of a small SimSiam."""
    model = MODELS.build(dict(SIMSIAM, _scope_='mmpretrain'))
    tensors = {k: v for k, v in model.state_dict().items() if k.startswith('backbone.')}
    path = tmp_path / NAME
    save_file(tensors, path, dict(sha256=digest(tensors), experiment_name='small'))
    return path


@pytest.mark.parametrize(
    ('damage', 'expected'),
    [
        ('cut', 'not a readable safetensors file'),
        ('header', 'not a readable safetensors file'),
        ('empty', 'not a readable safetensors file'),
        ('pickle', 'not a readable safetensors file'),
        ('bit', 'its tensors are not those that were written'),
    ],
)
def test_damage_is_one_line(backbone, tmp_path, request, damage, expected):
    content = bytearray(backbone.read_bytes())
    if damage == 'cut':
        content = content[:-100]
    elif damage == 'header':
        content[20:30] = b'\xff' * 10
    elif damage == 'empty':
        content = b''
    elif damage == 'pickle':
        torch.save(dict(state_dict={}), backbone)
        content = backbone.read_bytes()
    else:
        content[-50] ^= 1
    backbone.write_bytes(content)
    with pytest.raises(compat.CheckpointError) as caught:
        hand_over(detector(RESNET, backbone), tmp_path, request)
    text = str(caught.value)
    assert text.startswith(f'{backbone}: {expected}')
    assert '\n' not in text
    assert 'epoch_N.pth' in text


def test_another_architecture_is_refused(backbone, tmp_path, request):
    with pytest.raises(HandoverError, match=r'of the \d+ tensors of ResNet match, expected all'):
        hand_over(detector(dict(RESNET, depth=34), backbone), tmp_path, request)


def test_a_wrong_prefix_is_refused(backbone, tmp_path, request):
    with pytest.raises(HandoverError, match=r"no tensor named 'encoder\.\*'"):
        hand_over(detector(RESNET, backbone, prefix='encoder.'), tmp_path, request)


def test_a_missing_file_is_named(tmp_path, request):
    with pytest.raises(HandoverError, match=r'backbone\.safetensors: no such checkpoint'):
        hand_over(detector(RESNET, tmp_path / NAME), tmp_path, request)
    with pytest.raises(FileNotFoundError):
        load_from_safetensors(str(tmp_path / NAME))


def test_other_safetensors_files_are_read_too(tmp_path):
    save_file(dict(a=torch.ones(2)), tmp_path / 'other.safetensors')
    found = CheckpointLoader.load_checkpoint(str(tmp_path / 'other.safetensors'), logger='silent')
    assert torch.equal(found['state_dict']['a'], torch.ones(2))


def test_the_digest_sees_names_types_shapes_and_values():
    base = dict(a=torch.zeros(4), b=torch.ones(2))
    assert digest(base) == digest(dict(reversed(base.items())))
    changed = [
        dict(a=torch.zeros(4), c=torch.ones(2)),
        dict(a=torch.zeros(2, 2), b=torch.ones(2)),
        dict(a=torch.zeros(4), b=torch.ones(2).int()),
        dict(a=torch.zeros(4), b=torch.tensor([1.0, 1.5])),
    ]
    assert len({digest(tensors) for tensors in [base, *changed]}) == 5
