"""Statistics that keep their promise: exact bounds, comparisons by part and by seed, calibration.

Plain numbers in, dataclasses of plain numbers out (`dataclasses.asdict` gives JSON). A value that the data do
not support is None, never nan, and a sentence beside it says why.
"""

import decimal
import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

NO_DIFFERENCE = 'no difference shown'
MIN_UNITS = 15  # fewer independent units get an exact test: a percentile interval of few is too narrow


class StatisticsError(ValueError):
    """Data from which a statistic cannot be computed; one line that says what is missing."""


# ------------------------------------------------------------------------------------------ proportions


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

    def __str__(self):
        """Return the rate with its bound, which is rounded up, or 'not estimable'."""
        if self.rate is None:
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


# ------------------------------------------------------------------------------------------ comparisons


@dataclass
class Comparison:
    """Two arms on the same images.

    Attributes:
        method: 'paired bootstrap over parts' or 'exact sign-flip test'.
        units: Independent units (parts or series) that carry the measure: it has a value on each by itself.
        baseline: The measure of the first arm over all images.
        candidate: That of the second.
        difference: candidate - baseline; with the sign-flip test, which tests it, the mean over the units.
        low: Lower end of the two-sided interval of the difference; None with the sign-flip test.
        high: Upper end.
        p_value: Two-sided, of the sign-flip test; None with the bootstrap.
        smallest_p_value: The smallest that so few units can reach; None with the bootstrap.
        per_unit: Difference per unit, by name; empty with the bootstrap.
        undefined: Units (of the bootstrap: resamples) without a value of the measure, left out.
        confidence: Of interval and verdict.
        verdict: 'candidate higher', 'candidate lower' or 'no difference shown'.
    """

    method: str
    units: int
    baseline: float
    candidate: float
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    smallest_p_value: float | None
    per_unit: dict[str, float]
    undefined: int
    confidence: float
    verdict: str


