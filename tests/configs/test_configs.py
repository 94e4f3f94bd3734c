"""The rules of configs/README.md, over every config."""

import ast
import collections
import copy
import itertools
import re
import shutil

import pytest
import torch
from helpers.config_grammar import (
    CONFIGS,
    all_configs,
    baseline_of,
    bases,
    dataset,
    distill_configs,
    is_own,
    model_of,
    parse_name,
    resolved,
)
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, HOOKS, METRICS, TRANSFORMS, VISUALIZERS, DefaultScope
from mmengine.utils import import_modules_from_strings

import projects.xray.compat  # noqa: F401  (first, as in every config)
from projects.benchmark.published import steps
from projects.config.configs import differences, flatten, load_config, under
from projects.config.names import DETECTORS
from projects.runs.running import UsageError, read_config
from projects.xray import classes

ALL = all_configs()
DISTILL = distill_configs()
# Students without a teacher are detectors; there the name, not the folder, says what is of CPU scale.
STUDENTS = [path for path in DISTILL if not parse_name(path).distiller]
# What a run imports before it builds anything, here for all tests, in whatever order they run.
import_modules_from_strings(**load_config(CONFIGS / '_base_/xray_runtime.py').xray_imports)
FRAGMENTS = sorted((CONFIGS / '_base_').rglob('*.py')) + sorted(CONFIGS.glob('own/*/_base_/*.py'))
VARIABLES = [path for path in FRAGMENTS if path.name.startswith('xray_')]
# Constants of the code that fragments state again under a name that nothing reads.
CONSTANTS = ('projects.xray.norm', 'projects.xray.classes')
# Names that a published recipe defines for its own use: nothing reads them afterwards.
UNREAD = (
    'dataset_type',
    'data_root',
    'view_pipeline',
    'view_pipeline1',
    'view_pipeline2',
    'train_pipeline',
    'test_pipeline',
    'bgr_mean',
    'bgr_std',
)
SHRUNK = [p for p in ALL if p.parent.name in ('small', 'one_gpu') and not baseline_of(p)]
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# The image-level and box-level sets' roots, and the file that each loader reads below them.
ROOTS = {
    'industrial': ('data/industrial', ''),
    'synthetic': ('data/synthetic', ''),
    'synthetic-1024': ('data/synthetic-1024', ''),
    'gdxray-a': ('data/gdxray', 'a/'),
    'gdxray-b': ('data/gdxray', 'b/'),
    'welds-0': ('data/welds', '0/'),
    'welds-1': ('data/welds', '1/'),
    'welds-2': ('data/welds', '2/'),
    'welds': ('data/welds', '0/'),  # an archive for all folds, tested on the first
    'castings-a': ('data/gdxray', 'a/'),
    'castings-b': ('data/gdxray', 'b/'),
}
SPLITS = {'train_dataloader': 'train', 'val_dataloader': 'val', 'test_dataloader': 'test'}


def roots(path):
    return (resolved(path).xray_own.root, '') if is_own(path) else ROOTS[parse_name(path).images]


def root_of(path):
    return roots(path)[0]


drawn = [p for p in ALL if p.stem.startswith('drawn_')]
teachable = [p for p in ALL if p.stem.startswith(DETECTORS)] + drawn
detectors = teachable + STUDENTS
probes = [p for p in ALL if '-linear-' in p.stem]
pretrainings = [p for p in ALL if p not in detectors and p not in probes]


def select(paths):
    return pytest.mark.parametrize('path', paths, ids=lambda p: p.stem)


each = select(ALL + STUDENTS)


def loaders(config):
    return {key: config[key] for key in LOADERS if config.get(key)}


@pytest.fixture(autouse=True)
def scope(request):
    """The registry scope of the config under test."""
    path = getattr(request.node, 'callspec', None) and request.node.callspec.params.get('path')
    if path is None or path in FRAGMENTS:
        yield
        return
    with DefaultScope.overwrite_default_scope(resolved(path).default_scope):
        yield


