"""The configs of an experiment as text: one fragment for the user to edit, and configs that inherit it."""

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path

from projects.config.names import own_images
from projects.xray.classes import PALETTE

from .choice import CROP, Choice, Pretraining
from .facts import Facts

WIDTH = 110  # line length, as in the repository


@dataclass
class Experiment:
    """The files of an experiment, and the detectors that are run.

    Attributes:
        folder: `configs/own/<name>`.
        files: Text by path below `folder`.
        pretrainings: Stems, the baseline first.
        detectors: Stems, the baseline (ImageNet weights) first.
        arms: The two detectors that `make own` compares.
    """

    folder: Path
    files: dict[str, str]
    pretrainings: list[str]
    detectors: list[str]
    arms: list[str]

    def path(self, stem: str) -> Path:
        """Path of a config."""
        return self.folder / f'{stem}.py'

    @property
    def study(self) -> Path:
        """Path of the study file."""
        return self.folder / f'{self.folder.name}.yaml'


def compose(name: str, folder: Path, facts: Facts, severity: str, choice: Choice) -> Experiment:
    """Return an experiment's files as text.

    Args:
        name: Name of the data set; see `names.own_images`.
        folder: `configs/own/<name>`.
        facts: Facts about the data set.
        severity: The severity map's name in the configs.
        choice: The chosen recipe.
    """
    images = own_images(name)
    lite0 = choice.scale == 'cpu'
    batch = f'{choice.gpus}xb{choice.batch}' + ('-amp' if choice.amp else '')
    sched = f'{choice.epochs // 12}x' if choice.scale == 'four-gpu' else f'{choice.epochs}e'
    short, long = ('lite0', 'lite0') if lite0 else ('r50', 'resnet50')

    def detector(init: str) -> str:
        return f'faster-rcnn_{short}-{init}_fpn_{batch}-{sched}_{images}'

    files = {f'_base_/xray_{name}.py': _facts_fragment(name, facts, severity, choice)}
    files[f'_base_/{name}_detection.py'] = _detection_fragment(name, choice)
    if choice.scale != 'four-gpu':
        files[f'_base_/{name}_schedule.py'] = _schedule(name, choice, choice.epochs)
    baseline = detector('in1k-pre')
    files[f'{baseline}.py'] = _detector(name, facts, choice)
    arms = {detector('scratch'): _scratch()}
    pretrainings = []
    plan = choice.pretraining
    if plan:
        amp = '-amp' if choice.amp else ''
        tail = f'{choice.gpus}xb{plan.batch}{amp}-coslr-{plan.epochs}e_{images}-{plan.px}px'
        pretrainings = [f'simsiam_{long}_{tail}', f'simsiam_{long}-in1k-pre_{tail}']
        files[f'{pretrainings[0]}.py'] = _pretraining(name, choice, plan)
        files[f'{pretrainings[1]}.py'] = _continued(pretrainings[0], lite0)
        for init, source in zip(('simsiam-pre', 'in1k-simsiam-pre'), pretrainings, strict=True):
            arms[detector(init)] = _from_backbone(f'work_dirs/{source}/epoch_{plan.epochs}.pth', init)
    if choice.drawn_epochs and choice.crops:
        drawn = f'drawn_{short}-in1k-pre_fpn_{batch}-{choice.drawn_epochs}e_{images}-{CROP}px'
        files[f'_base_/{name}_drawn_schedule.py'] = _schedule(name, choice, choice.drawn_epochs)
        files[f'{drawn}.py'] = _drawn(name, facts, choice)
        pretrainings.append(drawn)
        arms[detector('in1k-drawn-pre')] = _from_detector(
            f'work_dirs/{drawn}/epoch_{choice.drawn_epochs}.pth'
        )
    for stem, body in arms.items():
        first, rest = body.split('\n', 1)
        files[f'{stem}.py'] = f"{first}\n{_HEAD}_base_ = './{baseline}.py'\n{rest}"
    compared = [baseline, detector('in1k-simsiam-pre') if plan else detector('scratch')]
    files[f'{name}.yaml'] = _study(name, folder, facts, choice, compared)
    return Experiment(folder, files, pretrainings, [baseline, *arms], compared)


