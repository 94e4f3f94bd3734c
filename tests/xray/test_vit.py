"""A detector on DINOv2's ViT: the published file arrives whole, strides fit, a frozen backbone stays."""

import copy

import pytest
import torch
from helpers.config_grammar import CONFIGS, resolved
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.runner.checkpoint import load_state_dict
from mmengine.structures import InstanceData
from mmpretrain.models import VisionTransformer

import projects.xray.assigners
import projects.xray.preprocessors  # noqa: F401
from projects.xray.handover import ALLOWED_UNEXPECTED, compare
from projects.xray.necks import SimpleFPN

STEM = 'faster-rcnn_vit-small-dinov2-pre_fpn_4xb4-amp-2x_industrial'
# As in ViT-S, but for its size.
TINY = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)


def published():
    """A file as mmpretrain publishes DINOv2's: a position table of 37 x 37 patches, and the mask token."""
    torch.manual_seed(0)
    vit = VisionTransformer(arch=TINY, img_size=518, patch_size=14, layer_scale_init_value=1e-5)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return dict(vit.state_dict(), mask_token=torch.rand(1, 16))


def detector(axis=''):
    """The config's detector with a backbone of two layers."""
    model = copy.deepcopy(resolved(CONFIGS / 'faster_rcnn' / f'{STEM}{axis}.py').model)
    model.backbone.update(arch=TINY, init_cfg=None)
    if axis:
        assert model.backbone.frozen_stages == 12  # of 12
        model.backbone.frozen_stages = 2
    model.neck.in_channels = 16
    torch.manual_seed(0)
    return MODELS.build(model)


def batch():
    """A radiograph whose sides are no multiples of 28 px, with one defect."""
    sample = DetDataSample(metainfo=dict(img_shape=(150, 200), ori_shape=(150, 200), scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[20.0, 30, 60, 80]]), labels=torch.tensor([1]))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return dict(inputs=[torch.randint(0, 256, (1, 150, 200), dtype=torch.uint8)], data_samples=[sample])


def test_a_file_of_the_published_layout_arrives_whole():
    state, backbone = published(), detector().backbone
    load_state_dict(backbone, dict(state), strict=False)
    found = compare(backbone, state)
    assert len(found.matched) == len(backbone.state_dict())
    assert not found.missing and not found.different and not found.mismatched
    assert found.unexpected == ['mask_token'] and ALLOWED_UNEXPECTED.fullmatch('mask_token')


def test_a_file_of_other_names_is_told():
    state = published()
    state['blocks.0.norm1.weight'] = state.pop('layers.0.ln1.weight')  # as in Meta's own file
    found = compare(detector().backbone, state)
    assert found.missing == ['layers.0.ln1.weight'] and 'blocks.0.norm1.weight' in found.unexpected


def test_the_strides_of_pyramid_anchors_and_regions_agree():
    model = detector()
    inputs = model.data_preprocessor(batch(), True)['inputs']
    height, width = inputs.shape[2:]
    assert (height, width) == (168, 224)  # padded to 28 px
    maps = model.extract_feat(inputs)
    found = [(height / m.shape[2], width / m.shape[3]) for m in maps]
    assert found == [(s, s) for s in (3.5, 7, 14, 28, 56)]
    assert [s[0] for s in model.rpn_head.prior_generator.strides] == [3.5, 7, 14, 28, 56]
    assert list(model.roi_head.bbox_roi_extractor.featmap_strides) == [3.5, 7, 14, 28]


def test_a_map_of_an_odd_size_is_halved():
    maps = SimpleFPN(8, 4)((torch.rand(2, 8, 7, 5),))
    assert [tuple(m.shape) for m in maps] == [
        (2, 4, 28, 20),
        (2, 4, 14, 10),
        (2, 4, 7, 5),
        (2, 4, 3, 2),
        (2, 4, 2, 1),
    ]


@pytest.mark.parametrize('axis', ['', '-frozen'])
def test_training_moves_the_backbone_unless_it_is_frozen(axis):
    model = detector(axis)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    data = model.data_preprocessor(batch(), True)
    losses = model.loss(data['inputs'], data['data_samples'])
    total = sum(sum(v) if isinstance(v, list) else v for name, v in losses.items() if 'loss' in name)
    assert torch.isfinite(total)
    total.backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith('neck.') for name in moved)
    assert any(name.startswith('backbone.') for name in moved) == (not axis)
