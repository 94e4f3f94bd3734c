"""The grammar of config names (configs/README.md), as a parser for tools, reports and tests.

    pretrain   simsiam_resnet50-in1k-pre_4xb64-coslr-100e_industrial-224px
    probe      resnet50-simsiam-pre_4xb64-linear-coslr-90e_industrial-224px
    detector   faster-rcnn_r50-simsiam-castings-pre_fpn_4xb4-6x_gdxray-b
               mask-rcnn_r50-simsiam-pre_fpn_4xb4-2x_industrial
    student    pkd-r50_faster-rcnn_r18-scratch_fpn64_1xb8-amp-24e_synthetic-1024
    own data   faster-rcnn_lite0-in1k-pre_fpn_1xb8-15e_own-housings

`_` separates parts, `-` separates words within a part. The images of `configs/own/<name>/` are `own-<name>`.
`drawn` pretrains a whole detector on an archive with drawn flaws.
"""

import re
from dataclasses import dataclass, fields
from pathlib import Path

from projects.errors import MMXrayError

# Long and short spellings of the backbones: pretrainings and probes use the long, detectors the short.
BACKBONES = {
    'resnet50': 'resnet50',
    'resnet18-narrow': 'resnet18-narrow',
    'r50': 'resnet50',
    'r18': 'resnet18',
    'r18-narrow': 'resnet18-narrow',
    'r18-tiny': 'resnet18-tiny',
    'swin-base': 'swin-base',
    'swin-narrow': 'swin-narrow',
    'lite0': 'lite0',
    'convnext-tiny': 'convnext-tiny',
    'vit-small': 'vit-small',
}
# The inits that a plant could use without its own pretraining, the strongest first.
BASELINES = ('in1k', 'dinov3', 'dinov2', 'coco', 'scratch')
# Image sets of self-supervised and drawn pretrainings.
ARCHIVES = ('industrial', 'castings-a', 'castings-b', 'welds', 'synthetic-1024', 'synthetic')
# Data sets tested by cross-validation, with the number of folds: `welds-0` is the first fold of the welds.
FOLDS = {'welds': 3}
# Data sets on which a detector or a probe is trained and tested.
LABELLED = (
    'industrial',
    'gdxray-a',
    'gdxray-b',
    *(f'{data}-{fold}' for data, folds in FOLDS.items() for fold in range(folds)),
    'synthetic-1024',
    'synthetic',
)
# A user's own data set, in `configs/own/<name>/`; non-greedy, as an axis or a size may follow the name.
OWN = r'own-[a-z0-9]+(?:-[a-z0-9]+)*?'
METHODS = ('simsiam', 'simmim', 'densecl')
DETECTORS = ('faster-rcnn', 'mask-rcnn')
AXES = ('views', 'mixed', 'frozen', 'cascade')
"""Variants: views for radiographs; labels mixed with drawn flaws; a frozen backbone; Cascade R-CNN."""

