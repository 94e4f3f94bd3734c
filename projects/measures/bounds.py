"""Exact bounds: proportions of independent units, counts in clusters, and the power of a proof.

Plain numbers in, dataclasses of plain numbers out (`dataclasses.asdict` gives JSON). A value that the data do
not support is None, never nan.
"""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from projects.errors import MMXrayError

MIN_UNITS = 15  # fewer independent units get no interval: their spread is not known


class StatisticsError(MMXrayError, ValueError):
    """Data from which a statistic cannot be computed; one line that says what is missing."""


@dataclass
class Rate:
    """A proportion of independent units with its one-sided upper bound.

    Attributes:
        events: Units with the event, such as critical parts that escaped.
        units: Units in all.
        rate: events / units in [0, 1]; None without units.
        upper: Clopper-Pearson upper bound of the rate; None without units.
        confidence: Of the bound.
    """

    events: int
    units: int
    rate: float | None
    upper: float | None
    confidence: float

    def __str__(self) -> str:
        """Return the rate with its bound, which is rounded up, or 'not estimable'."""
        if self.rate is None or self.upper is None:
            return 'not estimable'
        percent = 100 * decimal.Decimal(repr(self.upper))
        percent = percent.quantize(decimal.Decimal('0.01'), decimal.ROUND_CEILING)
        return (
            f'{self.events} of {self.units} = {self.rate:.2%}, at most {percent}% '
            f'with {self.confidence:.0%} confidence'
        )


def rate(events: int, units: int, confidence: float = 0.95) -> Rate:
    """Return the proportion with its one-sided upper bound; without units, one that is not estimable."""
    if units == 0:
        return Rate(0, 0, None, None, confidence)
    return Rate(events, units, events / units, upper_bound(events, units, confidence), confidence)


def upper_bound(events: int, units: int, confidence: float = 0.95) -> float:
    """One-sided Clopper-Pearson upper bound of a proportion (Biometrika 26, 1934).

    The largest rate at which `events` or fewer of `units` still have the probability 1 - confidence. Units
    must be independent: physical parts, not their views.

    Raises:
        StatisticsError: No units, or more events than units.
    """
    if not 0 <= events <= units or units == 0:
        raise StatisticsError(f'expected 0 <= events <= units and units > 0, got {events} of {units}')
    return 1.0 if events == units else float(stats.beta.ppf(confidence, events + 1, units - events))


def parts_needed(max_rate: float, events: int = 0, confidence: float = 0.95) -> int:
    """Smallest number of parts that proves a rate of at most `max_rate` when `events` of them have the event.

    Args:
        max_rate: In (0, 1).
        events: Events that the proof must survive.
        confidence: In (0, 1).

    Returns:
        Number of parts: with no events 59 for 5 %, 299 for 1 %, 2,995 for 0.1 % at 95 % confidence.

    Raises:
        StatisticsError: `max_rate` is not in (0, 1), or events is negative.
    """
    if not 0 < max_rate < 1 or events < 0:
        raise StatisticsError(f'expected a rate in (0, 1) and events >= 0, got {max_rate} and {events}')
    low, high = events, events + 1  # upper_bound(events, events) is 1, so `low` parts never suffice
    while upper_bound(events, high, confidence) > max_rate:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if upper_bound(events, middle, confidence) <= max_rate else (middle, high)
    return high


def allowed_events(units: int, max_rate: float, confidence: float = 0.95) -> int:
    """Most events among `units` that still prove a rate of at most `max_rate`; -1 if not even none does."""
    events = -1
    while events + 1 < units and upper_bound(events + 1, units, confidence) <= max_rate:
        events += 1
    return events


