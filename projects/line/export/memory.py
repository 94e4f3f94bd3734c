"""The memory of the second opinion: patches of sound parts, and the score above which it flags."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from projects.measures.bounds import upper_bound

MOST_FLAGGED = 0.1
"""Largest share of sound parts to flag, by the upper bound, if there are enough held-out parts to show it."""


def coreset(points: np.ndarray, count: int) -> np.ndarray:
    """Choose points so that each of the (N, C) is near a chosen point (greedy k-center, Gonzalez 1985)."""
    chosen = [0]
    nearest = ((points - points[0]) ** 2).sum(1)
    while len(chosen) < min(count, len(points)) and nearest.max() > 0:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(1))
    return points[chosen].astype(np.float32)


def flagging_score(scores: Sequence[float], parts: Sequence[str | None]) -> dict[str, Any]:
    """Choose the score above which a radiograph is flagged, from held-out sound radiographs.

    The threshold is the lowest score at which the one-sided 95 % bound of the share of flagged sound parts is
    at most `MOST_FLAGGED`. Fewer than 29 parts cannot show this; the threshold is then their highest score.

    Args:
        scores: Score of each radiograph.
        parts: Part of each radiograph; if any part is unknown, each radiograph counts as a part.

    Returns:
        `threshold`; `flagged` and `sound`, counts of sound parts; `upper`, the bound at `confidence`.
    """
    worst: dict[Any, float] = {}
    for k, (score, part) in enumerate(zip(scores, parts, strict=True)):
        key = k if None in parts else part
        worst[key] = max(score, worst.get(key, 0.0))
    ordered = sorted(worst.values(), reverse=True)
    flagged = 0
    while flagged + 1 < len(ordered) and upper_bound(flagged + 1, len(ordered)) <= MOST_FLAGGED:
        flagged += 1
    threshold = ordered[flagged]
    above = sum(score > threshold for score in ordered)
    return dict(
        threshold=threshold,
        flagged=above,
        sound=len(ordered),
        upper=rounded_up(upper_bound(above, len(ordered))),
        confidence=0.95,
    )


def rounded_up(share: float) -> float:
    """Round a bound up to four digits."""
    return float(np.ceil(share * 1e4) / 1e4)