_BACKBONE = '|'.join(BACKBONES)
_PRETRAINED = '|'.join((*METHODS, 'drawn'))
_ARCHIVE = '|'.join((*ARCHIVES, OWN))
_LABELLED = '|'.join((*LABELLED, OWN))
# A pretraining is named by its method, and by its images if they differ from the detector's.
_INIT = rf'(?:in1k-)?(?:{_PRETRAINED})(?:-castings)?|in1k|dinov[23]|coco'
# Axes that a detector's name can end in.
_AXIS = r'(?:-(?P<axis>mixed|frozen|cascade))?'
_BATCH = r'(?P<gpus>\d+)xb(?P<batch>\d+)'
GRAMMAR = {
    'pretrain': re.compile(
        rf'(?P<method>{"|".join(METHODS)})_(?P<backbone>{_BACKBONE})(?:-(?P<init>in1k)-pre)?'
        rf'_{_BATCH}(?P<amp>-amp)?-(?P<sched>coslr)-(?P<epochs>\d+)e_(?P<images>{_ARCHIVE})'
        rf'(?:-(?P<axis>views))?-(?P<px>\d+)px'
    ),
    'probe': re.compile(
        rf'(?P<backbone>{_BACKBONE})-(?:(?P<init>{_INIT})-pre|scratch)_{_BATCH}-linear'
        rf'-(?P<sched>coslr)-(?P<epochs>\d+)e_(?P<images>{_LABELLED})-(?P<px>\d+)px'
    ),
    'detector': re.compile(
        rf'(?:(?P<distiller>pkd|cwd)-(?P<teacher>(?:{_BACKBONE})(?:-(?:{_INIT}))?)_)?'
        rf'(?P<method>{"|".join(DETECTORS)})_(?P<backbone>{_BACKBONE})-(?:(?P<init>{_INIT})-pre|scratch)_fpn(?P<fpn>\d+)?'
        rf'_{_BATCH}(?P<amp>-amp)?-(?:(?P<times>\d+)x|(?P<epochs>\d+)e)_(?P<images>{_LABELLED}){_AXIS}'
    ),
    'drawn': re.compile(
        rf'(?P<method>drawn)_(?P<backbone>{_BACKBONE})(?:-(?P<init>in1k)-pre)?_fpn(?P<fpn>\d+)?'
        rf'_{_BATCH}(?P<amp>-amp)?-(?P<epochs>\d+)e_(?P<images>{_ARCHIVE})'
        rf'(?:-(?P<axis>cascade))?-(?P<px>\d+)px'
    ),
}
# An axis, a size or the end must follow the archive: `synthetic` must not match within `synthetic-1024`.
_SEEN = re.compile(rf'_({_ARCHIVE})(?=-(?:{"|".join(AXES)})|-\d+px|_|\.py$|$)')
_TAUGHT = re.compile(r'(?P<teacher>(?:pkd|cwd)-[^_]+)_(?P<student>.+)')
_RUN = re.compile(r'seed(?P<seed>\d+)-frac(?P<fraction>\d+)')
# Stems of a user's own recipes, which follow the grammar loosely.
_LOOSE = (
    re.compile(
        rf'(?P<method>{"|".join(DETECTORS)})_(?P<backbone>.+?)-(?:(?P<init>{_INIT})-pre|scratch)'
        rf'_(?P<recipe>.+)_(?P<images>.+?){_AXIS}'
    ),
    re.compile(
        rf'(?P<backbone>.+?)-(?:(?P<init>{_INIT})-pre|scratch)_(?P<recipe>.+)_(?P<images>[\w-]+)-(?P<px>\d+px)'
    ),
)
BETWEEN = ' + '
"""Separates a student's own init from its teacher, in the `init` of `summary`."""


_OWN_NAME = re.compile(r'[a-z][a-z0-9]*(?:-[a-z0-9]+)*')


class NameGrammarError(MMXrayError, ValueError):
    """A config's stem does not follow the grammar of configs/README.md."""


@dataclass(frozen=True)
class Name:
    """The tokens of a config's stem.

    Attributes:
        kind: 'pretrain', 'probe', 'detector' or 'drawn', the pretraining of a detector on drawn flaws.
        backbone: The architecture, in its long spelling.
        images: The image set on which it is pretrained or tested.
        gpus, batch, epochs: GPUs, images a GPU, and epochs (1x is 12).
        init: The weights from which the backbone starts.
    """

    kind: str
    backbone: str
    images: str
    gpus: int
    batch: int
    epochs: int
    method: str | None = None
    init: str = 'scratch'
    amp: bool = False
    sched: str | None = None
    axis: str | None = None
    px: int | None = None
    fpn: int | None = None
    distiller: str | None = None
    teacher: str | None = None

    def differs(self, other: 'Name') -> set[str]:
        """Return the names of the tokens in which two names differ."""
        return {f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)}


def parse(stem: str) -> Name:
    """Read the tokens of a config's stem.

    Raises:
        NameGrammarError: The stem does not follow the grammar.
    """
    for kind, grammar in GRAMMAR.items():
        match = grammar.fullmatch(stem)
        if match:
            tokens = match.groupdict()
            times = tokens.pop('times', None)
            tokens['epochs'] = 12 * int(times) if times else int(tokens['epochs'])  # 1x: 12 epochs
            tokens['backbone'] = BACKBONES[tokens['backbone']]
            tokens['amp'] = bool(tokens.get('amp'))
            tokens['init'] = tokens.get('init') or 'scratch'
            for key in ('gpus', 'batch', 'px', 'fpn'):
                tokens[key] = int(tokens[key]) if tokens.get(key) else None
            return Name(kind, **tokens)
    raise NameGrammarError(f'{stem}: does not follow the name grammar of configs/README.md')