# Rule 1: text configs, published recipes or fragments of one package.


def chain(path):
    """The file and everything it inherits that lies in this repository; names with `::` as they are."""
    found = [path]
    for base in bases(path):
        found += [base] if '::' in base else chain((path.parent / base).resolve())
    return found


@select(ALL + DISTILL)
def test_a_chain_starts_from_what_one_package_publishes(path):
    published = {link.partition('::')[0] for link in chain(path) if isinstance(link, str)}
    assert published in ({'mmdet'}, {'mmpretrain'})


@select(ALL + FRAGMENTS)
def test_configs_are_text(path):
    nodes = [*ast.walk(ast.parse(path.read_text()))]
    assert not [node for node in nodes if isinstance(node, (ast.Import, ast.With))]
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert all(node.module in CONSTANTS for node in imports)
    assert all(name.asname.startswith('xray_') for node in imports for name in node.names)
    assert not imports or path in FRAGMENTS


# Rule 2: baselines.


@select(VARIABLES)
def test_fragments_export_their_own_variables_only(path):
    assert all(key.startswith('xray_') for key in load_config(path))


# What joins fragments: a model or a student with its data, a student with what distils it.
JOINS = (
    'model = _base_.xray_heads',
    'model = _base_.xray_tiny',
    'custom_imports = _base_.xray_distill_imports',
    'custom_hooks = _base_.xray_distill_hooks',
)


def is_arm(path):
    """Whether a config changes one statement of a sibling. PKD starts from its student, and changes three."""
    if path in DISTILL:
        return parse_name(path).distiller == 'cwd'
    return baseline_of(path) is not None


@pytest.mark.parametrize(
    'folder',
    ['faster_rcnn', 'mask_rcnn', 'linear_probe', 'simsiam', 'simmim', 'one_gpu', 'cpu', 'distill'],
)
def test_no_statement_stands_in_two_siblings(folder):
    paths = [path for path in sorted((CONFIGS / folder).glob('*.py')) if not is_arm(path)]
    joins = JOINS
    if folder == 'distill':
        # A student alone and a distillation may start from one detector.
        joins += tuple(f'_base_ = {list(bases(path))}' for path in paths)
    statements = [
        (ast.unparse(node), path.stem)
        for path in paths
        for node in ast.parse(path.read_text()).body
        if ast.unparse(node) not in joins
    ]
    counts = collections.Counter(text for text, _ in statements)
    assert [(text, stem) for text, stem in statements if counts[text] > 1] == []


def stated(path):
    """Statements of several lines; and the keywords of each dict that state a value, by their place."""
    statements, keywords = set(), set()

    def walk(node, place):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg and any(isinstance(part, ast.Constant) for part in ast.walk(keyword.value)):
                    keywords.add((place, ast.unparse(keyword)))
                    walk(keyword.value, f'{place}.{keyword.arg}')
        elif isinstance(node, ast.List | ast.Tuple):
            for index, item in enumerate(node.elts):
                walk(item, f'{place}.{index}')

    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            walk(node.value, ast.unparse(node.targets[0]))
            if node.end_lineno > node.lineno:
                statements.add(ast.unparse(node))
    return statements, keywords


@pytest.mark.parametrize(
    'folder',
    [
        *('faster_rcnn', 'mask_rcnn', 'linear_probe', 'simsiam', 'simmim', 'one_gpu', 'cpu', 'distill'),
        *('_base_/datasets', '_base_/models', '_base_/schedules'),
    ],
)
def test_no_frame_stands_in_two_siblings(folder):
    """Neither a statement of several lines nor four values of one dict: a fragment holds them."""
    paths = [p for p in sorted((CONFIGS / folder).glob('*.py')) if p in FRAGMENTS or not is_arm(p)]
    for path, sibling in itertools.combinations(paths, 2):
        (statements, keywords), (others, shared) = stated(path), stated(sibling)
        places = collections.Counter(place for place, _ in keywords & shared)
        assert not statements & others, (path.name, sibling.name)
        assert not [place for place, count in places.items() if count > 3], (path.name, sibling.name)