def proof_power(
    escapes: int, units: int, test_units: int, max_rate: float, confidence: float = 0.95
) -> float:
    """Predictive probability that a test set proves a rate of at most `max_rate`.

    A threshold is the (escapes + 1)-th lowest score of `units` parts, so the rate of parts below it is
    Beta(escapes + 1, units - escapes) distributed, whatever the scores' distribution (Wilks, Ann. Math. Stat.
    12, 1941), and the escapes among `test_units` further parts are beta-binomial.

    Args:
        escapes: Parts below the threshold in the set that fixed it.
        units: Parts of that set.
        test_units: Parts of the test set.
        max_rate: To prove, in (0, 1).
        confidence: Of the proof, one-sided.

    Returns:
        In [0, 1]; 0 where the test set is too small, or where every part of the first set escapes.
    """
    allowed = allowed_events(test_units, max_rate, confidence) if test_units else -1
    if allowed < 0 or escapes >= units:
        return 0.0
    return float(stats.betabinom.cdf(allowed, test_units, escapes + 1, units - escapes))


@dataclass
class ClusteredRate:
    """A count per unit of exposure, such as false calls per image, with its two-sided interval.

    Attributes:
        events: Events in all.
        exposure: Units in all, such as images.
        clusters: Independent clusters of units, such as parts.
        rate: events / exposure; None without exposure.
        low: Lower end of the interval; None with fewer than two clusters.
        high: Upper end; likewise.
        design_effect: Factor by which clustering widens the variance, at least 1.
        confidence: Of the interval, two-sided.
    """

    events: int
    exposure: float
    clusters: int
    rate: float | None
    low: float | None
    high: float | None
    design_effect: float
    confidence: float

    def __str__(self) -> str:
        """Return the rate with its interval, or 'not estimable'."""
        if self.rate is None:
            return 'not estimable'
        if self.low is None or self.high is None:
            return f'{self.rate:.3g}, without an interval'
        return f'{self.rate:.3g} ({self.low:.3g} to {self.high:.3g})'


def clustered_rate(
    events: Sequence[int], exposure: Sequence[float], confidence: float = 0.95
) -> ClusteredRate:
    """Return events per exposure with an interval clustered by unit.

    Garwood's exact Poisson interval (Biometrika 28, 1936) of the effective count: events and exposure are
    divided by the design effect, the cluster-robust variance of the ratio over the Poisson one, at least 1,
    times the squared ratio of the t to the normal quantile (Korn & Graubard, Survey Methodology 24, 1998).
    Without any event, each cluster counts as one unit of its mean exposure.

    Args:
        events: (C) events of each cluster.
        exposure: (C) exposure of each cluster, above zero.
        confidence: Two-sided.

    Raises:
        StatisticsError: Unequal lengths, a negative count, or an exposure that is not above zero.
    """
    counts, sizes = np.asarray(events, float), np.asarray(exposure, float)
    if counts.shape != sizes.shape or (counts < 0).any() or not (sizes > 0).all():
        raise StatisticsError('expected a count >= 0 and an exposure > 0 of each cluster')
    clusters, total, units = counts.size, counts.sum(), sizes.sum()
    if not clusters:
        return ClusteredRate(0, 0.0, 0, None, None, None, 1.0, confidence)
    mean = total / units
    if clusters < 2:
        return ClusteredRate(int(total), float(units), clusters, float(mean), None, None, 1.0, confidence)
    tail = (1 - confidence) / 2
    effect = units / clusters  # without events
    if total:
        residuals = counts - mean * sizes
        robust = clusters / (clusters - 1) * (residuals**2).sum() / units**2
        effect = max(1.0, robust / (mean / units))
    widened = effect * (stats.t.ppf(1 - tail, clusters - 1) / stats.norm.ppf(1 - tail)) ** 2
    effective, base = total / widened, units / widened
    low = stats.gamma.ppf(tail, effective) / base if total else 0.0
    high = stats.gamma.ppf(1 - tail, effective + 1) / base
    return ClusteredRate(
        int(total), float(units), clusters, float(mean), float(low), float(high), float(effect), confidence
    )
