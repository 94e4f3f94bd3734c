"""EfficientNet-Lite0: ImageNet weights of a package fit, see, and are proven to arrive."""

import cv2
import numpy as np
import pytest
import torch
from matplotlib import cbook
from mmengine.runner.checkpoint import CheckpointLoader

from projects.xray.compat import CheckpointError
from projects.xray.lite0 import EfficientNetLite0, rename

WEIGHTS = 'package://efficientnet-lite0'


@pytest.fixture(scope='module')
def checkpoint():
    return CheckpointLoader.load_checkpoint(WEIGHTS, map_location='cpu', logger='silent')


def of_backbone(checkpoint):
    tensors = checkpoint['state_dict']
    return {k.removeprefix('backbone.'): v for k, v in tensors.items() if k.startswith('backbone.')}


def test_its_tensors_are_all_there_and_no_others(checkpoint):
    whole = EfficientNetLite0(out_indices=(6,))
    whole.load_state_dict(of_backbone(checkpoint), strict=True)
    assert len(checkpoint['state_dict']) == 296
    assert sum(t.numel() for k, t in checkpoint['state_dict'].items() if 'num_batches' not in k) > 4.6e6


@pytest.mark.parametrize(
    ('mean', 'std'), [((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)), ([114.5] * 3, [57.6] * 3)]
)
def test_it_knows_a_military_uniform(checkpoint, mean, std):
    """With the channel averages that radiographs are normalised with, too."""
    picture = cv2.imread(str(cbook.get_sample_data('grace_hopper.jpg', asfileobj=False)))[..., ::-1]
    height, width = picture.shape[:2]
    picture = cv2.resize(picture, (224, round(224 * height / width)), interpolation=cv2.INTER_AREA)
    image = (picture - np.array(mean)) / np.array(std)
    whole = EfficientNetLite0(out_indices=(6,))
    whole.load_state_dict(of_backbone(checkpoint))
    whole.eval()
    with torch.no_grad():
        maps = whole(torch.from_numpy(image).permute(2, 0, 1)[None].float())[0]
    head = checkpoint['state_dict']
    scores = head['head.fc.weight'] @ maps.mean((2, 3))[0] + head['head.fc.bias']
    assert int(scores.argmax()) == 652  # military uniform


def test_strides_and_channels():
    backbone = EfficientNetLite0().eval()
    maps = backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3)]
    assert backbone.train() is backbone
    # Nothing is built that no output needs: every weight takes part.
    backbone.zero_grad()
    sum(m.sum() for m in backbone(torch.rand(2, 3, 64, 64))).backward()
    assert not [n for n, p in backbone.named_parameters() if p.grad is None]


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('package://efficientnet-lite9', 'no such weights, expected one of package://efficientnet-lite0'),
        ('package://', 'no such weights'),
    ],
)
def test_unknown_weights_are_refused(name, expected):
    with pytest.raises(CheckpointError, match=expected) as caught:
        CheckpointLoader.load_checkpoint(name, logger='silent')
    assert '\n' not in str(caught.value)


def test_a_package_that_is_not_there_is_named(monkeypatch):
    import projects.xray.lite0 as module

    monkeypatch.setitem(module.PACKAGES, 'efficientnet-lite0', ('absent-weights', 'absent_weights', 'a.pth'))
    with pytest.raises(CheckpointError, match='the package absent-weights is not installed'):
        CheckpointLoader.load_checkpoint(WEIGHTS, logger='silent')


@pytest.mark.parametrize('name', ['_blocks.16._bn0.weight', '_blocks.0._se_reduce.weight', 'conv1.weight'])
def test_tensors_of_another_model_are_refused(name):
    with pytest.raises(CheckpointError, match=name.replace('.', r'\.')):
        rename({name: torch.zeros(1)})