def own_images(name: str) -> str:
    """Return the images token of a user's own data set.

    Raises:
        NameGrammarError: A config's stem cannot contain the name, or could not be parsed with it.
    """
    ending = re.search(rf'-(?:{"|".join(AXES)}|\d+px)$', name)
    if not _OWN_NAME.fullmatch(name) or ending:
        raise NameGrammarError(
            f'{name}: expected a name of small letters, digits and hyphens that begins with a letter and '
            'does not end like a size or an axis (-224px, -views); choose another'
        )
    return f'own-{name}'


def gpus_of(stem: str) -> int | None:
    """Return the number of GPUs in a config's stem; None if the stem does not state it."""
    match = re.search(r'_(\d+)xb\d+', stem)
    return int(match[1]) if match else None


def image_set(path: str) -> str | None:
    """Return the last archive named in a config's stem or in a path; None if no archive is named."""
    found = [match[1] for part in Path(path).parts for match in _SEEN.finditer(part)]
    return found[-1] if found else None


def without_fold(stem: str) -> tuple[str, str | None]:
    """Split a stem that ends in a fold into the common stem and its data set; else (stem, None)."""
    match = re.fullmatch(rf'(?P<whole>.+_(?P<data>{"|".join(FOLDS)}))-\d+', stem)
    return (match['whole'], match['data']) if match else (stem, None)


def is_pretraining(stem: str) -> bool:
    """Whether a stem begins like the stem of a pretraining."""
    return stem.startswith(tuple(f'{method}_' for method in (*METHODS, 'drawn')))


def is_own_pretraining(init: str) -> bool:
    """Whether an `init` names weights of the project's own pretraining, not public or random weights."""
    return re.search(rf'(?:^|-)(?:{_PRETRAINED})(?:-|$)', init) is not None


def run_of(folder: str) -> tuple[int, int] | None:
    """Return the seed and the percentage of labels of a study's run folder; None for another folder."""
    match = _RUN.match(folder)
    return (int(match['seed']), int(match['fraction'])) if match else None


def summary(stem: str) -> dict[str, str]:
    """Return a config's `dataset`, `backbone`, `recipe` and `init` for tables; '' for an unknown one.

    The stem of a user's own recipe need not follow the grammar: `init` is then the whole stem. The `init` of
    a distilled student names its own init and its teacher. A detector trained on drawn flaws alone is listed
    under the data set on which it is tested; it used none of its labels.
    """
    drawn = GRAMMAR['drawn'].fullmatch(stem)
    if drawn:
        archive = drawn['images']
        where = 'castings' if archive.startswith('castings') else ''
        init = '-'.join(part for part in (drawn['init'], 'drawn', where) if part)
        axis = drawn['axis']
        ending = '-'.join(part for part in (archive, axis, f'{drawn["px"]}px') if part)
        recipe = [stem.split('_', 2)[2].removesuffix(f'_{ending}'), axis, f'{drawn["px"]}px']
        return dict(
            dataset=archive.replace('castings-', 'gdxray-'),
            backbone=drawn['backbone'],
            recipe=', '.join(part for part in recipe if part),
            init=f'{init} alone',
        )
    taught = _TAUGHT.fullmatch(stem)
    student = taught['student'] if taught else stem
    for pattern in _LOOSE:
        match = pattern.fullmatch(student)
        if match:
            init = (match['init'] or 'scratch') + (f'{BETWEEN}{taught["teacher"]}' if taught else '')
            tokens = match.groupdict()
            method = tokens.get('method')
            other = method if method != DETECTORS[0] else None  # the usual one goes without saying
            parts = (other, tokens['recipe'], tokens.get('axis'), tokens.get('px'))
            recipe = ', '.join(part for part in parts if part)
            return dict(dataset=tokens['images'], backbone=tokens['backbone'], recipe=recipe, init=init)
    return dict(dataset='', backbone='', recipe='', init=stem)