@select([path for path in ALL if not baseline_of(path)])
def test_a_baseline_is_a_list_of_bases_and_its_few_differences(path):
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith('#')]
    assert len(lines) <= 25


@select(ALL + DISTILL)
def test_nothing_marks_deletion_after_inheritance(path):
    assert '_delete_' not in [part for key in flatten(resolved(path)) for part in key.split('.')]


@each
def test_modules_hooks_and_loggers_come_from_the_fragment(path):
    config = resolved(path)
    assert config.custom_imports == config.xray_imports
    assert config.custom_imports.imports[0] == 'projects.xray.compat'
    assert [b.type for b in config.visualizer.vis_backends] == ['LocalVisBackend', 'TensorboardVisBackend']
    assert all(hook in config.custom_hooks for hook in config.xray_hooks)
    assert 'VerifiedLoadHook' in [hook.type for hook in config.custom_hooks]
    checkpoint = config.default_hooks.checkpoint
    assert (checkpoint.type, checkpoint.interval, checkpoint.max_keep_ckpts) == ('CheckpointHook', 1, 2)


# Rule 5: names. What an arm's name says of its weights and its images: test_arms.py.


@select(ALL)
def test_a_name_says_the_batch_the_epochs_and_the_precision(path):
    name, config = parse_name(path), resolved(path)
    assert config.train_dataloader.batch_size == name.batch
    assert config.train_cfg.max_epochs == name.epochs
    assert is_own(path) or name.gpus == (1 if path.parent.name in ('small', 'one_gpu', 'cpu') else 4)
    assert config.optim_wrapper.type == ('AmpOptimWrapper' if name.amp else 'OptimWrapper')
    if name.sched == 'coslr':
        assert config.param_scheduler[-1].type == 'CosineAnnealingLR'
    if config.get('auto_scale_lr'):
        assert config.auto_scale_lr.base_batch_size == name.gpus * name.batch
        assert not config.auto_scale_lr.get('enable')


@select(ALL)
def test_a_name_says_the_architecture(path):
    name, config = parse_name(path), resolved(path)
    backbone = config.model.backbone
    if name.backbone.startswith('resnet'):
        depth, _, narrow = name.backbone.removeprefix('resnet').partition('-')
        assert (backbone.type, backbone.depth) == ('ResNet', int(depth))
        assert (
            backbone.get('base_channels', 64) == backbone.get('stem_channels', 64) == (32 if narrow else 64)
        )
    elif name.backbone == 'swin-base':
        assert backbone.arch == 'base'
    elif name.backbone == 'lite0':
        assert backbone.type.endswith('EfficientNetLite0')
    elif name.backbone == 'convnext-tiny':
        assert (backbone.type, backbone.arch) == ('mmpretrain.DetectorConvNeXt', 'tiny')
    elif name.backbone == 'vit-small':
        assert (backbone.type, backbone.arch) == ('mmpretrain.VisionTransformer', 'dinov2-small')
    else:
        assert (backbone.arch.embed_dims, len(backbone.arch.depths)) == (32, 2)
    model = {'simsiam': 'SimSiam', 'simmim': 'SimMIM', 'faster-rcnn': 'FasterRCNN', None: 'ImageClassifier'}
    model |= {'drawn': 'FasterRCNN', 'densecl': 'DenseCL', 'mask-rcnn': 'MaskRCNN'}
    assert config.model.type == ('CascadeRCNN' if name.axis == 'cascade' else model[name.method])


@select([p for p in ALL if parse_name(p).px])
def test_a_name_says_the_pixels(path):
    name, config = parse_name(path), resolved(path)
    sizes = set()
    for loader in loaders(config).values():
        for step in steps(dataset(loader).pipeline):
            if step.type == 'XrayFlawCrop':  # its `scale` is of the content; views are cut from it
                sizes |= {step['size']} if name.kind == 'drawn' else set()
            else:
                sizes |= {step[key] for key in ('scale', 'input_size') if key in step}
    assert {size if isinstance(size, int) else max(size) for size in sizes} == {name.px}
    if name.backbone.startswith('swin'):
        assert config.model.backbone.img_size == name.px


