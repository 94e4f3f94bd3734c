"""What a config's stem says: the one grammar of configs/README.md, for tools, reports and tests.

    pretrain   simsiam_resnet50-in1k-pre_4xb64-coslr-100e_industrial-224px
    probe      resnet50-simsiam-pre_4xb64-linear-coslr-90e_industrial-224px
    detector   faster-rcnn_r50-simsiam-castings-pre_fpn_4xb4-6x_gdxray-b
               mask-rcnn_r50-simsiam-pre_fpn_4xb4-2x_industrial
    student    pkd-r50_faster-rcnn_r18-scratch_fpn64_1xb8-amp-24e_synthetic-1024
    own data   faster-rcnn_lite0-in1k-pre_fpn_1xb8-15e_own-housings

`_` stands between parts, `-` within one. The images of `configs/own/<name>/` are `own-<name>`. `drawn`
pretrains a whole detector on an archive with drawn flaws.
"""

import re
from dataclasses import dataclass, fields
from pathlib import Path

from projects.errors import MMXrayError

# Long and short spellings of the backbones: pretraining and probe use the first, detectors the second.
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
}
# What a plant would start from without pretraining of its own, the strongest first.
BASELINES = ('in1k', 'dinov3', 'coco', 'scratch')
# What a self-supervised or drawn pretraining saw.
ARCHIVES = ('industrial', 'castings-a', 'castings-b', 'welds', 'synthetic-1024', 'synthetic')
# Data sets that are tested part by part, and into how many: `welds-0` is the first fold of the welds.
FOLDS = {'welds': 3}
# What a detector or a probe is trained and tested on.
LABELLED = (
    'industrial',
    'gdxray-a',
    'gdxray-b',
    *(f'{data}-{fold}' for data, folds in FOLDS.items() for fold in range(folds)),
    'synthetic-1024',
    'synthetic',
)
# A user's own data set, in `configs/own/<name>/`; the shortest name, as an axis or a size may follow it.
OWN = r'own-[a-z0-9]+(?:-[a-z0-9]+)*?'
METHODS = ('simsiam', 'simmim', 'densecl')
DETECTORS = ('faster-rcnn', 'mask-rcnn')
AXES = ('views', 'mixed')
"""Variants of a recipe's data: views made for radiographs; labels mixed with drawn flaws."""

_BACKBONE = '|'.join(BACKBONES)
_PRETRAINED = '|'.join((*METHODS, 'drawn'))
_ARCHIVE = '|'.join((*ARCHIVES, OWN))
_LABELLED = '|'.join((*LABELLED, OWN))
# A pretraining is named by its method; by its images too where they are not those of the detector.
_INIT = rf'(?:in1k-)?(?:{_PRETRAINED})(?:-castings)?|in1k|dinov3|coco'
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
        rf'_{_BATCH}(?P<amp>-amp)?-(?:(?P<times>\d+)x|(?P<epochs>\d+)e)_(?P<images>{_LABELLED})(?:-(?P<axis>mixed))?'
    ),
    'drawn': re.compile(
        rf'(?P<method>drawn)_(?P<backbone>{_BACKBONE})(?:-(?P<init>in1k)-pre)?_fpn(?P<fpn>\d+)?'
        rf'_{_BATCH}(?P<amp>-amp)?-(?P<epochs>\d+)e_(?P<images>{_ARCHIVE})-(?P<px>\d+)px'
    ),
}
# An archive is named before an axis, a size or the stem's end, not before the rest of another archive's name.
_SEEN = re.compile(rf'_({_ARCHIVE})(?=-(?:{"|".join(AXES)})|-\d+px|_|\.py$|$)')
_TAUGHT = re.compile(r'(?P<teacher>(?:pkd|cwd)-[^_]+)_(?P<student>.+)')
_RUN = re.compile(r'seed(?P<seed>\d+)-frac(?P<fraction>\d+)')
# Stems that follow the habit but not the grammar: a user's own recipe.
_LOOSE = (
    re.compile(
        rf'(?P<method>{"|".join(DETECTORS)})_(?P<backbone>.+?)-(?:(?P<init>{_INIT})-pre|scratch)'
        r'_(?P<recipe>.+)_(?P<images>.+?)(?:-(?P<axis>mixed))?'
    ),
    re.compile(
        rf'(?P<backbone>.+?)-(?:(?P<init>{_INIT})-pre|scratch)_(?P<recipe>.+)_(?P<images>[\w-]+)-(?P<px>\d+px)'
    ),
)
BETWEEN = ' + '
"""Between what a student starts from and its teacher, in the `init` of `summary`."""