_HEAD = '# Command: python tools/train.py <this file>\n# Cost: as its baseline.\n'


def _comment(text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent='# ',
        subsequent_indent='#   ',
        break_long_words=False,
        break_on_hyphens=False,
    )


def _facts_fragment(name: str, facts: Facts, severity: str, choice: Choice) -> str:
    """The fragment that a user edits."""
    images = ', '.join(f'{split} {count}' for split, count in facts.images.items())
    boxes = ', '.join(f'{count} {label}' for label, count in facts.counts.items())
    lines = [
        f'# {name}: settings to edit, shared by all experiments of this data set.',
        '# For one run: --cfg-options xray_own.root=/other/disk xray_load.window.type=percentile',
        _comment(f'data: {images} radiographs; in train {boxes}; {facts.unlabeled} unlabelled'),
        *(_comment(f'{subject}: {reason}') for subject, reason in choice.reasons.items()),
        *(_comment(f'warning: {warning}') for warning in choice.warnings),
        'xray_own = dict(',
        f'    root={str(facts.root)!r},  # train.json, val.json, test.json, images/, unlabeled/',
        f'    severity={severity!r},  # which defect types are critical',
        f'    classes={facts.classes!r},  # from the most severe to the least',
        f'    palette={PALETTE!r},',
        '    # From gray levels to 0..255. A run stops if its initial weights saw another window.',
        f"    load=dict(type='LoadXray', window={_call(facts.window)}, dtype='uint8'),",
        '    # The input size in tests' + ('.' if choice.crops else ' and in training.'),
        f'    resize={_resize(choice)},',
    ]
    if choice.crops:
        low, high = round(0.5 * choice.factor, 3), round(2.5 * choice.factor, 3)
        lines += [
            '    # Crops for training, with content scaled at random.',
            f"    crop=dict(type='XrayFlawCrop', size={CROP}, flaw=0.75, scale=({low}, {high})),",
        ]
    lines += [f'    anchors={choice.anchors},', f'    batch={choice.batch},  # also in the config names', ')']
    return '\n'.join(lines) + '\n'


def _call(values: dict) -> str:
    return f'dict({", ".join(f"{key}={value!r}" for key, value in values.items())})'


def _resize(choice: Choice) -> str:
    if choice.crops:
        return f"dict(type='Resize', scale_factor={choice.factor:g})".replace('=1)', '=1.0)')
    return f"dict(type='Resize', scale={choice.size}, keep_ratio=True)"


def _detection_fragment(name: str, choice: Choice) -> str:
    """The fragment that joins the data set with the base configs of detectors."""
    learnt = "_base_.xray_own.resize,\n            dict(type='XrayRandomFlip', prob=0.5),"
    learnt += "\n            dict(type='PackDetInputs'),"
    if choice.crops:
        learnt = '_base_.xray_own.crop,\n            *_base_.xray_crops[1:],'
    workers = '    num_workers=1,\n    pin_memory=False,\n' if choice.scale == 'cpu' else ''
    return f"""# {name} as a detection data set.
_base_ = ['../../../_base_/datasets/industrial_detection.py', './xray_{name}.py']
xray_heads = dict(
    rpn_head=dict(anchor_generator=dict(scales=_base_.xray_own.anchors)),
    roi_head=dict(bbox_head=dict(num_classes=len(_base_.xray_own.classes))),
)
xray_set = dict(
    data_root=_base_.xray_own.root,
    severity=_base_.xray_own.severity,
    metainfo=dict(classes=_base_.xray_own.classes, palette=_base_.xray_own.palette),
)
xray_test_pipeline = [
    _base_.xray_own.load,
    _base_.xray_own.resize,
    dict(type='LoadAnnotations', with_bbox=True),
    _base_.xray_pack,
]
train_dataloader = dict(
    batch_size=_base_.xray_own.batch,
{workers}    dataset=dict(
        pipeline=[
            _base_.xray_own.load,
            dict(type='LoadAnnotations', with_bbox=True),
            {learnt}
        ],
        **xray_set,
    ),
)
val_dataloader = dict(
{workers}    dataset=dict(pipeline=xray_test_pipeline, **xray_set),
)
test_dataloader = dict(
{workers}    dataset=dict(pipeline=xray_test_pipeline, **xray_set),
)
val_evaluator = dict(ann_file=f'{{_base_.xray_own.root}}/val.json', severity=_base_.xray_own.severity)
test_evaluator = dict(ann_file=f'{{_base_.xray_own.root}}/test.json', severity=_base_.xray_own.severity)
default_hooks = dict(logger=dict(interval=5))
"""


