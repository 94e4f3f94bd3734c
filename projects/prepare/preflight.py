"""Checks whether an experiment can start: its config, data, classes and weights.

A broken installation gives a table, not a traceback: the top of this file imports only the standard library.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from projects import REPO

from .installation import Row, reason_of


def check_config(path: Path, options: list[str] | None = None) -> list[Row]:
    """Check that a config with its `--cfg-options` can be read, and check its data, classes and weights."""
    try:
        with _quiet():
            from projects.config import names
            from projects.runs import running

            cfg = running.read_experiment(str(path), options)
    except Exception as error:
        return [Row('config', f'{path} does not read: {reason_of(error)}', 'correct it, or make setup')]
    with _quiet():
        return [*check_data(cfg, names.gpus_of(path.stem) or 1), *check_classes(cfg), *check_weights(cfg)]


def check_data(cfg: Mapping, ranks: int = 1) -> list[Row]:
    """Build the dataset of each split, as training does, and check the file of its evaluator.

    Args:
        cfg: Config.
        ranks: Number of GPUs of the config; each needs a batch of training images.
    """
    from mmengine.registry import DATASETS, DefaultScope

    from projects.config.configs import leaves

    rows, absent, images = [], {}, 0
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        for data in leaves(loader['dataset']) if loader else ():
            root = str(data.get('data_root') or '')
            if '://' in root:
                # Building the dataset queries the server, and names missing objects.
                file = f'{root.rstrip("/")}/{data.get("ann_file") or ""}'
                fallback = 'check the URL, the credentials and the server'
            else:
                root = Path(root)
                file = root / (data.get('ann_file') or '')
                fallback = data_remedy(root, file)
                if not root.is_dir():
                    absent[root] = fallback
                    continue
                if not file.exists():
                    rows.append(Row(split, f'{file} does not exist', fallback))
                    continue
            evaluators = cfg.get(f'{split}_evaluator') or []
            for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
                if evaluator.get('ann_file') and type(file)(evaluator['ann_file']) != file:
                    found = f'the metric reads {evaluator["ann_file"]}, the dataset {file}'
                    rows.append(Row(split, found, f'give {split}_evaluator.ann_file the same file'))
            try:
                # Building switches the default scope to the library of the config.
                with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
                    dataset = DATASETS.build(data)
                    count = len(dataset)
            except Exception as error:
                found, _, remedy = reason_of(error).rpartition('; ')
                rows.append(Row(split, found or remedy, remedy if found else fallback))
                continue
            images += count * (split == 'train')
            kinds = ', '.join(dataset.metainfo.get('classes') or ())
            rows.append(Row(split, f'{count} radiographs in {file}' + (f' ({kinds})' if kinds else '')))
    rows += check_batch(cfg.train_dataloader, images, ranks)
    return [Row('data', f'{root}: no such folder', remedy) for root, remedy in absent.items()] + rows


def check_batch(loader: Mapping, images: int, ranks: int) -> list[Row]:
    """Check that each rank has a full batch, if incomplete batches are dropped."""
    from projects.runs.fit import compare_batch

    repeated = images * loader['dataset'].get('times', 1)
    batch = loader.get('batch_size') or 1
    if not images or not loader.get('drop_last') or -(-repeated // ranks) >= batch:
        return []
    return [Row('batch', *compare_batch(repeated, ranks, batch))]


def data_remedy(root: Path, file: Path) -> str:
    """Return the command that makes a data root with this annotation file."""
    if root.name == 'synthetic':
        return f'python tools/make_synthetic.py {root}'
    if root.name == 'gdxray':
        command = f'python tools/convert_dataset.py gdxray GDXRAY/Castings {root}'
        # Protocol A is Ferguson's split, which his repository lists (maxkferg/metal-defect-detection).
        lists = ' --train-list castings_train.txt --test-list castings_test.txt'
        return command + lists * (file.parent == root / 'a')
    return f'convert your data into {root} (python tools/convert_dataset.py --help), or link it there'


def check_classes(cfg: Mapping) -> list[Row]:
    """Compare the classes of the datasets with the number of outputs of every head."""
    from projects.config.configs import leaves
    from projects.runs.fit import class_heads, compare_classes

    splits = {}
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        for data in leaves(loader['dataset']) if loader else ():
            splits[split] = tuple((data.get('metainfo') or {}).get('classes') or ())
    classes = splits['train']
    rows = [
        Row(
            'classes',
            f'{split} has {list(other)}, train has {list(classes)}',
            f'give {split} the same classes',
        )
        for split, other in splits.items()
        if other != classes
    ]
    rows += [Row('classes', *problem) for problem in compare_classes(cfg.model, classes)]
    if not rows and class_heads(cfg.model) and classes:
        rows.append(Row('classes', f'{", ".join(classes)}; heads have {len(classes)} outputs'))
    return rows


def check_weights(cfg: Mapping) -> list[Row]:
    """Check every checkpoint from which the config starts."""
    from projects.runs.fit import find_key

    names = [
        str(init['checkpoint']) for _, init in find_key(cfg.model, 'model', 'init_cfg') if _pretrained(init)
    ]
    if cfg.get('load_from'):
        names.append(str(cfg.load_from))
    return [check_checkpoint(name) for name in dict.fromkeys(names)]


def check_checkpoint(name: str) -> Row:
    """Check one checkpoint: a local path, a URL, or a torchvision:// or package:// name."""
    if name.startswith('torchvision://'):
        from mmengine.runner.checkpoint import get_torchvision_models

        model = name.removeprefix('torchvision://')
        url = get_torchvision_models().get(model)
        if url is None:
            return Row('weights', f'{name}: torchvision has no such weights', 'name others in init_cfg')
        return check_checkpoint(url)
    if name.startswith('package://'):
        from projects.xray.lite0 import PACKAGES, SCHEME, CheckpointError, find_in_package

        try:
            return Row('weights', f'{name} is there ({find_in_package(name)[1]})')
        except CheckpointError as error:
            known = name.removeprefix(SCHEME) in PACKAGES
            return Row('weights', str(error), 'run `make setup`' if known else 'name them in init_cfg')
    if name.startswith(('http://', 'https://')):
        import torch

        kept = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(name).path).name)
        return Row('weights', f'{kept} is there' if kept.exists() else f'{name} will be downloaded')
    path = Path(name)
    if path.is_file():
        return Row('weights', f'{path} is there ({path.stat().st_size / 1e6:.0f} MB)')
    makers = sorted(REPO.glob(f'configs/**/{path.parent.name}.py'))
    if not makers:
        found = f'{path} does not exist, and no config is named {path.parent.name}'
        return Row('weights', found, 'correct the checkpoint in init_cfg or load_from')
    return Row('weights', f'{path} does not exist', train_command(makers[0], path.parent))


def train_command(config: Path, work_dir: Path) -> str:
    """Return the command that trains a config on its number of GPUs, and resumes an unfinished run."""
    from projects.xray import handover

    command = handover.train_command(config)
    return command + (' --resume' if (work_dir / 'last_checkpoint').exists() else '')


def _pretrained(init: Any) -> bool:
    return isinstance(init, dict) and init.get('type') == 'Pretrained'


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' own logs and warnings out of the table."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
