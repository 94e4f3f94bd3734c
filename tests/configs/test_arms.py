"""Arms differ from their baseline in what their name says, in nothing else, and by the right value."""

import ast
import functools
import importlib.util
import re
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.config_grammar import (
    CONFIGS,
    all_configs,
    baseline_of,
    dataset,
    find,
    is_own,
    parse_name,
    resolved,
)
from mmengine.config import Config, ConfigDict
from mmpretrain.models import VisionTransformer

from projects.config.configs import differences, load_config, under
from projects.config.names import NameGrammarError

MMDET = Path(importlib.util.find_spec('mmdet').origin).parent / '.mim/configs/_base_/models'
ARMS = [path for path in all_configs() if baseline_of(path)]

# What an arm may change, by the tokens in which its name differs from its baseline's.
AXES = {
    frozenset({'init'}): ('model.backbone.init_cfg',),
    frozenset({'images'}): (
        'train_dataloader.dataset.data_root',
        'train_dataloader.dataset.data_prefix',
        'train_dataloader.dataset.ann_file',
        'train_dataloader.times',
    ),
    frozenset({'px'}): (
        'train_dataloader.dataset.pipeline',
        'model.backbone.img_size',
        'model.backbone.pad_small_map',
    ),
    frozenset({'axis', 'px'}): ('train_dataloader.dataset.pipeline',),
}
# And by the axis itself, where the name differs in nothing else.
VARIANTS = {
    'frozen': ('model.backbone.frozen_stages',),
    'cascade': ('model.type', 'model.roi_head', 'model.train_cfg.rcnn'),
}
# Castings are read this often an epoch in the full recipes, to match the industrial set's iterations:
# 20 * 1,433 and 15 * 1,818 radiographs against 27,901.
REPEATS = {'castings-a': 20, 'castings-b': 15}


def axis_of(path):
    """Keys below which an arm may differ from its baseline."""
    name = parse_name(path)
    changed = frozenset(name.differs(parse_name(baseline_of(path))))
    if changed == {'axis'}:
        return VARIANTS[name.axis]
    assert changed in AXES, f'{path.stem} differs from its baseline in {sorted(changed)}: not one axis'
    return ('load_from',) if hands_over_whole(name) else AXES[changed]


def hands_over_whole(name):
    """Whether a detector starts from a whole detector, not from a backbone."""
    return name.init == 'coco' or 'drawn' in name.init


def unwrapped(config):
    """The config with its dataset's repetition as a key beside the dataset."""
    config = ConfigDict(config.to_dict())
    loader = config.train_dataloader
    if loader.dataset.type == 'RepeatDataset':
        assert set(loader.dataset) == {'type', 'times', 'dataset'}
        loader.times = loader.dataset.times
        loader.dataset = loader.dataset.dataset
    return config


@functools.cache
def public_weights(package, folder, model):
    """URL of a model's weights in the model index of an installed package."""
    root = Path(importlib.util.find_spec(package).origin).parent / '.mim' / 'configs'
    index = yaml.safe_load((root / folder / 'metafile.yml').read_text())['Models']
    return next(entry['Weights'] for entry in index if entry['Name'] == model)


def expected_init(path, root):
    """What `model.backbone.init_cfg` must be, from the config's name."""
    name = parse_name(path)
    swin = name.backbone.startswith('swin')
    if name.init == 'scratch':
        if name.kind == 'pretrain' or not swin:
            return None
        return dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0)
    if name.init == 'in1k' or hands_over_whole(name):  # a whole detector overwrites the baseline's start
        if name.backbone == 'lite0':
            return dict(type='Pretrained', checkpoint='package://efficientnet-lite0', prefix='backbone.')
        if name.backbone == 'convnext-tiny':
            weights = public_weights('mmpretrain', 'convnext', 'convnext-tiny_32xb128_in1k')
            return dict(type='Pretrained', checkpoint=weights, prefix='backbone.')
        if not swin:
            return dict(type='Pretrained', checkpoint='torchvision://resnet50')
        weights = public_weights('mmpretrain', 'swin_transformer', 'swin-base_3rdparty_in1k-384')
        return dict(type='Pretrained', checkpoint=weights, prefix='backbone.')
    if name.init == 'dinov3':  # as Meta names the file, which the user downloads
        weights = 'dinov3_convnext_tiny_pretrain_lvd1689m-21b726bb.pth'
        return dict(type='Pretrained', checkpoint=f'data/weights/{weights}')
    if name.init == 'dinov2':
        weights = public_weights('mmpretrain', 'dinov2', 'vit-small-p14_dinov2-pre_3rdparty')
        return dict(type='Pretrained', checkpoint=weights, prefix='backbone.')

    return dict(type='Pretrained', checkpoint=expected_checkpoint(path, root), prefix='backbone.')