# Rule 6: a file does not know its own name, where it writes, its seed or the machine.


@select(ALL + DISTILL)
def test_a_file_holds_no_name_work_dir_seed_or_machine_path(path):
    config = resolved(path)
    assert path.stem not in path.read_text()
    assert not config.get('work_dir')
    assert (config.get('randomness') or {}).get('seed') is None
    strings = [value for value in flatten(config).values() if isinstance(value, str)]
    assert not [value for value in strings if value.startswith(('/', '~'))]


@select(ALL + DISTILL)
def test_nothing_of_the_parents_data_is_left(path):
    read = {key: value for key, value in flatten(resolved(path)).items() if not under(key, UNREAD)}
    strings = [value for value in read.values() if isinstance(value, str)]
    assert not [s for s in strings if re.search('data/(coco|imagenet)|LoadImageFromFile', s)]


# Rule 7: checkpoints; the right one for each name: test_arms.py.


@select(ALL + DISTILL)
def test_checkpoints_in_work_dirs_are_the_last_of_an_existing_config(path):
    stems = {other.stem: other for other in ALL}
    for value in flatten(resolved(path)).values():
        if isinstance(value, str) and 'work_dirs' in value:
            stem, epochs = re.fullmatch(r'work_dirs/([^/]+)/epoch_(\d+)\.pth', value).groups()
            assert resolved(stems[stem]).train_cfg.max_epochs == int(epochs)


# Rule 8: loaders say what they do.


@each
def test_loaders_are_stated(path):
    config = resolved(path)
    expected = LOADERS[:1] if path in pretrainings else LOADERS
    assert tuple(loaders(config)) == expected
    for key, loader in loaders(config).items():
        assert loader.collate_fn.type == ('pseudo_collate' if path in detectors else 'default_collate')
        assert list(loader.collate_fn) == ['type']
        assert isinstance(loader.pin_memory, bool)
        assert loader.num_workers > 0
        assert loader.persistent_workers is True
        assert loader.sampler == dict(type='DefaultSampler', shuffle=key == 'train_dataloader')


@select(probes + detectors)
def test_training_validation_and_test_read_their_own_split(path):
    config = resolved(path)
    root, folder = roots(path)
    for key, loader in loaders(config).items():
        data = dataset(loader)
        unlabelled = path in drawn and key == 'train_dataloader'
        file = f'{folder}{SPLITS[key]}.json'
        if unlabelled and is_own(path):
            file = ''
        elif unlabelled:
            file = 'unlabeled.txt' if parse_name(path).images == 'welds' else f'{folder}unlabeled.txt'
        assert (data.data_root, data.ann_file) == (root, file)
        assert data.type != 'XrayBackgrounds' or 'DrawFlaws' in [step.type for step in data.pipeline]
        assert bool(data.get('test_mode')) == (key != 'train_dataloader')
    if path in detectors:
        assert config.val_evaluator.ann_file == f'{root}/{folder}val.json'
        assert config.test_evaluator.ann_file == f'{root}/{folder}test.json'
        assert config.val_evaluator.severity == dataset(config.val_dataloader).severity
        assert config.test_evaluator.severity == dataset(config.test_dataloader).severity


# Rule 9: Swin has window 12 everywhere.


@select([p for p in ALL if 'swin' in p.stem])
def test_swin_is_mmpretrains_with_window_12(path):
    from mmpretrain.models import SwinTransformer
    from mmpretrain.models.utils import ShiftWindowMSA

    backbone = model_of(resolved(path)).backbone
    assert isinstance(backbone, SwinTransformer)
    assert {m.window_size for m in backbone.modules() if isinstance(m, ShiftWindowMSA)} == {12}


# Rule 10: the same input everywhere, and figures that agree with each other.


