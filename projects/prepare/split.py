"""The parts of images, and the division of parts into train, val and test."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from .ledger import ConvertError

SHARES = {'train': 0.7, 'test': 0.2, 'val': 0.1}
"""Share of each split; protocol B of GDXray has about the same shares."""

# File names such as `P12_a`, `P12-view2` and `P12a`: the first group is the part, the second the view.
_VIEWS = tuple(
    rf'([^/]{part})({view})?(\.[^/]*)?$'
    for part, view in (('+?', '_[^_/.]*'), ('+?', '-[^-/.]*'), ('*?[0-9]', '[a-z]'))
)


@dataclass
class Views:
    """A guess of parts and views from file names.

    Attributes:
        group: regular expression whose first group is the part.
        parts: number of parts.
        images: number of images that share their part with another.
        example: names of one part's images, without their folders.
    """

    group: str
    parts: int
    images: int
    example: list[str]


def one_spelling(parts: dict[str, str]) -> tuple[dict[str, str], str | None]:
    """Unify parts that differ only in upper and lower case, as parts are typed by hand.

    Args:
        parts: Part of each image.

    Returns:
        The parts with one spelling each, and a note on them; None if nothing changed.
    """
    found = sorted(set(parts.values()))
    spelt = {part.casefold(): part for part in reversed(found)}
    others = sorted(set(found) - set(spelt.values()))
    if not others:
        return parts, None
    line = (
        f'{len(others)} parts are written in upper and in lower case, such as {spelt[others[0].casefold()]} '
        f'and {others[0]}: each counts as one part'
    )
    return {name: spelt[part.casefold()] for name, part in parts.items()}, line


def guess_views(names: Iterable[str]) -> Views | None:
    """Guess from file names which images show one part; None if they do not look like views.

    Names look like views under two conditions. At least half of the images share the text before the last
    separator with another image, in three parts or more. And the endings behind it recur from part to part:
    endings such as `_a` and `_b` do; dates and serial numbers do not.
    """
    names = list(names)
    for group in _VIEWS:
        parts: dict[str, dict[str | None, list[str]]] = defaultdict(lambda: defaultdict(list))
        for name in names:
            match = re.search(group, name)
            parts[match[1] if match else name][match[2] if match else None].append(name)
        shared = [views for views in parts.values() if len(views) > 1]
        images = sum(len(found) for views in shared for found in views.values())
        kinds = {view for views in shared for view in views}
        if len(shared) >= 3 and 2 * images >= len(names) and 2 * len(kinds) <= images:
            example = [found[0].rsplit('/', 1)[-1] for found in max(shared, key=len).values()]
            return Views(group, len(parts), images, example)
    return None


def split_groups(features: dict[str, Counter], seed: int = 0) -> dict[str, str]:
    """Divide groups into train, val and test so that every feature is divided by `SHARES`.

    The largest groups come first. Each goes to the split that lacks most of its features; no split stays
    empty.

    Args:
        features: per group, its amount of each feature (images, boxes of a class, …).
        seed: seed of the order among equal groups.

    Returns:
        Split of each group.

    Raises:
        ConvertError: fewer than three groups.
    """
    if len(features) < len(SHARES):
        raise ConvertError(
            f'--group: expected at least {len(SHARES)} parts for {", ".join(SHARES)}, found {len(features)}; '
            'choose an expression that divides the images further'
        )
    total: Counter = sum(features.values(), Counter())
    order = sorted(features)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda g: -sum(n / total[f] for f, n in features[g].items()))
    lacks = {split: {f: share for f in total} for split, share in SHARES.items()}
    splits: dict[str, str] = {}
    for k, name in enumerate(order):
        empty = [split for split in SHARES if split not in splits.values()]
        choice = empty if len(empty) == len(order) - k else list(SHARES)
        held = {f: n / total[f] for f, n in features[name].items()}
        best = max(choice, key=lambda split: sum(n * lacks[split][f] for f, n in held.items()))
        splits[name] = best
        for f, n in held.items():
            lacks[best][f] -= n
    return splits
