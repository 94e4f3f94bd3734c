"""Mapping a pretrained box head from defect types to the classes of another data set."""

import math
from collections.abc import Mapping, Sequence

import torch

from .classes import CASTINGS, CLASSES, GDXRAY_CLASSES
from .handover import HandoverError
from .severity import read_severity

BOX = 'roi_head.bbox_head'
MASK = 'roi_head.mask_head'


def group_classes(
    source: Sequence[str], target: Sequence[str], severity: str | Mapping | None = None
) -> list[list[int]] | None:
    """Return the classes of a file that belong to each class of a run.

    If both have the same classes, each class maps to itself. Otherwise a single class of the run takes all
    types, and several classes take the types that the severity map assigns to them.

    Args:
        source: Classes of the file, in label order.
        target: Classes of the run, in label order.
        severity: Severity map of the run's data set, see `datasets.read_severity`.

    Returns:
        For each label of the run, the labels of the file; None if the file's classes are not of radiographs.

    Raises:
        HandoverError: A type has no class, or a class has no type.
    """
    source, target = list(source), list(target)
    table = read_severity(severity) or {}
    known = {*CASTINGS, *table, *target, *CLASSES, *GDXRAY_CLASSES}
    if not set(source) <= known:
        return None
    if set(source) != set(target):
        table = dict.fromkeys(source, target[0]) if len(target) == 1 else table
    else:
        table = {name: name for name in source}
    homeless = [name for name in source if table.get(name) not in target]
    groups = [[label for label, name in enumerate(source) if table.get(name) == wanted] for wanted in target]
    if homeless or not all(groups):
        found = f'{homeless[0]!r} has none of them' if homeless else f'{target[groups.index([])]!r} gets none'
        raise HandoverError(
            f'box head of the classes {source}, expected {target}: {found}; map each type in `severity` of '
            'the data set, or pretrain with the classes of the run'
        )
    return groups


def map_heads(
    state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], groups: Sequence[Sequence[int]]
) -> dict[str, torch.Tensor]:
    """Return a file's tensors with the rows of its types combined into rows of classes.

    The row of a class is the mean of the rows of its n types, and its logit gets ln(n) added. The result is
    the sum of the types' probabilities if they are equally likely, and less otherwise (log-sum-exp is
    convex). Regression and masks use the mean alone. Background stays unchanged.

    Args:
        state: Tensors of the file.
        own: Tensors of the model that loads them, for their shapes.
        groups: From `group_classes`.
    """
    count = sum(len(group) for group in groups)
    mapped = dict(state)
    for name in ('weight', 'bias'):
        for key, width, background in (
            (f'{BOX}.fc_cls.{name}', 1, 1),
            (f'{BOX}.fc_reg.{name}', 4, 0),
            (f'{MASK}.conv_logits.{name}', 1, 0),
        ):
            rows, wanted = state.get(key), own.get(key)
            if rows is None or wanted is None:
                continue
            types = rows[: len(rows) - background].reshape(-1, width, *rows.shape[1:])
            if len(types) not in (1, count) or (background and len(types) != count):
                continue  # another kind of head: the comparison reports it
            # A class-agnostic regression has the rows of a single type.
            parts = [[0]] * len(groups) if len(types) == 1 < count else groups
            if len(wanted) == width and len(groups) > 1:
                parts = [range(len(types))]
            merged = torch.stack([types[list(part)].mean(0) for part in parts])
            if background and name == 'bias':
                merged += torch.tensor([math.log(len(part)) for part in parts])[:, None]
            mapped[key] = torch.cat([merged.flatten(0, 1), rows[len(rows) - background :]])
    return mapped


def say(source: Sequence[str], target: Sequence[str], groups: Sequence[Sequence[int]]) -> str:
    """Return the map in words: `critical (crack, hot_tear), minor (gas_pore)`."""
    return ', '.join(f'{name} ({", ".join(source[i] for i in group)})' for name, group in zip(target, groups))