def _schedule(name: str, choice: Choice, epochs: int) -> str:
    """AdamW with a cosine schedule, as in the small recipes: a few hundred or thousand updates."""
    warmup = 50 if choice.scale == 'cpu' else 100
    amp = ''
    if choice.amp:
        amp = "optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(lr=4e-4))\n"
    return f"""# {epochs} epochs; the number is also in the config names.
_base_ = '../../../_base_/schedules/small-8e.py'
train_cfg = dict(max_epochs={epochs}, val_interval={max(1, math.ceil(epochs / 3))})
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end={warmup}),
    dict(
        type='CosineAnnealingLR',
        T_max={epochs},
        eta_min_ratio=0.02,
        by_epoch=True,
        begin=0,
        end={epochs},
        convert_to_iter_based=True,
    ),
]
{amp}auto_scale_lr = dict(base_batch_size={choice.batch})
"""


def _model(choice: Choice) -> str:
    if choice.scale != 'cpu':
        return 'faster-rcnn_r50_fpn'
    return 'faster-rcnn_lite0-native_fpn' if choice.crops else 'faster-rcnn_lite0_fpn'


def _detector(name: str, facts: Facts, choice: Choice) -> str:
    images, steps = facts.images['train'], choice.iterations(facts.images['train'])
    schedule = f'./_base_/{name}_schedule.py'
    if choice.scale == 'four-gpu':
        schedule = (
            'mmdet::_base_/schedules/schedule_2x.py'
            if choice.epochs == 24
            else '../../_base_/schedules/sgd-6x.py'
        )
    command = 'tools/dist_train.sh <this file> 4' if choice.gpus > 1 else 'python tools/train.py <this file>'
    whole = choice.gpus * choice.batch
    return f"""# Faster R-CNN on {name}, from ImageNet weights: the baseline of pretraining on its images.
# Command: {command}
# Cost: {images} images / {whole} = {steps} iterations an epoch, {steps * choice.epochs} in all.
_base_ = [
    '../../_base_/models/{_model(choice)}.py',
    './_base_/{name}_detection.py',
    '{schedule}',
]
model = _base_.xray_heads
"""


def _pretraining(name: str, choice: Choice, plan: Pretraining) -> str:
    base = {
        'cpu': 'small/simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px',
        'one-gpu': 'one_gpu/simsiam_resnet50_1xb256-amp-coslr-100e_synthetic-1024-224px',
        'four-gpu': 'simsiam/simsiam_resnet50_4xb64-coslr-100e_industrial-224px',
    }[choice.scale]
    whole = choice.gpus * plan.batch
    steps = plan.images // whole
    command = 'tools/dist_train.sh <this file> 4' if choice.gpus > 1 else 'python tools/train.py <this file>'
    model, views = '', '*_base_.xray_simsiam_pipeline[1:],'
    if choice.scale == 'cpu':
        model = """model = dict(
    backbone=dict(_delete_=True, type='EfficientNetLite0', out_indices=(5,), init_cfg=None),
    neck=dict(in_channels=320),
)
"""
        # In a whole radiograph at 128 px flaws would vanish, so views are cut from a crop at native size.
        views = f"""dict(type='XrayFlawCrop', size={CROP}, flaw=0.0, scale=(0.5, 1.5)),
            *_base_.xray_simsiam_128_pipeline[1:],"""
    return f"""# SimSiam on the radiographs of {name}, without labels.
# Command: {command}
# Cost: {plan.images} radiographs / {whole} = {steps} iterations an epoch, {steps * plan.epochs} in all.
_base_ = ['../../{base}.py', './_base_/xray_{name}.py']
train_cfg = dict(max_epochs={plan.epochs})
param_scheduler = [dict(_base_.param_scheduler[0], T_max={plan.epochs}, end={plan.epochs})]
lr = 0.05 * {whole} / 256  # 0.05 per 256 images; the predictor keeps it
optim_wrapper = dict(optimizer=dict(lr=lr))
auto_scale_lr = dict(base_batch_size={whole})
custom_hooks = [dict(_base_.custom_hooks[0], lr=lr), *_base_.custom_hooks[1:]]
{model}train_dataloader = dict(
    batch_size={plan.batch},
    dataset=dict(
        data_root=_base_.xray_own.root,
        data_prefix=dict(img_path='{plan.folder}'),
        ann_file='{plan.listed}',
        pipeline=[
            _base_.xray_own.load,
            {views}
        ],
    ),
)
default_hooks = dict(logger=dict(interval={max(1, min(5, steps))}))
"""


