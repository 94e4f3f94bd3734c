"""Which parts, views and defects a generated data set holds, from one seed."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from projects.xray.classes import CASTINGS

from .defects import KINDS
from .view import Radiograph, make_part, render

# ---------------------------------------------------------------------------------------------- plan


class View(NamedTuple):
    """One planned image: its part's number and types wanted, its view's number, and its split."""

    part: int
    view: int
    types: tuple
    split: str


def plan(images: int, seed: int, kind: int = 0, extra: int = 0) -> list[View]:
    """Lay out a data set: parts of 2 to 4 views, at least 45 % of the images from sound parts, split by part.

    Args:
        images: How many images.
        seed: Of the data set.
        kind: Keeps the draws of labelled (0) and unlabelled (1) parts apart.
        extra: Defects wanted in a defective part beyond its one to four; all are then of one severity.

    Returns:
        In order of part and view; parts with a critical defect, with minor ones alone and with
            none are each split 60/20/20.
    """
    rng = np.random.default_rng([seed, 7, kind])
    views = []
    while sum(views) < images:
        views.append(min(2 + len(views) % 3, images - sum(views)))
    defective, count = [], 0
    for number in rng.permutation(len(views)):
        if count + views[number] <= 0.55 * images:
            defective.append(int(number))
            count += views[number]
    names = list(KINDS)
    first = rng.permutation(len(names))
    types = {}
    for k, number in enumerate(defective):
        lead = names[first[k % len(names)]]
        # Of ten defects one is critical: with extra ones, a part of minor defects alone needs a rule.
        pool = [name for name in names if CASTINGS[name] == CASTINGS[lead]] if extra else names
        more = rng.choice(pool, int(rng.choice([0, 1, 2, 3], p=[0.35, 0.35, 0.2, 0.1])) + extra)
        types[number] = (lead, *(str(name) for name in more))
    worst = [min((CASTINGS[name] for name in types.get(n, ())), default='none') for n in range(len(views))]
    split = {}
    for severity in ('critical', 'minor', 'none'):
        group = [n for n in rng.permutation(len(views)) if worst[n] == severity]
        held = round(0.2 * len(group)) or int(len(group) >= 3)
        for k, number in enumerate(group):
            split[number] = 'val' if k < held else 'test' if k < 2 * held else 'train'
    return [
        View(number, view, types.get(number, ()), split[number])
        for number, count in enumerate(views)
        for view in range(count)
    ]


@lru_cache(maxsize=1)  # the views of a part follow one another
def _part(seed, kind, number, types, size):
    return make_part([seed, kind, number], types, size)


def draw(
    view: View, seed: int, kind: int = 0, size: int = 1024, bits: int = 16, depth: float = 1.0
) -> Radiograph:
    """Draw one planned image; the draw depends on (seed, kind, part, view) alone.

    Args:
        view: From `plan`.
        seed: Of the data set.
        kind: As given to `plan`.
        size: Pixels of the square detector.
        bits: 8, 12, 14 or 16.
        depth: As given to `render`.

    Returns:
        Pixels and defects.
    """
    part = _part(seed, kind, view.part, view.types, size)
    return render(part, [seed, kind, view.part, view.view + 1], size, bits, depth)