def check_cascade(base, model):
    """The stages are those of mmdet's Cascade R-CNN; all else is the baseline's head and sampling."""
    published = Config.fromfile(MMDET / 'cascade-rcnn_r50_fpn.py').model
    for key in ('type', 'num_stages', 'stage_loss_weights'):
        assert model.roi_head[key] == published.roi_head[key]
    assert model.roi_head.bbox_roi_extractor == base.roi_head.bbox_roi_extractor
    own = ('type', 'in_channels', 'fc_out_channels', 'roi_feat_size', 'num_classes')
    single = base.roi_head.bbox_head
    for head, theirs in zip(model.roi_head.bbox_head, published.roi_head.bbox_head, strict=True):
        assert head == dict(theirs, **{key: single[key] for key in own})
    assert isinstance(model.train_cfg.rcnn, list)
    for stage, theirs in zip(model.train_cfg.rcnn, published.train_cfg.rcnn, strict=True):
        assert stage.assigner == dict(theirs.assigner, type='XrayMaxIoUAssigner')
        assert dict(stage, assigner=None) == dict(base.train_cfg.rcnn, assigner=None)


def expected_checkpoint(path, root):
    """The last checkpoint of the pretraining that the config's name means."""
    name = parse_name(path)
    found = [p for p in all_configs(root) if p.parent.name in pretrain_folders(path) and hands_over(p, name)]
    assert len(found) == 1, f'{path.stem}: its name means one of {[p.stem for p in found]}'
    return f'work_dirs/{found[0].stem}/epoch_{resolved(found[0]).train_cfg.max_epochs}.pth'


def pretrain_folders(path):
    folder = path.parent.name
    return (folder,) if is_own(path) or folder in ('small', 'one_gpu', 'cpu') else ('simsiam', 'simmim')


def hands_over(path, target):
    """Whether the pretraining `path` is the one that the name of a probe or a detector means."""
    try:
        source = parse_name(path)
    except NameGrammarError:
        return False
    if source.kind not in ('pretrain', 'drawn') or source.backbone != target.backbone:
        return False
    # A whole detector is handed over with its box heads; to a backbone no variant of a pretraining belongs.
    if source.axis != ('cascade' if source.kind == 'drawn' and target.axis == 'cascade' else None):
        return False
    images = f'castings-{target.images[-1]}' if target.init.endswith('-castings') else None
    # The paper's GDXray arms are transfer from the industrial images.
    images = images or target.images.replace('gdxray-a', 'industrial').replace('gdxray-b', 'industrial')
    images = re.sub(r'^(welds)-\d$', r'\1', images)  # one archive for all folds
    init = 'in1k' if target.init.startswith('in1k-') else 'scratch'
    method = re.sub('^in1k-|-castings$', '', target.init)
    base = baseline_of(path)
    plain = base is None or parse_name(base).px == source.px  # not the variant of another size
    return (source.method, source.init, source.images, plain) == (method, init, images, True)


def check_arm(path, config, root=CONFIGS):
    """All that an arm must be; AssertionError otherwise."""
    base, name = resolved(baseline_of(path)), parse_name(path)
    allowed = axis_of(path)
    found = differences(unwrapped(base), unwrapped(config))
    assert found, 'no difference from its baseline'
    outside = [key for key in found if not under(key, allowed)]
    assert not outside, f'differs outside {allowed}: {outside}'

    # One statement per top-level key of the axis beside `_base_`: more would change what nobody announced.
    body = ast.parse(path.read_text()).body
    assigned = [node.targets[0].id for node in body]
    keys = {key.split('.')[0] for key in allowed}
    assert sorted(assigned) == sorted({'_base_'} | keys)

    init = config.model.backbone.get('init_cfg')
    assert (init and init.to_dict()) == expected_init(path, root)
    if name.init == 'coco':
        assert config.load_from == public_weights(
            'mmdet', name.method.replace('-', '_'), f'{name.method}_r50_fpn_1x_coco'
        )
    else:
        whole = expected_checkpoint(path, root) if hands_over_whole(name) else None
        assert config.load_from == whole
    if name.axis == 'frozen':
        depth = VisionTransformer.arch_zoo[config.model.backbone.arch]['num_layers']
        assert config.model.backbone.frozen_stages == depth
    if name.axis == 'cascade':
        assert config.model.type == 'CascadeRCNN'
        if base.model.type != 'CascadeRCNN':
            check_cascade(base.model, config.model)
    if name.kind == 'pretrain':
        wrapper = config.train_dataloader.dataset
        assert wrapper.get('times') == (
            None if path.parent.name in ('small', 'cpu') else REPEATS.get(name.images)
        )
        data = dataset(config.train_dataloader)
        expected = {'industrial': 'data/industrial', 'synthetic': 'data/synthetic'}
        if is_own(path):
            expected[name.images] = config.xray_own.root
        assert data.data_root == expected.get(name.images, 'data/gdxray')
        if is_own(path):
            assert (data.data_prefix.img_path, data.ann_file) in (('unlabeled', ''), ('images', 'train.txt'))
        elif name.images.startswith('castings'):
            assert (data.data_prefix.img_path, data.ann_file) == (
                'images',
                f'{name.images[-1]}/unlabeled.txt',
            )
        else:
            assert (data.data_prefix.img_path, data.ann_file) == ('unlabeled', '')
        assert data.pipeline == expected_pipeline(path, config)
        if name.method == 'simmim':
            backbone = config.model.backbone
            last_map = name.px // (4 * 2 ** (2 if name.backbone == 'swin-narrow' else 4) // 2)
            assert (backbone.img_size, backbone.pad_small_map) == (name.px, last_map % 12 != 0)