def _continued(baseline: str, lite0: bool) -> str:
    init = "dict(type='Pretrained', checkpoint='torchvision://resnet50')"
    if lite0:
        init = (
            "dict(\n            _delete_=True, type='Pretrained', checkpoint='package://efficientnet-lite0', "
            "prefix='backbone.'\n        )"
        )
    return f"""# The same continued from ImageNet weights.
{_HEAD}_base_ = './{baseline}.py'
model = dict(
    backbone=dict(
        init_cfg={init}
    )
)
"""


def _scratch() -> str:
    return (
        '# No pretraining at all.\n'
        'model = dict(backbone=dict(init_cfg=None))  # the class initialises itself (Kaiming)\n'
    )


def _from_backbone(checkpoint: str, init: str) -> str:
    origin = 'continued from ImageNet weights' if init.startswith('in1k') else "instead of ImageNet's"
    return f"""# SimSiam weights of its own radiographs, {origin}.
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='{checkpoint}',
            prefix='backbone.',
        )
    )
)
"""


def _from_detector(checkpoint: str) -> str:
    return (
        '# The whole detector, pretrained on flaws drawn into its unlabelled radiographs.\n'
        f"load_from = '{checkpoint}'\n"
    )


def _drawn(name: str, facts: Facts, choice: Choice) -> str:
    images, steps = facts.unlabeled, choice.iterations(facts.unlabeled)
    return f"""# The whole detector, from ImageNet weights, on flaws drawn into images of {name}.
# Command: python tools/train.py <this file>
# Cost: {images} images / {choice.batch} = {steps} iterations an epoch, {steps * choice.drawn_epochs} in all.
_base_ = [
    '../../_base_/models/{_model(choice)}.py',
    './_base_/{name}_detection.py',
    './_base_/{name}_drawn_schedule.py',
]
model = _base_.xray_heads
train_dataloader = dict(
    batch_sampler=None,  # crops are square; an archive does not say how wide its images are
    dataset=dict(
        _delete_=True,
        type='XrayBackgrounds',
        data_root=_base_.xray_own.root,
        data_prefix=dict(img_path='unlabeled'),
        ann_file='',
        severity=_base_.xray_own.severity,
        metainfo=dict(classes=_base_.xray_own.classes, palette=_base_.xray_own.palette),
        pipeline=[
            _base_.xray_own.load,
            dict(type='DrawFlaws', number=(1, 6)),  # film=True where less metal is darker
            _base_.xray_own.crop,
            *_base_.xray_crops[1:],
        ],
    ),
)
"""


def _study(name: str, folder: Path, facts: Facts, choice: Choice, arms: list[str]) -> str:
    gpus = {'cpu': 0, 'one-gpu': 1, 'four-gpu': 4}[choice.scale]
    rows = '\n'.join(f'  - config: {(folder / f"{stem}.py").as_posix()}' for stem in arms)
    return f"""# {name}: does pretraining on its own radiographs beat ImageNet weights? More arms: beside this
# file. More seeds say more than a longer schedule: seeds: [0, 1, 2].
about: {name}, {facts.images['train']} labelled radiographs, scale {choice.scale}
seeds: [0]
fractions: [100]
pretrain_seeds: [0]
gpus: {gpus}
arms:
{rows}
"""