@each
def test_every_chain_loads_and_normalises_alike(path):
    config = resolved(path)
    assert config.xray_load == load_config(CONFIGS / '_base_/xray_runtime.py').xray_load
    load = config.xray_own.load if is_own(path) else config.xray_load
    for loader in loaders(config).values():
        pipeline = dataset(loader).pipeline
        assert pipeline[0] == load
        assert [step.type for step in pipeline].count('LoadXray') == 1
    preprocessor = config.get('data_preprocessor') or config.model.data_preprocessor
    kind = 'Det' if path in detectors else 'Cls' if path in probes else 'SelfSup'
    assert preprocessor.type == f'Xray{kind}DataPreprocessor'
    assert (preprocessor.mean, preprocessor.std) == ([114.5], [57.6])
    assert not {'to_rgb', 'bgr_to_rgb', 'rgb_to_bgr'} & set(preprocessor)


KINDS = {(path.parent.name, parse_name(path).method): path for path in ALL}


@select(KINDS.values())
def test_the_window_of_the_command_line_reaches_every_chain(path):
    window = ['xray_load.window.type=absolute', 'xray_load.window.low=0', 'xray_load.window.high=4095']
    config = read_config(str(path), [*window, 'xray_load.dtype=float32'])
    wanted = dict(type='absolute', low=0, high=4095)
    assert loaders(config)
    for loader in loaders(config).values():
        loads = [step for step in steps(dataset(loader).pipeline) if step.type == 'LoadXray']
        assert [dict(load, window=dict(load.window)) for load in loads] == [
            dict(type='LoadXray', window=wanted, dtype='float32')
        ]
    # What else names one, such as a dumped config's own variables.
    texts = [key for key, value in flatten(config).items() if value == 'full' and 'window' in key]
    assert texts == []


def test_variables_that_the_command_line_cannot_reach_are_refused(tmp_path):
    path = CONFIGS / 'small' / min(p.name for p in probes if p.parent.name == 'small')
    for option, case in {
        'xray_norm.mean=[0.5]': 'would change nothing',
        'xray_workers.num_workers=1': 'would change nothing',
        'xray_load.windw.type=full': 'is no argument of LoadXray',
        'xray_load=full': 'is no argument of LoadXray',
        'xray_load.dtype.deep=full': 'does not fit',
    }.items():
        with pytest.raises(UsageError, match=case) as caught:
            read_config(str(path), [option])
        assert '\n' not in str(caught.value) and option.partition('=')[0] in str(caught.value)
    empty = tmp_path / 'empty.py'
    empty.write_text('hook = dict(steps=[dict(type="Other")])\n')
    with pytest.raises(UsageError, match='has no LoadXray to go to in .*empty.py'):
        read_config(str(empty), ['xray_load.size=9'])
    # A hook's pipeline counts, and an argument that was not stated.
    empty.write_text('hook = dict(steps=[[dict(type="LoadXray")]])\n')
    assert read_config(str(empty), ['xray_load.window.type=voi']).hook.steps[0][0].window.type == 'voi'


@select(probes + detectors)
def test_classes_agree(path):
    config, name = resolved(path), parse_name(path)
    gdxray = name.images.startswith(('gdxray', 'castings', 'welds'))
    expected = classes.GDXRAY_CLASSES if gdxray else classes.CLASSES
    for loader in loaders(config).values():
        data = dataset(loader)
        assert tuple(data.metainfo.classes) == expected
        severity = config.xray_own.severity if is_own(path) else 'castings'
        assert data.severity == (None if gdxray else severity)
        if path in detectors:
            assert data.metainfo.palette == (classes.GDXRAY_PALETTE if gdxray else classes.PALETTE)
            unlabelled = data.type == 'XrayBackgrounds'
            assert unlabelled or data.filter_cfg == dict(filter_empty_gt=False)
    heads = as_list(config.model.roi_head.bbox_head if path in detectors else config.model.head)
    assert {head.num_classes for head in heads} == {len(expected)}
    if name.method == 'mask-rcnn':
        assert config.model.roi_head.mask_head.num_classes == len(expected)