_OWN_NAME = re.compile(r'[a-z][a-z0-9]*(?:-[a-z0-9]+)*')


class NameGrammarError(MMXrayError, ValueError):
    """A config's stem does not follow the grammar of configs/README.md."""


@dataclass(frozen=True)
class Name:
    """The tokens of a config's stem.

    Attributes:
        kind: 'pretrain', 'probe', 'detector' or 'drawn', the pretraining of a detector on drawn flaws.
        backbone: The architecture, in its long spelling.
        images: What it sees or is tested on.
        gpus, batch, epochs: GPUs, images a GPU, and epochs (1x is 12).
        init: What the backbone starts from.
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
        NameGrammarError: The grammar does not know it.
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
        NameGrammarError: A config's stem could not carry the name, or not be read again.
    """
    ending = re.search(rf'-(?:{"|".join(AXES)}|\d+px)$', name)
    if not _OWN_NAME.fullmatch(name) or ending:
        raise NameGrammarError(
            f'{name}: expected a name of small letters, digits and hyphens that begins with a letter and '
            'does not end like a size or an axis (-224px, -views); choose another'
        )
    return f'own-{name}'


def gpus_of(stem: str) -> int | None:
    """Return for how many GPUs a config is written; None where its stem does not say so."""
    match = re.search(r'_(\d+)xb\d+', stem)
    return int(match[1]) if match else None


def image_set(path: str) -> str | None:
    """Return the archive that a config's stem, or a path that contains one, names last; None without one."""
    found = [match[1] for part in Path(path).parts for match in _SEEN.finditer(part)]
    return found[-1] if found else None


def without_fold(stem: str) -> tuple[str, str | None]:
    """Split a stem that ends in a fold: the stem of all folds, and their data set; None where it is none."""
    match = re.fullmatch(rf'(?P<whole>.+_(?P<data>{"|".join(FOLDS)}))-\d+', stem)
    return (match['whole'], match['data']) if match else (stem, None)


def is_pretraining(stem: str) -> bool:
    """Whether a stem begins as a pretraining's does."""
    return stem.startswith(tuple(f'{method}_' for method in (*METHODS, 'drawn')))


def is_own_pretraining(init: str) -> bool:
    """Whether an `init` names weights that were pretrained here, not public or random ones."""
    return re.search(rf'(?:^|-)(?:{_PRETRAINED})(?:-|$)', init) is not None


def run_of(folder: str) -> tuple[int, int] | None:
    """Return seed and percentage of the labels of a study's run folder, None of another folder."""
    match = _RUN.match(folder)
    return (int(match['seed']), int(match['fraction'])) if match else None


def summary(stem: str) -> dict[str, str]:
    """Return what tables say of a config: `dataset`, `backbone`, `recipe`, `init`; '' where it says none.

    The stem of a user's own recipe need not follow the grammar: `init` is then the whole stem. A distilled
    student starts from its own init and its teacher. A detector that learnt from drawn flaws alone is one of
    the data it is tested on, without labels.
    """
    drawn = GRAMMAR['drawn'].fullmatch(stem)
    if drawn:
        archive = drawn['images']
        where = 'castings' if archive.startswith('castings') else ''
        init = '-'.join(part for part in (drawn['init'], 'drawn', where) if part)
        recipe = stem.split('_', 2)[2].removesuffix(f'_{archive}-{drawn["px"]}px')
        return dict(
            dataset=archive.replace('castings-', 'gdxray-'),
            backbone=drawn['backbone'],
            recipe=f'{recipe}, {drawn["px"]}px',
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
