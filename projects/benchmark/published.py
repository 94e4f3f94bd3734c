"""The published recipe that a config inherits, adapted to the config's radiographs and image size."""

import ast
import copy
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict

from projects.config.configs import ConfigError, load_config

# The published recipe built from each published fragment.
RECIPES = {
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
}


def published_name(path: str | Path) -> str:
    """Return the published recipe at the root of a config's chain, e.g. `mmpretrain::simsiam/….py`.

    Raises:
        ConfigError: The file does not exist, or its chain has no published recipe.
    """
    bases = [base for base in _bases(Path(path)) if '::' in base]
    recipes = [RECIPES.get(base, base) for base in bases if base in RECIPES or '::_base_/' not in base]
    if not recipes:
        raise ConfigError(f'{path}: inherits no published recipe, expected a pkg:: base; name another config')
    return recipes[0]


def _bases(path: Path) -> Iterator[str]:
    """Yield all bases of a config's chain as written, each followed by its own bases."""
    if not path.is_file():
        raise ConfigError(f'{path}: no such file, expected a config; check the path')
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '_base_':
            bases = ast.literal_eval(node.value)
            for base in [bases] if isinstance(bases, str) else bases:
                yield base
                if '::' not in base:
                    yield from _bases((path.parent / base).resolve())


def steps(pipeline: list) -> Iterator[dict]:
    """Yield all transforms of a pipeline, including nested ones."""
    for step in pipeline:
        if isinstance(step, list):
            yield from steps(step)
        else:
            yield step
            yield from steps(step.get('transforms', []))


def inner_dataset(loader: dict) -> ConfigDict:
    """Return the dataset of a loader, without the repetition around it."""
    dataset = loader['dataset']
    return dataset['dataset'] if dataset['type'] == 'RepeatDataset' else dataset


def published_pipeline(name: str, config: Config) -> list:
    """Return the training pipeline of a published recipe, with the config's image size.

    Args:
        name: See `published_name`.
        config: The config that inherits the recipe.
    """
    pipeline = copy.deepcopy(load_config(name).train_dataloader.dataset.pipeline)
    ours = list(steps(inner_dataset(config.train_dataloader).pipeline))
    scale = next(step['scale'] for step in ours if 'scale' in step)
    masks = {step['type']: step for step in ours if 'mask_ratio' in step}
    for step in steps(pipeline):
        if 'scale' in step:
            step['scale'] = scale
        step.update(masks.get(step['type'], {}))
    return pipeline
