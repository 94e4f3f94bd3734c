"""The threshold of parts, chosen on val with the power of its proof, and its proof on test parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .bounds import allowed_events, parts_needed, proof_power
from .images import Floats
from .matching import NOT_FOUND
from .parts import Part, PartMeasures, floored, measure_parts, sorted_scores

POWER = 0.9  # predictive probability of the proof that a threshold should have
MOST_ALLOWED = 400  # largest number of escapes in the search for the size of a test set


@dataclass
class ThresholdChoice:
    """A threshold of parts, fixed on parts outside the test set.

    Attributes:
        max_escape: The escape rate to prove.
        confidence: Confidence level of the proof, one-sided.
        threshold: Score threshold; None if no critical part has a score.
        measures: Decisions at the threshold on the parts that chose it; None without a threshold.
        test_parts: Critical parts of the test set for which `power` holds.
        power: Predictive probability that these parts prove the rate.
        wanted: The requested power.
        test_parts_needed: Smallest number of critical test parts with the requested power at the lowest
            threshold; None if no number has it.
        parts_needed: Smallest number of critical parts, in each of the two sets, with the requested power,
            for the same number of parts that no threshold catches; None if no reasonable number has it.
        statement: The choice in plain words.
    """

    max_escape: float
    confidence: float
    threshold: float | None
    measures: PartMeasures | None
    test_parts: int
    power: float
    wanted: float
    test_parts_needed: int | None
    parts_needed: int | None
    statement: str


def choose_threshold(
    parts: Sequence[Part],
    max_escape: float,
    test_parts: int | None = None,
    confidence: float = 0.95,
    wanted: float = POWER,
    of: str = 'val',
) -> ThresholdChoice:
    """Choose the highest threshold with the wanted predictive probability of a proof on the test set.

    With "the highest threshold that proves the rate on val", a proof on the same number of test parts would
    be a coin flip: the true rate is within the limit in 95 % of cases, but half of the test sets have more
    escapes than val. If no threshold has the wanted power, the lowest score of a critical part is taken,
    which has the most power.

    Args:
        parts: From `gather_parts`, of the set that fixes the threshold.
        max_escape: The escape rate to prove, in (0, 1).
        test_parts: Critical parts of the test set; default, as many as in `parts`.
        confidence: Confidence level of the proof, one-sided.
        wanted: Predictive probability of the proof.
        of: Name of the set of `parts`.

    Raises:
        StatisticsError: `max_escape` is not in (0, 1).
    """
    parts_needed(max_escape, 0, confidence)  # refuses a rate outside (0, 1)
    scores = sorted_scores(parts, 'critical')
    critical = scores.size
    test_parts = critical if test_parts is None else test_parts
    thresholds = np.unique(scores[scores > NOT_FOUND])
    blind = int((scores == NOT_FOUND).sum())
    needs = _needed(blind, critical, max_escape, confidence, wanted) if thresholds.size else (None, None)
    if not thresholds.size:
        statement = (
            f'no critical part of {of} has a score, so no threshold can be chosen ({critical} critical parts)'
        )
        return ThresholdChoice(
            max_escape, confidence, None, None, test_parts, 0.0, wanted, None, None, statement
        )
    chosen = _highest_with_power(scores, thresholds, test_parts, max_escape, confidence, wanted)
    # Rounded down to four digits, as in an export: rounded up, the part with this score would escape.
    chosen = math.floor(chosen * 1e4) / 1e4
    measures = measure_parts(parts, chosen, confidence)
    power = proof_power(measures.escape.events, critical, test_parts, max_escape, confidence)
    choice = ThresholdChoice(
        max_escape, confidence, chosen, measures, test_parts, power, wanted, *needs, statement=''
    )
    choice.statement = _describe_choice(choice, of)
    return choice


def _highest_with_power(
    scores: Floats, thresholds: Floats, test_parts: int, max_escape: float, confidence: float, wanted: float
) -> float:
    """Return the highest of the rising thresholds with the wanted power, else the lowest."""
    chosen = thresholds[0]
    for threshold in thresholds:
        escapes = int(np.searchsorted(scores, threshold))
        if proof_power(escapes, scores.size, test_parts, max_escape, confidence) < wanted:
            break  # a higher threshold has more escapes and less power
        chosen = threshold
    return float(chosen)


def _needed(
    blind: int, critical: int, max_escape: float, confidence: float, wanted: float
) -> tuple[int | None, int | None]:
    """Return the test parts with the wanted power at the lowest threshold, and the parts in each set."""
    # With any number of test parts, the power cannot exceed the chance that the rate is within the limit.
    reachable = blind < critical and stats.beta.cdf(max_escape, blind + 1, critical - blind) > wanted
    test: int | None = None
    either: int | None = None
    for allowed in range(MOST_ALLOWED):
        if test is not None and either is not None:
            break
        units = parts_needed(max_escape, allowed, confidence)
        if (
            reachable
            and test is None
            and proof_power(blind, critical, units, max_escape, confidence) >= wanted
        ):
            test = units
        if either is None and proof_power(blind, units, units, max_escape, confidence) >= wanted:
            either = units
        if test is None and not reachable and either is not None:
            break
    return test, either


def _describe_choice(choice: ThresholdChoice, of: str) -> str:
    measures, threshold = choice.measures, choice.threshold
    assert measures is not None and threshold is not None
    words = (
        f'score >= {floored(threshold)}, chosen on {measures.escape.units} critical parts of {of}, of which '
        f'{measures.escape.events} escape there; {choice.test_parts} critical test parts prove '
        f'{_goal(choice.max_escape, choice.confidence)} with a probability of {_percent(choice.power)}'
    )
    if choice.power < choice.wanted:
        words += f', less than {choice.wanted:.0%}: the lowest score of a critical part was taken'
        if choice.test_parts_needed is not None:
            words += f'; {choice.test_parts_needed} critical test parts give {choice.wanted:.0%}'
        elif choice.parts_needed is not None:
            words += (
                f'; no number of test parts gives {choice.wanted:.0%}, {choice.parts_needed} critical parts '
                f'in each of {of} and test do'
            )
    return f'{words}. Sound parts of {of} rejected there: {measures.false_reject}.'


def _percent(probability: float) -> str:
    """Write a probability rounded down, so that the text does not promise more."""
    return f'{int(1000 * probability + 1e-9) / 10:.1f} %'


def _goal(max_escape: float, confidence: float) -> str:
    return f'critical escape <= {max_escape:.3g} with {confidence:.0%} confidence'


# ------------------------------------------------------------------------------------------------- proof


@dataclass
class OperatingPoint:
    """Whether parts prove the critical escape rate at a threshold that was fixed before.

    Attributes:
        max_escape: The rate to prove.
        confidence: Confidence level of the proof, one-sided.
        proven: Whether the parts prove the rate; parts that chose the model cannot.
        reason: Reason for a missing proof: 'too few parts', 'too many escapes', 'refused' (too many parts
            count as escapes because of a refused view), 'luck' (most rejections of critical parts are by
            another detection alone), 'all rejected' (every sound part is) or 'estimate'; empty with a proof.
        threshold: The judged threshold.
        measures: Decisions at the threshold.
        parts_needed: Critical parts that the proof needs with the same number of escapes; None if there are
            enough, or if no number is enough.
        statement: The result in a sentence: escapes and rejected sound parts, both with their bounds.
    """

    max_escape: float
    confidence: float
    proven: bool
    reason: str
    threshold: float
    measures: PartMeasures
    parts_needed: int | None
    statement: str


def judge_parts(
    parts: Sequence[Part],
    max_escape: float,
    threshold: float,
    confidence: float = 0.95,
    of: str = 'test',
) -> OperatingPoint:
    """Judge whether parts prove a critical escape rate at a threshold.

    The proof is a one-sided Clopper-Pearson bound over physical parts. It holds for one model and one
    threshold, both fixed on val before test is opened. The bound does not hold on parts that also chose the
    model, so the result on any other set than test is an estimate. If a detector rejects every sound part, or
    rejects most critical parts by a detection elsewhere on the part, there is no proof.

    Args:
        parts: From `gather_parts`.
        max_escape: The escape rate to prove, in (0, 1).
        threshold: Threshold to judge.
        confidence: Confidence level, one-sided.
        of: Name of the set of parts. For any set except 'test', the statement says that it chose the model.

    Raises:
        StatisticsError: `max_escape` is not in (0, 1).
    """
    measures = measure_parts(parts, threshold, confidence)
    escapes, critical = measures.escape.events, measures.escape.units
    allowed = allowed_events(critical, max_escape, confidence) if critical else -1
    least = parts_needed(max_escape, 0, confidence)
    needed = None
    if escapes > allowed and not (escapes and escapes >= max_escape * critical):
        needed = parts_needed(max_escape, escapes, confidence)  # else more parts would bring more escapes
    reason = _why_not(measures, allowed, max_escape, of)
    goal = _goal(max_escape, confidence)
    at = f'at score >= {floored(threshold)}'
    start = {
        '': f'Proven: {goal} {at}',
        'estimate': f'Estimated: {goal} {at}',
        'too few parts': (
            f'Not proven: {goal} {at}: the {of} set has {critical} critical parts, and without a single '
            f'escape it takes {least}'
        ),
        'too many escapes': f'Not proven: {goal} {at}',
        'refused': (
            f'Not proven: {goal} {at}, as critical parts with a refused view count as escaped; the others '
            'alone would prove it'
        ),
        'luck': f'No proof: most critical parts rejected {at} are rejected by another detection alone',
        'all rejected': f'No proof: every sound part is rejected {at}',
    }[reason]
    statement = f'{start}; {describe_parts(measures)}.'
    if escapes and needed:
        statement += f' With as many escapes it takes {needed} critical parts.'
    blind = int((sorted_scores(parts, 'critical') == NOT_FOUND).sum()) - measures.refused_critical
    if blind:
        statement += (
            f' {blind} of {critical} critical parts have no detection that rejects them, at any threshold.'
        )
    if of != 'test':
        statement += (
            f' The {of} parts also chose the model, so what they say is an estimate: prove it on test parts '
            '(tools/test.py --val, tools/report.py).'
        )
    return OperatingPoint(
        max_escape, confidence, not reason, reason, float(threshold), measures, needed, statement
    )


def _why_not(measures: PartMeasures, allowed: int, max_escape: float, of: str) -> str:
    if allowed < 0:
        return 'too few parts'
    if measures.escape.events > allowed:
        decided = measures.decided_escape
        alone = decided.upper is not None and decided.upper <= max_escape
        return 'refused' if alone else 'too many escapes'
    if 2 * measures.caught_elsewhere > measures.caught:
        return 'luck'
    if measures.false_reject.units and measures.false_reject.events == measures.false_reject.units:
        return 'all rejected'
    return '' if of == 'test' else 'estimate'


def describe_parts(measures: PartMeasures) -> str:
    """Describe both rates of parts with their bounds, the share of luck, and the count of refused parts."""
    words = f'escaped: {measures.escape}; sound parts rejected: {measures.false_reject}'
    if measures.caught:
        share = measures.caught_elsewhere / measures.caught
        words += (
            f'. {measures.caught_elsewhere} of {measures.caught} rejections of critical parts ({share:.0%}) '
            'are by another detection alone'
        )
    if measures.refused.events:
        words += (
            f'. Parts with a refused view, on which an inspector decides: {measures.refused}; both rates '
            f'count them against the detector ({measures.refused_critical} critical as escaped, '
            f'{measures.refused_sound} sound as rejected). Escaped of the critical parts without a refused '
            f'view: {measures.decided_escape}'
        )
    if measures.ignored:
        words += f'. Parts with ignored boxes (iscrowd) alone, which are in neither rate: {measures.ignored}'
    return words