def compare(
    units: Sequence[Hashable],
    measure: Callable[[np.ndarray], tuple[float | None, float | None]],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two arms on the same images, parts being the independent units.

    With 15 units that carry the measure, or more, the percentile interval of a paired cluster bootstrap:
    parts are drawn with replacement, each with all its images, and both arms are measured on the same draw.
    With fewer, the difference per unit and an exact sign-flip test of their mean, which shows no difference
    where the measure over all images points the other way. Several seeds: let `measure` average over them.

    A unit carries a measure that has a value on it alone: recall and average precision of a class where the
    class is annotated. A good part may raise a false alarm, but tells nothing of how the defective ones
    spread: with six of these among sixty, an interval over all sixty excluded zero in 12 % of simulated sets
    without a true difference. A mean over classes hangs on the rarest, which is the caller's to look at.

    Args:
        units: Per image, its part (or series).
        measure: Given positions of images (N,) int, with repeats, returns the measure of both arms on them,
            baseline first; None where it is not defined, such as recall without a defect.
        confidence: Two-sided.
        resamples: Bootstrap draws.
        seed: Of the draws.

    Raises:
        StatisticsError: An image without a unit; no value over all images; or none in over 5 % of the draws.
    """
    units = list(units)
    missing = [i for i, unit in enumerate(units) if unit is None]
    if missing or not units:
        raise StatisticsError(
            f'{len(missing)} of {len(units)} images have no part id; a comparison needs them'
        )
    members = {}
    for position, unit in enumerate(units):
        members.setdefault(unit, []).append(position)
    members = {unit: np.array(positions) for unit, positions in members.items()}
    baseline, candidate = _defined(measure(np.arange(len(units)))) or (None, None)
    if baseline is None:
        raise StatisticsError('the measure has no value over all images, so that nothing can be compared')
    common = dict(baseline=baseline, candidate=candidate, confidence=confidence)
    pooled = candidate - baseline

    values = {str(unit): _defined(measure(positions)) for unit, positions in members.items()}
    per_unit = {unit: value[1] - value[0] for unit, value in values.items() if value}
    if len(per_unit) < MIN_UNITS:
        if not per_unit:
            raise StatisticsError(f'the measure has no value in any of the {len(members)} units by itself')
        p_value = sign_flip_test(list(per_unit.values()))
        mean = float(np.mean(list(per_unit.values())))
        return Comparison(
            method='exact sign-flip test',
            units=len(per_unit),
            difference=mean,
            low=None,
            high=None,
            p_value=p_value,
            smallest_p_value=2.0 ** (1 - len(per_unit)),
            per_unit=per_unit,
            undefined=len(members) - len(per_unit),
            verdict=_verdict(*sorted((mean, pooled))) if p_value <= 1 - confidence else NO_DIFFERENCE,
            **common,
        )

    generator = np.random.default_rng(seed)
    positions = list(members.values())
    differences, undefined = [], 0
    for _ in range(resamples):
        drawn = generator.integers(len(positions), size=len(positions))
        value = _defined(measure(np.concatenate([positions[i] for i in drawn])))
        if value:
            differences.append(value[1] - value[0])
        else:
            undefined += 1
    if undefined > 0.05 * resamples:
        raise StatisticsError(
            f'the measure has no value in {undefined} of {resamples} draws of {len(members)} parts, although '
            f'it has one on {len(per_unit)} of them'
        )
    low, high = (float(v) for v in np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2]))
    return Comparison(
        method='paired bootstrap over parts',
        units=len(per_unit),
        difference=pooled,
        low=low,
        high=high,
        p_value=None,
        smallest_p_value=None,
        per_unit={},
        undefined=undefined,
        verdict=_verdict(low, high),
        **common,
    )


def sign_flip_test(differences: Sequence[float]) -> float:
    """Exact two-sided sign-flip (Fisher's paired randomisation) test that the mean difference is zero.

    Args:
        differences: (N) paired differences of independent units, N <= 20.

    Returns:
        p: the share of the 2^N sign patterns whose mean is at least as far from zero as the observed one. It
        cannot be below 2^(1-N), so 5 units never show a difference at 5 %.

    Raises:
        StatisticsError: None, more than 20 (2^N patterns are enumerated), or one that is not finite.
    """
    differences = np.asarray(differences, float)
    if not 1 <= differences.size <= 20 or not np.isfinite(differences).all():
        raise StatisticsError(
            f'a sign-flip test takes 1 to 20 finite differences, got {differences.tolist()}'
        )
    signs = np.array(list(itertools.product((1, -1), repeat=differences.size)))
    observed = abs(differences.sum())
    # rounding must not tell patterns apart that are equal
    return float((abs(signs @ differences) >= observed - 1e-9 * abs(differences).sum()).mean())


def _defined(values: tuple) -> tuple[float, float] | None:
    """Return both values as floats, or None when either is missing or not finite."""
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    return float(values[0]), float(values[1])


def _verdict(low: float, high: float) -> str:
    if low > 0:
        return 'candidate higher'
    return 'candidate lower' if high < 0 else NO_DIFFERENCE


@dataclass
class Seeds:
    """Mean and standard deviation (n - 1) over runs that differ in their seed; std is None with one run."""

    values: list[float]
    mean: float
    std: float | None


@dataclass
class SeedComparison:
    """Two arms over their seeds: difference of the means with Welch's two-sided interval.

    Attributes:
        baseline: First arm.
        candidate: Second arm.
        difference: Of the means, candidate - baseline; of an arm with several pretrainings the mean of them.
        low: Lower end of the interval; None where it cannot be computed.
        high: Upper end.
        confidence: Of the interval.
        verdict: 'candidate higher', 'candidate lower' or 'no difference shown'.
        reason: Why there is no interval; empty when there is one.
    """

    baseline: Seeds
    candidate: Seeds
    difference: float
    low: float | None
    high: float | None
    confidence: float
    verdict: str
    reason: str


def summarise_seeds(values: Sequence[float]) -> Seeds:
    """Summarise one measure over seeds.

    Raises:
        StatisticsError: No values, or one that is not finite.
    """
    values = [float(value) for value in values]
    if not values or not np.isfinite(values).all():
        raise StatisticsError(f'expected finite values of at least one seed, got {values}')
    return Seeds(values, float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


def compare_seeds(
    baseline: Sequence[float],
    candidate: Sequence[float],
    confidence: float = 0.95,
    starts: tuple[Sequence[Hashable] | None, Sequence[Hashable] | None] = (None, None),
) -> SeedComparison:
    """Compare two arms by their seeds (Welch's unequal-variances t interval).

    It covers what training adds by chance, on the test parts at hand; `compare` covers the parts.

    Args:
        baseline: Values of the first arm, by seed.
        candidate: Those of the second.
        confidence: Two-sided.
        starts: Of both arms, the pretraining of each seed; None where they are not known. Seeds of one
            pretraining are not independent of one another: where an arm has several pretrainings, each counts
            once, by the mean of its seeds. With one alone the interval tells nothing of another.

    Raises:
        StatisticsError: An arm without values, or one that is not finite.
    """
    sides = summarise_seeds(baseline), summarise_seeds(candidate)
    first, second = (
        summarise_seeds(_by_start(side.values, start)) for side, start in zip(sides, starts, strict=True)
    )
    difference = second.mean - first.mean
    low = high = None
    reason = ''
    if first.std is None or second.std is None:
        reason = 'an arm has one seed'
    elif first.std == second.std == 0:
        reason = 'all seeds of an arm agree to the last digit: the same run counted several times?'
    else:
        # By hand, as SciPy warns of seeds that agree to the last digit.
        variances = [side.std**2 / len(side.values) for side in (first, second)]
        freedom = sum(variances) ** 2 / sum(
            v**2 / (len(side.values) - 1) for v, side in zip(variances, (first, second), strict=True)
        )
        half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(sum(variances))
        low, high = difference - half, difference + half
    verdict = NO_DIFFERENCE if low is None else _verdict(low, high)
    return SeedComparison(*sides, difference, low, high, confidence, verdict, reason)


def _by_start(values: list[float], starts: Sequence[Hashable] | None) -> list[float]:
    """Average the seeds of each pretraining where there are several."""
    if starts is None or len(set(starts)) < 2:
        return values
    groups = {}
    for value, start in zip(values, starts, strict=True):
        groups.setdefault(start, []).append(value)
    return [float(np.mean(group)) for group in groups.values()]


# ---------------------------------------------------------------------------------------------- ranking


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the precision-recall curve, Σ (R_k − R_{k−1}) P_k over the distinct thresholds k.

    Args:
        scores: (N) floats.
        positive: (N) bool.

    Returns:
        Average precision in [0, 1]; nan without a positive.
    """
    if not positive.any():
        return math.nan
    order = np.argsort(-scores, kind='stable')
    scores, positive = scores[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of each run of equal scores
    hits = np.cumsum(positive)[last]
    recall_steps = np.diff(hits, prepend=0) / hits[-1]
    return float((recall_steps * hits / (last + 1)).sum())


# ------------------------------------------------------------------------------------------ calibration


@dataclass
class Calibration:
    """Expected calibration error and the bins of its reliability diagram.

    Attributes:
        error: Mean |accuracy - confidence| over bins, weighted by their counts, in [0, 1].
        counts: Predictions per bin.
        confidences: Mean confidence per bin; None in an empty bin.
        accuracies: Share of correct predictions per bin; None in an empty bin.
    """

    error: float
    counts: list[int]
    confidences: list[float | None]
    accuracies: list[float | None]


def calibration(confidences: Sequence[float], correct: Sequence[bool], bins: int = 15) -> Calibration:
    """Expected calibration error over equal-width bins (Guo et al., ICML 2017, eq. 3).

    Args:
        confidences: (N) probability given to the predicted class, in [0, 1].
        correct: (N) whether the prediction is right.
        bins: Bins over [0, 1], each closed on its right.

    Raises:
        StatisticsError: No predictions, unequal lengths, or confidences outside [0, 1] or nan.
    """
    confidences, correct = np.asarray(confidences, float), np.asarray(correct, bool)
    if confidences.shape != correct.shape or confidences.ndim != 1 or not confidences.size:
        raise StatisticsError(
            f'expected as many confidences as outcomes, got {confidences.shape} and {correct.shape}'
        )
    if not ((confidences >= 0) & (confidences <= 1)).all():  # False for nan
        raise StatisticsError('confidences must lie in [0, 1]; give probabilities, not logits')
    index = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    confidence_sums = np.bincount(index, confidences, bins)
    correct_sums = np.bincount(index, correct, bins)
    return Calibration(
        error=float(abs(confidence_sums - correct_sums).sum() / confidences.size),
        counts=counts.tolist(),
        confidences=[s / n if n else None for s, n in zip(confidence_sums.tolist(), counts.tolist())],
        accuracies=[s / n if n else None for s, n in zip(correct_sums.tolist(), counts.tolist())],
    )


def confusion(truth: Sequence[int], predicted: Sequence[int], classes: int) -> list[list[int]]:
    """Confusion matrix: rows the true class, columns the predicted one.

    Raises:
        StatisticsError: Unequal lengths, or a label outside 0..classes - 1.
    """
    truth, predicted = np.asarray(truth, int), np.asarray(predicted, int)
    if truth.shape != predicted.shape or not ((truth >= 0) & (truth < classes)).all():
        raise StatisticsError(f'expected one true label below {classes} per prediction')
    if not ((predicted >= 0) & (predicted < classes)).all():
        raise StatisticsError(f'expected predicted labels below {classes}')
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes).tolist()