def expected_pipeline(path, config):
    """The list an arm takes from a fragment by name, or its baseline's."""
    name = parse_name(path)
    if name.axis:
        return config[f'xray_{name.axis}_pipeline']
    base = baseline_of(path)
    if name.px != parse_name(base).px:
        return config[f'xray_{name.method}_{name.px}_pipeline']
    return dataset(resolved(base).train_dataloader).pipeline


def test_arms_are_discovered():
    """Both kinds are there, so that the tests below have something to say."""
    assert len(ARMS) > 25
    assert {parse_name(path).kind for path in ARMS} == {'pretrain', 'probe', 'detector', 'drawn'}


@pytest.mark.parametrize('path', ARMS, ids=lambda p: p.stem)
def test_an_arm_changes_what_its_name_says(path):
    check_arm(path, resolved(path))


@pytest.mark.parametrize('path', [p for p in all_configs() if not baseline_of(p)], ids=lambda p: p.stem)
def test_a_baseline_starts_from_what_its_name_says(path):
    init = resolved(path).model.backbone.get('init_cfg')
    assert (init and init.to_dict()) == expected_init(path, CONFIGS)
    assert resolved(path).get('load_from') is None


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """A copy of the configs, for a test to change an arm in and put it back."""
    return shutil.copytree(CONFIGS, tmp_path_factory.mktemp('tree') / 'configs')


def refused(tree, path, text):
    """Whether the arm `path` is refused when its file holds `text`."""
    copy = tree / path.relative_to(CONFIGS)
    original = copy.read_text()
    copy.write_text(text)
    try:
        check_arm(copy, load_config(copy), tree)
    except (AssertionError, ValueError):
        return True
    else:
        return False
    finally:
        copy.write_text(original)


def test_an_arm_that_changes_two_things_is_refused(tree):
    path = find('faster-rcnn_r50-simsiam-pre_fpn_4xb4-2x_industrial')
    text = path.read_text()
    assert not refused(tree, path, text)
    assert refused(tree, path, text + "optim_wrapper = dict(type='AmpOptimWrapper')\n")


def mutations(text):
    """Texts with one value of an arm's statements changed or left out."""
    tree = ast.parse(text)
    statements = [node for node in tree.body if getattr(node.targets[0], 'id', '') != '_base_']
    lines = text.splitlines(keepends=True)
    offsets = [sum(map(len, lines[:i])) for i in range(len(lines))]

    def replaced(node, new):
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[node.end_lineno - 1] + node.end_col_offset
        return text[:start] + new + text[end:]

    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant):
                other = {bool: not node.value, type(None): 'dict()', str: f'{node.value}x'}
                new = other.get(
                    type(node.value), node.value + 1 if isinstance(node.value, (int, float)) else None
                )
                yield replaced(node, new if node.value is None else repr(new))
            elif isinstance(node, ast.Attribute) and node.attr.startswith('xray_'):
                yield replaced(node, '_base_.xray_load')
            elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
                yield replaced(node, '')


@pytest.mark.parametrize('path', ARMS, ids=lambda p: p.stem)
def test_changing_any_value_of_an_arm_is_refused(path, tree):
    changed = list(mutations(path.read_text()))
    assert changed
    for text in changed:
        assert refused(tree, path, text), text
