"""The configs, their bases and names, for the tests that go through all of them."""

import ast
import copy
import functools
import json
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.config import utils as config_utils
from mmengine.registry import MODELS, DefaultScope

from projects.config import names
from projects.config.configs import load_config
from projects.config.names import Name

# Three quarters of the time to read a config go to the hundred indices of the package it inherits.
config_utils.load = functools.cache(config_utils.load)

# Another tree: that in which a test has set up an experiment of its own.
CONFIGS = Path(os.environ.get('MMXRAY_CONFIGS') or Path(__file__).resolve().parents[2] / 'configs')


def parse_name(path: Path) -> Name:
    """Read the tokens of a config's stem; fails where the grammar does not know it."""
    return names.parse(path.stem)


def all_configs(root: Path = CONFIGS) -> list[Path]:
    """All configs that can be run, fragments not among them, nor those of `distill_configs`."""
    found = [p for p in root.glob('*/*.py') if p.parent.name not in ('_base_', 'study', 'distill', 'own')]
    return sorted(found) + sorted(root.glob('own/*/*.py'))


def is_own(path: Path) -> bool:
    """Whether a config is of a user's own experiment, in `configs/own/<name>/`."""
    return path.parent.parent.name == 'own'


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
    """The first dataset of a loader, without the wrappers around it."""
    inner = loader.dataset
    while inside := inner.get('dataset') or inner.get('datasets'):
        inner = inside if isinstance(inside, dict) else inside[0]
    return inner


@functools.cache
def build(scope, text):
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(Config(json.loads(text)).model)


def model_of(config):
    """The config's model on the CPU, built once for all configs that differ in their weights only."""
    model = copy.deepcopy(config.model.to_dict())
    if config.get('data_preprocessor'):
        model.setdefault('data_preprocessor', config.data_preprocessor.to_dict())
    model['backbone'].pop('init_cfg', None)
    return build(config.default_scope, json.dumps({'model': model}, sort_keys=True))
