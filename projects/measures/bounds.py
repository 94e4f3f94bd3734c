"""Exact bounds: proportions of independent units, counts in clusters, and the power of a proof.

Plain numbers in, dataclasses of plain numbers out (`dataclasses.asdict` gives JSON). If the data do not
support a value, it is None, never nan.
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
    """A statistic cannot be computed from the data; one line states what is missing."""


@dataclass
class Rate:
    """A proportion of independent units with its one-sided upper bound.

    Attributes:
        events: Units with the event, such as critical parts that escaped.
        units: All units.
        rate: events / units in [0, 1]; None without units.
        upper: Clopper-Pearson upper bound of the rate; None without units.
        confidence: Confidence level of the bound.
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
    """Return the proportion with its one-sided upper bound; without units it is not estimable."""
    if units == 0:
        return Rate(0, 0, None, None, confidence)
    return Rate(events, units, events / units, upper_bound(events, units, confidence), confidence)


def upper_bound(events: int, units: int, confidence: float = 0.95) -> float:
    """Return the one-sided Clopper-Pearson upper bound of a proportion (Biometrika 26, 1934).

    At this rate, `events` or fewer of `units` have the probability 1 - confidence. Units must be independent:
    physical parts, not their views.

    Raises:
        StatisticsError: No units, or more events than units.
    """
    if not 0 <= events <= units or units == 0:
        raise StatisticsError(f'expected 0 <= events <= units and units > 0, got {events} of {units}')
    return 1.0 if events == units else float(stats.beta.ppf(confidence, events + 1, units - events))


def parts_needed(max_rate: float, events: int = 0, confidence: float = 0.95) -> int:
    """Return the smallest number of parts that proves a rate of at most `max_rate` with `events` events.

    Args:
        max_rate: The rate to prove, in (0, 1).
        events: Parts with the event.
        confidence: Confidence level of the proof, in (0, 1).

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
    """Return the most events among `units` that still prove a rate of at most `max_rate`; -1 if 0 do not."""
    events = -1
    while events + 1 < units and upper_bound(events + 1, units, confidence) <= max_rate:
        events += 1
    return events


def proof_power(
    escapes: int, units: int, test_units: int, max_rate: float, confidence: float = 0.95
) -> float:
    """Return the predictive probability that a test set proves a rate of at most `max_rate`.

    A threshold is the (escapes + 1)-th lowest score of `units` parts. So the rate of parts below the
    threshold is Beta(escapes + 1, units - escapes) distributed, for any distribution of scores (Wilks, Ann.
    Math. Stat. 12, 1941). The escapes among `test_units` further parts are beta-binomial.

    Args:
        escapes: Parts below the threshold in the set that fixed the threshold.
        units: Parts of that set.
        test_units: Parts of the test set.
        max_rate: The rate to prove, in (0, 1).
        confidence: Confidence level of the proof, one-sided.

    Returns:
        Probability in [0, 1]; 0 where the test set is too small, or where every part of the first set
        escapes.
    """
    allowed = allowed_events(test_units, max_rate, confidence) if test_units else -1
    if allowed < 0 or escapes >= units:
        return 0.0
    return float(stats.betabinom.cdf(allowed, test_units, escapes + 1, units - escapes))


@dataclass
class ClusteredRate:
    """A count per unit of exposure, such as false calls per image, with its two-sided interval.

    Attributes:
        events: All events.
        exposure: All units, such as images.
        clusters: Independent clusters of units, such as parts.
        rate: events / exposure; None without exposure.
        low: Lower end of the interval; None with fewer than two clusters.
        high: Upper end; likewise.
        design_effect: Factor by which clustering increases the variance, at least 1.
        confidence: Confidence level of the interval, two-sided.
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
    """Return events per exposure with an interval that accounts for clusters.

    The interval is Garwood's exact Poisson interval (Biometrika 28, 1936) of the effective count. Events and
    exposure are divided by the design effect and by the squared ratio of the t to the normal quantile (Korn &
    Graubard, Survey Methodology 24, 1998). The design effect is the cluster-robust variance of the ratio over
    its Poisson variance, at least 1. Without events, each cluster counts as one unit of its mean exposure.

    Args:
        events: (C) events of each cluster.
        exposure: (C) exposure of each cluster, above zero.
        confidence: Confidence level, two-sided.

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
