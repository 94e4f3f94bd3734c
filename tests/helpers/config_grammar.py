"""What a config's name says: the grammar of configs/README.md, for test_arms, _configs and _distill."""

import ast
import functools
import re
from dataclasses import dataclass, fields
from pathlib import Path

from mmengine.config import utils as config_utils

from projects.xray.configs import load_config

# Three quarters of the time to read a config go to the hundred indices of the package it inherits.
config_utils.load = functools.cache(config_utils.load)

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'

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
}
_BACKBONE = '|'.join(BACKBONES)
_INIT = '(?:in1k-)?(?:simsiam|simmim)|(?:simsiam|simmim)-castings|in1k|coco'
_BATCH = r'(?P<gpus>\d+)xb(?P<batch>\d+)'
GRAMMAR = {
    'pretrain': re.compile(
        rf'(?P<method>simsiam|simmim)_(?P<backbone>{_BACKBONE})(?:-(?P<init>in1k)-pre)?_{_BATCH}(?P<amp>-amp)?'
        r'-(?P<sched>coslr)-(?P<epochs>\d+)e_(?P<images>industrial|castings-a|castings-b|synthetic-1024|synthetic)'
        r'(?:-(?P<axis>views))?-(?P<px>\d+)px'
    ),
    'probe': re.compile(
        rf'(?P<backbone>{_BACKBONE})-(?:(?P<init>{_INIT})-pre|scratch)_{_BATCH}-linear'
        r'-(?P<sched>coslr)-(?P<epochs>\d+)e_(?P<images>industrial|synthetic)-(?P<px>\d+)px'
    ),
    'detector': re.compile(
        rf'(?:(?P<distiller>pkd|cwd)-(?P<teacher>(?:{_BACKBONE})(?:-(?:{_INIT}))?)_)?'
        rf'(?P<method>faster-rcnn)_(?P<backbone>{_BACKBONE})-(?:(?P<init>{_INIT})-pre|scratch)_fpn(?P<fpn>\d+)?'
        rf'_{_BATCH}(?P<amp>-amp)?-(?:(?P<times>\d+)x|(?P<epochs>\d+)e)'
        r'_(?P<images>industrial|gdxray-a|gdxray-b|synthetic-1024|synthetic)'
    ),
}


@dataclass(frozen=True)
class Name:
    """The tokens of a config's stem; `kind` is 'pretrain', 'probe' or 'detector'."""

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
        """Names of the tokens in which two names differ."""
        return {f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)}


def parse_name(path: Path) -> Name:
    """Read the tokens of a config's stem; fails where the grammar does not know it."""
    for kind, grammar in GRAMMAR.items():
        match = grammar.fullmatch(path.stem)
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
    raise AssertionError(f'{path.stem} does not follow the name grammar of configs/README.md')


def all_configs(root: Path = CONFIGS) -> list[Path]:
    """All configs that can be run, fragments not among them, nor those of `distill_configs`."""
    return sorted(p for p in root.glob('*/*.py') if p.parent.name not in ('_base_', 'study', 'distill'))


def distill_configs(root: Path = CONFIGS) -> list[Path]:
    """Students with a teacher and alone, to which the rules for arms do not apply."""
    return sorted(root.glob('distill/*.py'))


@functools.cache
def bases(path: Path) -> tuple[str, ...]:
    """The `_base_` entries of a file, as written."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '_base_':
            value = ast.literal_eval(node.value)
            return (value,) if isinstance(value, str) else tuple(value)
    return ()


def baseline_of(path: Path) -> Path | None:
    """The sibling that an arm inherits; None for a baseline."""
    entries = bases(path)
    if len(entries) == 1 and '::' not in entries[0]:
        base = (path.parent / entries[0]).resolve()
        return base if base.parent == path.parent else None
    return None


def find(stem: str, root: Path = CONFIGS) -> Path:
    """The config of this stem."""
    found = [p for p in all_configs(root) if p.stem == stem]
    assert len(found) == 1, f'{stem}: {len(found)} configs of this name'
    return found[0]


@functools.cache
def resolved(path: Path):
    """The resolved config, read once per process."""
    return load_config(path)


def dataset(loader) -> dict:
    """The dataset of a loader, without the repetition around it."""
    inner = loader.dataset
    return inner.dataset if inner.type == 'RepeatDataset' else inner
