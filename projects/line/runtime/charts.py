"""EWMA control charts: limits for a given rate of false calls, for any distribution of the charted values.

The exponentially weighted moving average z <- (1 - weight) z + weight x of Roberts (Technometrics 1, 1959)
calls when it leaves its limits. Its run length is the average number of values until it calls in control. A
Markov chain over cells between the limits gives the run length (Brook & Evans, Biometrika 59, 1972; Lucas &
Saccucci, Technometrics 32, 1990, who advise weights of 0.05 to 0.25, smaller weights for smaller shifts).
Their tables assume normal values and known parameters. Here values become normal scores by their rank among
the values of the proof, so that neither a skewed distribution nor one outlier calls. The limits are wider
by the uncertainty of a proof with few radiographs.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RUN_LENGTH = 100_000
"""Smallest average number of values in control until a chart calls."""
GUARD = 1.645
"""Standard errors of the reference that are added to the limits: 95 % on either side."""
LEVELS = 41
"""Number of quantiles that represent the values of a reference."""
_CELLS = 301


@dataclass(frozen=True)
class Chart:
    """One chart: its quantity and its limits.

    Attributes:
        name: Charted quantity.
        weight: Weight of the newest value.
        centre: Start and expected value of the average.
        lower: The chart calls below this limit; None if no average is low enough to call.
        upper: The chart calls above this limit; None if no average is high enough to call.
        values: Quantiles of the proof, ascending, without repetition; empty if values are charted without a
            transform.
        scores: Normal score of each quantile, 0 for the median of the proof.
    """

    name: str
    weight: float
    centre: float
    lower: float | None
    upper: float | None
    values: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()

    def score(self, value: float) -> float:
        """Return the score of a value that the chart averages: its normal score by its rank in the proof."""
        return float(np.interp(value, self.values, self.scores)) if self.values else value

    def next(self, average: float, score: float) -> float:
        """Return the average after one more score."""
        return (1 - self.weight) * average + self.weight * score

    def side(self, average: float) -> str:
        """Return 'low' or 'high' if an average is outside the limits, else ''."""
        if self.upper is not None and average > self.upper:
            return 'high'
        return 'low' if self.lower is not None and average < self.lower else ''


def value_chart(
    name: str, weight: float, values: Sequence[float], weights: Sequence[float], units: float
) -> Chart:
    """Make a chart of the ranks of values among the values of the proof.

    Args:
        name: Charted quantity.
        weight: Weight of the newest value.
        values: Quantiles of the proof.
        weights: Weight of each quantile.
        units: Number of independent radiographs or parts behind the quantiles.
    """
    order = np.argsort(values, kind='stable')
    ordered, parts = np.asarray(values)[order], np.asarray(weights)[order] / sum(weights)
    ranks = np.cumsum(parts) - parts / 2
    kinds, place = np.unique(ordered, return_inverse=True)
    # Equal values share the mean of their ranks.
    middles = np.bincount(place, ranks * parts) / np.bincount(place, parts)
    limit = score_limit(weight) + GUARD / math.sqrt(units)
    scores = tuple(NormalDist().inv_cdf(float(rank)) for rank in middles)
    return Chart(name, weight, 0.0, -limit, limit, tuple(kinds.tolist()), scores)


def share_chart(name: str, weight: float, share: float, low: float, high: float) -> Chart:
    """Make a chart of the share of events: a value is 1 for an event, else 0.

    Args:
        name: Charted quantity.
        weight: Weight of the newest value.
        share: Share in the proof.
        low: Lowest share that the proof does not exclude.
        high: Highest share that the proof does not exclude.
    """
    upper = call_limit((0.0, 1.0), (1 - high, high), weight, share)
    lower = call_limit((-1.0, 0.0), (low, 1 - low), weight, -share)
    return Chart(name, weight, share, lower if lower is None else -lower, upper)


@functools.cache
def score_limit(weight: float) -> float:
    """Return the limit of a chart of normal scores; the lower limit is its negative."""
    levels = [(k + 0.5) / LEVELS for k in range(LEVELS)]
    limit = call_limit(tuple(NormalDist().inv_cdf(p) for p in levels), (1 / LEVELS,) * LEVELS, weight, 0.0)
    assert limit is not None
    return limit


@functools.cache
def call_limit(
    scores: tuple[float, ...], shares: tuple[float, ...], weight: float, centre: float
) -> float | None:
    """Return the upper limit whose run length is `2 * RUN_LENGTH`: half the calls come from the lower one.

    Args:
        scores: Possible scores.
        shares: Share of each score in control; the sum is 1.
        weight: Weight of the newest value.
        centre: Start of the average.

    Returns:
        The limit, or None if even the highest average is too frequent to call.
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
    """Return the mean number of values until an average passes an upper limit, by a Markov chain.

    An average between the middles of two cells is divided between the cells, which keeps the mean. The cells
    reach twelve standard deviations of the average below its centre. A lower average counts as the lowest
    cell, which makes the run length shorter, not longer.
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
    # The factor caps the run length: beyond the cap, rounding would decide the result.
    lengths = np.linalg.solve(np.eye(_CELLS) * (1 + 1e-9) - moves, np.ones(_CELLS))
    return float(np.interp(centre, cells, lengths))
