"""Escape, false reject and recall by series, batch, part type and view, and the worst stratum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bounds import Rate
from .images import CRITICAL, STRATA
from .matching import Matched
from .parts import gather_parts, measure_parts

MOST = 50  # maximum number of values of a key; more values are names of images, not groups


@dataclass
class Stratum:
    """One group of images at one threshold.

    Attributes:
        key: Key of the group, such as 'series'.
        value: Value of the key.
        images: Number of images.
        parts: Number of parts with an image in the group, each judged by these images alone. None if an image
            does not name its part.
        escape: Critical parts that are not rejected; not estimable where parts are unknown.
        false_reject: Defect-free parts that are rejected; likewise.
        defects: Number of critical boxes.
        recall: Share of critical boxes found with the right severity; None without any.
    """

    key: str
    value: str
    images: int
    parts: int | None
    escape: Rate
    false_reject: Rate
    defects: int
    recall: float | None


def stratify(
    matched: Sequence[Matched],
    threshold: float,
    keys: Sequence[str] = STRATA,
    reject_minor: bool = False,
    confidence: float = 0.95,
) -> list[Stratum]:
    """Measure every group of images by each key that has several values.

    Args:
        matched: From `match_all`; images without a key belong to no group of this key.
        threshold: Score threshold of parts and boxes.
        keys: Keys to group by.
        reject_minor: See `parts.gather_parts`.
        confidence: Confidence level of each one-sided bound, for one stratum by itself.
    """
    strata = []
    for key in keys:
        groups = _group(matched, key)
        if 2 <= len(groups) <= MOST:
            strata += [
                _measure(key, value, groups[value], threshold, reject_minor, confidence)
                for value in sorted(groups)
            ]
    return strata


def too_many(matched: Sequence[Matched], keys: Sequence[str] = STRATA) -> list[str]:
    """Return a line for each key that is left out because it has more than `MOST` values."""
    counts = {key: len(_group(matched, key)) for key in keys}
    return [
        f'strata: {count} values of {key.replace("_", " ")} are left out, as more than {MOST} are names of '
        'images rather than groups'
        for key, count in counts.items()
        if count > MOST
    ]


def _group(matched: Sequence[Matched], key: str) -> dict[str, list[Matched]]:
    """Return the images of each value of a key; images without a value are in no group."""
    groups: dict[str, list[Matched]] = {}
    for m in matched:
        if key in m.image.strata:
            groups.setdefault(m.image.strata[key], []).append(m)
    return groups


def _measure(
    key: str, value: str, members: list[Matched], threshold: float, reject_minor: bool, confidence: float
) -> Stratum:
    known = all(m.image.part is not None for m in members)
    parts = gather_parts(members, reject_minor) if known else []
    measures = measure_parts(parts, threshold, confidence)
    scores = np.concatenate(
        [m.right_scores[(m.image.truth_labels == CRITICAL) & ~m.image.ignored] for m in members]
    )
    return Stratum(
        key=key,
        value=value,
        images=len(members),
        parts=len(parts) if known else None,
        escape=measures.escape,
        false_reject=measures.false_reject,
        defects=int(scores.size),
        recall=float((scores >= threshold).mean()) if scores.size else None,
    )


def worst_stratum(strata: Sequence[Stratum]) -> Stratum | None:
    """Return the stratum with the highest escape rate, then the highest bound; None without strata."""
    known = [stratum for stratum in strata if stratum.escape.units]
    return max(known, key=lambda s: (s.escape.rate or 0.0, s.escape.upper or 0.0), default=None)


def describe_worst(strata: Sequence[Stratum]) -> str:
    """Name the worst stratum in a sentence; empty where there are no strata."""
    worst = worst_stratum(strata)
    if worst is None:
        return ''
    known = sum(bool(stratum.escape.units) for stratum in strata)
    start = 'Worst' if worst.escape.events else 'No critical part escaped; highest bound'
    return (
        f'{start} of {known} strata: {worst.key.replace("_", " ")} {worst.value}, escaped: {worst.escape} '
        '(of this stratum by itself; the worst of several is partly chance).'
    )
