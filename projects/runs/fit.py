"""Checks that a training fits its data: a full batch for every rank, one head output for each class."""

from collections.abc import Iterator, Mapping, Sequence

import mmengine.dist
import torch
from mmengine.runner import Runner

from projects.errors import MMXrayError


class FitError(MMXrayError, ValueError):
    """A training would make no update, or its heads do not match the classes; one line with the remedy."""


def class_heads(model: Mapping) -> dict[str, int]:
    """Return `num_classes` of every head in a model's config, by key, except those of a teacher."""
    return {key: count for key, count in find_key(model, 'model', 'num_classes') if '.teacher.' not in key}


def compare_classes(model: Mapping, classes: Sequence[str]) -> list[tuple[str, str]]:
    """Compare every head of a model's config with the classes of the data.

    Returns:
        (problem, remedy) for each head with another number of outputs.
    """
    expected = f'metainfo.classes has {len(classes)}: {", ".join(classes)}'
    return [
        (f'{key} is {count}; {expected}', f'set {key} = {len(classes)}')
        for key, count in class_heads(model).items()
        if classes and count != len(classes)
    ]


def compare_batch(images: int, ranks: int, batch: int) -> tuple[str, str]:
    """Return (problem, remedy) for a rank whose share of the images is less than a batch."""
    each = max(1, -(-images // ranks))
    found = f'{images} training images on {ranks} rank{"s" * (ranks > 1)} are no batch of {batch} for each'
    return found, f'set train_dataloader.batch_size to {each} or less'


def check_fit(runner: Runner) -> None:
    """Stop a run that has no batch or wrong heads, before it starts.

    A run without a batch would end without an error, with random weights. The check builds the loaders, which
    the training then uses.

    Raises:
        FitError: A rank has no batch, or the outputs of a head do not match the classes.
    """
    loader = runner.train_loop.dataloader
    fewest = torch.tensor(len(loader))
    mmengine.dist.all_reduce(fewest, op='min')
    if not fewest:
        batch = loader.batch_sampler.batch_size
        raise FitError('; '.join(compare_batch(len(loader.dataset), mmengine.dist.get_world_size(), batch)))
    datasets = [loader.dataset]
    if runner.val_loop is not None:
        datasets.append(runner.val_loop.dataloader.dataset)
    for dataset in datasets:
        check_classes(runner, dataset)


def check_classes(runner: Runner, dataset) -> None:
    """Compare the heads of a runner's config with a data set.

    Raises:
        FitError: The outputs of a head do not match the classes.
    """
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    for found, remedy in compare_classes(runner.cfg.model, classes):
        raise FitError(f'{found}; {remedy}')


def find_key(node, path: str, key: str) -> Iterator[tuple]:
    """Yield the dotted path and the value of every `key` below a config node; `path` is the node's."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == key:
                yield f'{path}.{name}', value
            yield from find_key(value, f'{path}.{name}', key)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from find_key(value, f'{path}.{index}', key)