def as_list(node):
    """The stages of a cascade, or the only one."""
    return node if isinstance(node, list) else [node]


@each
def test_the_schedule_ends_with_the_training(path):
    config = resolved(path)
    *warmup, last = config.param_scheduler
    assert last.by_epoch
    assert last.end == config.train_cfg.max_epochs
    assert last.get('T_max', last.end - last.begin) == last.end - last.begin
    assert all(milestone < last.end for milestone in last.get('milestones', []))
    if warmup and warmup[-1].get('by_epoch', True):
        assert warmup[-1].end == last.begin


@select([p for p in pretrainings if p.stem.startswith('simsiam')])
def test_the_predictor_keeps_the_optimizers_rate(path):
    config = resolved(path)
    hook = next(hook for hook in config.custom_hooks if hook.type == 'SimSiamHook')
    assert hook.lr == config.lr == config.optim_wrapper.optimizer.lr
    settings = config.optim_wrapper.to_dict() | {'type': 'OptimWrapper'}  # AMP asks for CUDA
    settings.pop('loss_scale', None)
    wrapper = build_optim_wrapper(model_of(config), settings)
    assert [g['lr'] for g in wrapper.param_groups if g.get('fix_lr')]


@select([p for p in pretrainings if p.stem.startswith('simmim')])
def test_simmim_is_the_originals(path):
    """No drop path; no decay on one-dimensional parameters, position tables and the mask token."""
    config = resolved(path)
    assert config.model.backbone.drop_path_rate == 0
    model = model_of(config)
    settings = config.optim_wrapper.to_dict() | {'type': 'OptimWrapper'}  # AMP asks for CUDA
    groups = build_optim_wrapper(model, settings).param_groups
    decayed = {id(p) for group in groups if group['weight_decay'] for p in group['params']}
    exempt = {n for n, p in model.named_parameters() if p.requires_grad and id(p) not in decayed}
    expected = {
        n
        for n, p in model.named_parameters()
        if p.ndim == 1 or 'position_bias_table' in n or 'mask_token' in n
    }
    assert exempt == expected
    # Antialiased, as the original's crop; mmpretrain's is not.
    assert 'XrayRandomResizedCrop' in {s.type for s in steps(dataset(config.train_dataloader).pipeline)}


@select(probes)
def test_a_probe_trains_its_head_only(path):
    config = resolved(path)
    model = model_of(config)
    model.train()
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {'head.fc.weight', 'head.fc.bias'}
    assert not [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d) and m.training]
    assert config.optim_wrapper.optimizer.type == 'SGD'
    assert config.model.neck.type == 'StandardisedPooling'
    assert config.model.neck.input_features == config.model.head.in_channels
    cut = {'RandomResizedCrop', 'XrayRandomResizedCrop', 'CenterCrop', 'RandomCrop', 'ResizeEdge'}
    types = {s.type for loader in loaders(config).values() for s in steps(dataset(loader).pipeline)}
    assert 'XrayResize' in types
    assert not cut & types
    assert config.default_hooks.checkpoint.save_best == 'xray/mAP'


@select([p for p in probes if p.parent.name == 'small' and not baseline_of(p)])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
def test_radiographs_of_any_depth_reach_the_probe(path, dtype, tiny_coco):
    root = tiny_coco(n=4, types=('crack', 'porosity'), bits=16)
    config = read_config(str(path), [f'xray_load.dtype={dtype}'])
    for loader in loaders(config).values():
        data = copy.deepcopy(dataset(loader))
        data.update(data_root=str(root), severity=dict(crack='critical', porosity='minor'))
        inputs = DATASETS.build(data)[0]['inputs']
        assert inputs.shape == (1, parse_name(path).px, parse_name(path).px)
        assert str(inputs.dtype).removeprefix('torch.') == dtype


