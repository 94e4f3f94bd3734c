"""ConvNeXt: files of mmpretrain and of Meta's repositories fit, whole, and are proven to arrive."""

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.models import ConvNeXt

from projects.xray.convnext import DetectorConvNeXt
from projects.xray.handover import ALLOWED_MISSING, ALLOWED_UNEXPECTED, compare

SMALL = dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32])
META = {'depthwise_conv': 'dwconv', 'pointwise_conv1': 'pwconv1', 'pointwise_conv2': 'pwconv2'}


def draw(module):
    """Random weights: layer scale and norms of a fresh ConvNeXt are constants."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


@pytest.fixture(scope='module')
def classifier():
    module = draw(ConvNeXt(arch=SMALL, out_indices=(3,), gap_before_final_norm=False))
    module.eval()  # mmpretrain's returns None
    return module


def as_meta(state):
    """The tensors under DINOv3's names: its last norm is there twice."""
    named = {}
    for name, tensor in state.items():
        parts = [META.get(part, part) for part in name.split('.')]
        if parts[0] == 'norm3':
            named[f'norms.3.{parts[1]}'] = tensor
            parts[0] = 'norm'
        named['.'.join(parts)] = tensor
    return named


@pytest.mark.parametrize('names', [dict, as_meta], ids=['mmpretrain', 'dinov3'])
def test_a_file_arrives_whole_and_computes_the_same(classifier, names):
    state = names(classifier.state_dict())
    backbone = draw(DetectorConvNeXt(arch=SMALL))
    load_state_dict(backbone, dict(state), strict=False)
    found = compare(backbone, state)
    assert not found.mismatched and not found.different
    assert all(ALLOWED_MISSING.fullmatch(name) for name in found.missing)
    assert {name.split('.')[0] for name in found.missing} == {'norm0', 'norm1', 'norm2'}
    assert all(ALLOWED_UNEXPECTED.fullmatch(name) for name in found.unexpected)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(backbone.eval()(image)[3], classifier(image)[0])


def test_a_tensor_that_is_missing_or_unknown_is_told(classifier):
    state = as_meta(classifier.state_dict())
    state['stages.0.0.attention.weight'] = state.pop('stages.0.0.dwconv.weight')
    found = compare(DetectorConvNeXt(arch=SMALL), state)
    assert 'stages.0.0.depthwise_conv.weight' in found.missing
    assert 'stages.0.0.attention.weight' in found.unexpected


def test_strides_and_random_weights():
    backbone = DetectorConvNeXt(arch=SMALL)
    assert [tuple(m.shape[1:]) for m in backbone(torch.zeros(1, 3, 64, 96))] == [
        (8, 16, 24),
        (16, 8, 12),
        (24, 4, 6),
        (32, 2, 3),
    ]
    assert backbone.train() is backbone
    backbone.init_weights()  # ConvNeXt's own: normal with a deviation of 0.02, no bias
    weight = backbone.stages[3][0].pointwise_conv1.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not backbone.stages[3][0].pointwise_conv1.bias.any()
