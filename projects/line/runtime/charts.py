"""EWMA control charts: limits for a stated rate of false calls, whatever the distribution of what is charted.

The exponentially weighted moving average z <- (1 - weight) z + weight x of Roberts (Technometrics 1, 1959)
calls when it leaves its limits. The average number of values until it calls in control, its run length, is
that of a Markov chain over cells between the limits (Brook & Evans, Biometrika 59, 1972; Lucas & Saccucci,
Technometrics 32, 1990, who advise weights of 0.05 to 0.25, the smaller for the smaller shifts). Their tables
are of normal values and known parameters. Here values become normal scores by their rank among those of the
proof, so that neither a skewed distribution nor one wild value calls, and the limits are widened by what the
few radiographs of the proof leave unknown.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RUN_LENGTH = 100_000
"""Values in control until a chart calls, on average and at least."""
GUARD = 1.645
"""Standard errors of the reference by which limits are widened: 95 % on either side."""
LEVELS = 41
"""Quantiles that stand for the values of a reference."""
_CELLS = 301


@dataclass(frozen=True)
class Chart:
    """One chart: what it is of, and its limits.

    Attributes:
        name: Of what.
        weight: Of the newest value.
        centre: Where it begins, and is expected.
        lower: It calls below; None where no value is low enough.
        upper: It calls above.
        values: Quantiles of the proof, ascending, without repetition; empty where values are charted as they
            are.
        scores: Normal score of each of them, 0 for the median of the proof.
    """

    name: str
    weight: float
    centre: float
    lower: float | None
    upper: float | None
    values: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()

    def score(self, value: float) -> float:
        """Return what is averaged of a value: its normal score, by its place among those of the proof."""
        return float(np.interp(value, self.values, self.scores)) if self.values else value

    def next(self, average: float, score: float) -> float:
        """Return the average after one more score."""
        return (1 - self.weight) * average + self.weight * score

    def side(self, average: float) -> str:
        """Return 'low' or 'high' where an average is outside the limits, else ''."""
        if self.upper is not None and average > self.upper:
            return 'high'
        return 'low' if self.lower is not None and average < self.lower else ''


def value_chart(
    name: str, weight: float, values: Sequence[float], weights: Sequence[float], units: float
) -> Chart:
    """Make a chart of the ranks of values among those of the proof.

    Args:
        name: Of what.
        weight: Of the newest value.
        values: Quantiles of the proof.
        weights: Of these.
        units: How many independent radiographs or parts they are from.
    """
    order = np.argsort(values, kind='stable')
    ordered, parts = np.asarray(values)[order], np.asarray(weights)[order] / sum(weights)
    ranks = np.cumsum(parts) - parts / 2
    kinds, place = np.unique(ordered, return_inverse=True)
    # Alike values share the middle of their ranks.
    middles = np.bincount(place, ranks * parts) / np.bincount(place, parts)
    limit = score_limit(weight) + GUARD / math.sqrt(units)
    scores = tuple(NormalDist().inv_cdf(float(rank)) for rank in middles)
    return Chart(name, weight, 0.0, -limit, limit, tuple(kinds.tolist()), scores)


def share_chart(name: str, weight: float, share: float, low: float, high: float) -> Chart:
    """Make a chart of how often something happens: 1 where it does, else 0.

    Args:
        name: Of what.
        weight: Of the newest value.
        share: Of the proof.
        low: The proof does not exclude a share so low.
        high: Nor one so high.
    """
    upper = call_limit((0.0, 1.0), (1 - high, high), weight, share)
    lower = call_limit((-1.0, 0.0), (low, 1 - low), weight, -share)
    return Chart(name, weight, share, lower if lower is None else -lower, upper)


@functools.cache
def score_limit(weight: float) -> float:
    """Return the limit of a chart of normal scores, on either side."""
    levels = [(k + 0.5) / LEVELS for k in range(LEVELS)]
    limit = call_limit(tuple(NormalDist().inv_cdf(p) for p in levels), (1 / LEVELS,) * LEVELS, weight, 0.0)
    assert limit is not None
    return limit


@functools.cache
def call_limit(
    scores: tuple[float, ...], shares: tuple[float, ...], weight: float, centre: float
) -> float | None:
    """Return the upper limit that is passed once in twice `RUN_LENGTH` values: there is a lower one, too.

    Args:
        scores: What is averaged.
        shares: How often each comes in control; they sum up to 1.
        weight: Of the newest value.
        centre: Where the average begins.

    Returns:
        The limit, or None where not even the highest average is rare enough to call.
    """
    low, high = centre, max(scores)
    if low >= high or run_length(scores, shares, weight, centre, high - 1e-9) < 2 * RUN_LENGTH:
        return None
    for _ in range(20):  # to a millionth of the range
        middle = (low + high) / 2
        enough = run_length(scores, shares, weight, centre, middle) >= 2 * RUN_LENGTH
        low, high = (low, middle) if enough else (middle, high)
    return high


def run_length(
    scores: Sequence[float], shares: Sequence[float], weight: float, centre: float, limit: float
) -> float:
    """Return how many values an average takes to pass an upper limit, on average, by a Markov chain.

    What lands between the middles of two cells is divided between them, which keeps the mean. The cells reach
    twelve standard deviations of the average below its centre; what lands lower is taken for that, which
    makes the run length shorter, not longer.
    """
    mean = float(np.dot(shares, scores))
    spread = math.sqrt(float(np.dot(shares, (np.asarray(scores) - mean) ** 2)) * weight / (2 - weight))
    cells = np.linspace(max(min(scores), min(centre, mean, limit) - 12 * spread), limit, _CELLS)
    width = cells[1] - cells[0]
    landed = (1 - weight) * cells[:, None] + weight * np.asarray(scores)
    chances = np.broadcast_to(shares, landed.shape)
    inside = landed <= limit
    place = np.clip((landed - cells[0]) / width, 0, _CELLS - 1)
    below = np.minimum(place.astype(int), _CELLS - 2)
    upper = place - below
    moves = np.zeros((_CELLS, _CELLS))
    rows = np.broadcast_to(np.arange(_CELLS)[:, None], landed.shape)
    np.add.at(moves, (rows[inside], below[inside]), (chances * (1 - upper))[inside])
    np.add.at(moves, (rows[inside], below[inside] + 1), (chances * upper)[inside])
    # No longer than this is asked for: beyond it, rounding would decide.
    lengths = np.linalg.solve(np.eye(_CELLS) * (1 + 1e-9) - moves, np.ones(_CELLS))
    return float(np.interp(centre, cells, lengths))