@select(teachable)
def test_a_detector_trains_whole_and_is_chosen_on_val(path):
    config = resolved(path)
    model = model_of(config)
    model.train()
    frozen = {n.split('.')[0] for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == ({'backbone'} if parse_name(path).axis == 'frozen' else set())
    if frozen:
        assert not [n for n, p in model.backbone.named_parameters() if p.requires_grad]
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert all(m.training for m in norms)
    assert not norms or config.sync_bn == 'torch'
    assert config.default_hooks.checkpoint.save_best == 'xray/AP50'
    assert config.default_hooks.visualization.type == 'XrayVisualizationHook'
    if parse_name(path).images.startswith(('gdxray', 'castings', 'welds')):
        assert config.train_cfg.max_epochs >= 72 or path.parent.name in ('small', 'cpu')
        dropped = [] if root_of(path) == 'data/welds' else ['C0055']
        assert list(config.test_evaluator.drop_series) == dropped


@select(detectors)
def test_masks_are_loaded_and_measured_where_the_recipe_learns_them(path):
    config, learnt = resolved(path), parse_name(path).method == 'mask-rcnn'
    for key, loader in loaders(config).items():
        masks = [s.get('with_mask', False) for s in dataset(loader).pipeline if s.type == 'LoadAnnotations']
        assert any(masks) == (learnt and key == 'train_dataloader')
    assert ('mask_head' in config.model.get('roi_head', {})) == learnt
    assert config.val_evaluator.get('masks', False) == config.test_evaluator.get('masks', False) == learnt


@select(detectors)
def test_crowd_is_no_background_for_a_detector(path):
    training = resolved(path).model.train_cfg
    for stage in (training.rpn, *as_list(training.rcnn)):
        assert stage.assigner.type == 'XrayMaxIoUAssigner'


def full_recipe_of(path):
    """The recipe that a shrunk baseline inherits, or that is made of the same kinds of fragments."""
    base = (path.parent / bases(path)[0]).resolve()
    if base.parent.parent.name == 'configs':
        return base
    name = parse_name(path)
    if name.kind == 'probe':
        backbone = 'swin-base' if name.backbone.startswith('swin') else 'resnet50'
        (full,) = (CONFIGS / 'linear_probe').glob(f'{backbone}-in1k-pre_*.py')
        return full
    images = 'industrial' if name.images.startswith('synthetic') else name.images
    backbone = 'swin-base' if name.backbone.startswith('swin') else 'r50'
    folder = CONFIGS / name.method.replace('-', '_')
    (full,) = folder.glob(f'{name.method}_{backbone}-in1k-pre_fpn_*_{images}.py')
    return full


@select(SHRUNK)
def test_a_shrunk_baseline_only_shrinks_the_full_recipe(path):
    full = full_recipe_of(path)
    assert full.parent != path.parent
    assert not baseline_of(full)
    allowed = (
        *(f'{key}.{k}' for key in LOADERS for k in ('batch_size', 'num_workers', 'pin_memory')),
        *(f'{key}.dataset.data_root' for key in LOADERS),
        'val_evaluator.ann_file',
        'test_evaluator.ann_file',
        'train_cfg.max_epochs',
        'train_cfg.val_interval',
        'param_scheduler',
        'xray_dataset',
        'lr',
        'optim_wrapper',  # a few hundred updates want another optimizer than thousands
        'auto_scale_lr.base_batch_size',
        'custom_hooks.0.lr',
        'default_hooks.logger.interval',
        'model',
    )
    if path.parent.name == 'one_gpu':  # one more hook, for the memory layout that GPUs want
        allowed += (f'custom_hooks.{len(resolved(full).custom_hooks)}.type',)
    found = [key for key in differences(resolved(full), resolved(path)) if not under(key, allowed)]
    # Of the pipelines, sizes only: the same steps with the same probabilities.
    sizes = r'(scale|input_size|mask_patch_size|sigma)(\.\d)?$'
    assert not [key for key in found if not re.search(r'\.pipeline\..*' + sizes, key)]
    other = parse_name(path).backbone == 'lite0'  # of which there is no full size
    assert types(resolved(path).model, not other) == types(resolved(full).model, not other)


def types(node, backbone=True):
    """The classes of a model's parts, its backbone's among them or not; how that starts is not one."""
    found = {k: v for k, v in flatten(node).items() if k.endswith('type') and '_scope_' not in k}
    left_out = 'backbone.init_cfg' if backbone else 'backbone'
    return {k: v for k, v in found.items() if not k.startswith(left_out)}


# It all builds.


@each
def test_the_model_builds_on_cpu(path):
    assert sum(p.numel() for p in model_of(resolved(path)).parameters()) > 1e5


@each
def test_data_hooks_metrics_and_loggers_build(path, tmp_path):
    config = resolved(path)
    # First: the stock picture hook asks for a visualizer.
    visualizer = dict(copy.deepcopy(config.visualizer), name=path.stem, save_dir=str(tmp_path))
    assert len(VISUALIZERS.build(visualizer)._vis_backends) == 2
    for loader in loaders(config).values():
        data = dataset(loader)
        for step in data.pipeline:
            TRANSFORMS.build(copy.deepcopy(step))
        built = DATASETS.build(copy.deepcopy(data), default_args={'lazy_init': True})
        assert type(built).__name__ == data.type
    for hook in (*config.default_hooks.values(), *config.custom_hooks):
        assert HOOKS.build({k: v for k, v in hook.items() if k != 'priority'})  # that is the Runner's
    for key in ('val_evaluator', 'test_evaluator'):
        if config.get(key):
            assert METRICS.build(copy.deepcopy(config[key]))


REPEATED = [p for p in pretrainings if resolved(p).train_dataloader.dataset.type == 'RepeatDataset']


@select(REPEATED)
def test_a_repeated_list_gives_each_radiograph_so_often(path, tiny_coco):
    loader = copy.deepcopy(resolved(path).train_dataloader)
    root = tiny_coco(n=1, unlabeled=3)
    (root / 'list.txt').write_text(
        '\n'.join(str(p.relative_to(root / 'unlabeled')) for p in root.glob('unlabeled/**/*.png'))
    )
    loader.dataset.dataset.update(
        data_root=str(root), data_prefix=dict(img_path='unlabeled'), ann_file='list.txt'
    )
    data = DATASETS.build(loader.dataset)
    assert len(data) == 3 * loader.dataset.times
    assert data[0]['inputs'] is not None


@each
def test_a_dumped_config_reloads_equal(path, tmp_path):
    config = resolved(path)
    dumped = tmp_path / path.name
    # As a run writes it, without the time that formatting takes.
    Config(config.to_dict(), format_python_code=False).dump(dumped)
    assert not differences(config, load_config(dumped))


def test_the_readme_lists_every_config():
    listed = re.findall(r'^\| `([\w-]+)` \|', (CONFIGS / 'README.md').read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in ALL if not is_own(path))


def test_stems_are_unique():
    assert len({path.stem for path in ALL}) == len(ALL)


def test_generated_radiographs_keep_their_severity_whatever_map_the_plant_has(repo, tmp_path):
    """docs/data.md has the plant's own map written into the fragments."""
    shutil.copytree(repo / 'configs', tmp_path / 'configs')
    for name in ('datasets/industrial_detection.py', 'datasets/industrial_probe.py'):
        file = tmp_path / 'configs/_base_' / name
        text, lines = re.subn("(severity ?= ?)'castings'", r"\1'own.yaml'", file.read_text())
        assert lines == 1
        file.write_text(text)
    paths = [*(tmp_path / 'configs').glob('small/*_synthetic*.py')]
    for folder in ('one_gpu', 'distill'):
        paths += (tmp_path / 'configs' / folder).glob('*_synthetic*.py')
    labelled = 0
    for path in paths:
        config = Config.fromfile(path)
        for key, value in config.items():
            if key.endswith(('_dataloader', '_evaluator')) and not key.startswith('xray_'):
                labelled += 'castings' in str(value)
                assert 'own.yaml' not in str(value), (path.name, key)
    assert labelled >= 20
