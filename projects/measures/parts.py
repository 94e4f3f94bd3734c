"""Measures of parts: escapes, false rejects and the threshold between them."""

import decimal
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bounds import Rate, allowed_events, parts_needed, rate
from .matching import CRITICAL, NOT_FOUND, Matched, MeasureError

# -------------------------------------------------------------------------------------------------- parts


@dataclass
class Part:
    """One physical part over all its views.

    Attributes:
        part: Its id.
        views: Images of it.
        truth: 'critical', 'minor' or 'defect-free', the worst of its views; 'ignored' with such boxes alone.
        score: Highest score, in any view, of a detection that rejects the part; None without one.
        hit_score: Highest score of a detection that found one of its critical defects; None without one.
    """

    part: str
    views: int
    truth: str
    score: float | None
    hit_score: float | None


@dataclass
class PartMeasures:
    """Decisions on parts at one threshold.

    Attributes:
        threshold: A part is rejected when its score is at or above it.
        escape: Critical parts that are not rejected.
        false_reject: Defect-free parts that are rejected; not estimable without such parts.
        minor_reject: Parts with minor defects only that are rejected.
        caught_elsewhere: Critical parts that are rejected although none of their critical defects was found.
    """

    threshold: float
    escape: Rate
    false_reject: Rate
    minor_reject: Rate
    caught_elsewhere: int


@dataclass
class PartCurve:
    """Decisions on parts over the threshold; between two of its thresholds those of the upper one hold.

    Attributes:
        thresholds: (T) rising: every score of a part, where a decision changes, and those asked for.
        critical: Critical parts.
        escapes: (T) of them that are not rejected.
        escape: (T) their share; None without critical parts.
        escape_upper: (T) one-sided Clopper-Pearson bounds; None without critical parts.
        defect_free: Defect-free parts.
        rejects: (T) of them that are rejected.
        false_reject: (T) their share; None without such parts.
        false_reject_upper: (T) one-sided Clopper-Pearson bounds; None without such parts.
        confidence: Of each bound; not of all of them at once.
    """

    thresholds: list[float]
    critical: int
    escapes: list[int]
    escape: list[float] | None
    escape_upper: list[float] | None
    defect_free: int
    rejects: list[int]
    false_reject: list[float] | None
    false_reject_upper: list[float] | None
    confidence: float


@dataclass
class OperatingPoint:
    """Whether, and at which threshold, the critical escape rate is proven.

    Attributes:
        max_escape: The rate to prove.
        confidence: Of the proof, one-sided.
        proven: Whether the parts prove it, which those that chose the model cannot.
        threshold: The highest that proves it, or the one given; None if no threshold does.
        measures: Decisions there; None without a threshold.
        parts_needed: Critical parts that the proof takes with as many escapes; None when it is proven or no
            number would do.
        statement: The result in a sentence.
    """

    max_escape: float
    confidence: float
    proven: bool
    threshold: float | None
    measures: PartMeasures | None
    parts_needed: int | None
    statement: str


def gather_parts(matched: Sequence[Matched], reject_minor: bool = False) -> list[Part]:
    """Gather images into physical parts, each judged by its worst view.

    Views are not independent: three a part, counted as three parts, broke a 95 % bound in 14 % of simulated
    sets.

    Args:
        matched: From `match_all`.
        reject_minor: The policy for minor defects: whether a detection of any severity rejects the part, or
            a critical one alone.

    Raises:
        MeasureError: An image without a part id.
    """
    unknown = [m.image.image_id for m in matched if m.image.part is None]
    if unknown:
        raise MeasureError(
            f'{len(unknown)} of {len(matched)} images have no part id, such as {unknown[:3]}; escapes are '
            'counted per physical part: give every image its `part` (convert_dataset.py --group)'
        )
    views = {}
    for m in matched:
        views.setdefault(str(m.image.part), []).append(m)
    parts = []
    for name, members in views.items():
        critical = [(m.image.truth_labels == CRITICAL) & ~m.image.ignored for m in members]
        others = [(m.image.truth_labels != CRITICAL) & ~m.image.ignored for m in members]
        sound = 'defect-free' if all(m.defect_free for m in members) else 'ignored'
        truth = 'critical' if _any(critical) else 'minor' if _any(others) else sound
        scores = [
            m.image.scores[m.kept][reject_minor | (m.image.labels[m.kept] == CRITICAL)] for m in members
        ]
        hit_scores = [m.right_scores[c] for m, c in zip(members, critical, strict=True)]
        parts.append(Part(name, len(members), truth, _highest(scores), _highest(hit_scores)))
    return parts


def _any(masks: Sequence[np.ndarray]) -> bool:
    return any(mask.any() for mask in masks)


def _highest(scores: Sequence[np.ndarray]) -> float | None:
    highest = max((s.max(initial=NOT_FOUND) for s in scores), default=NOT_FOUND)
    return None if highest == NOT_FOUND else float(highest)


def measure_parts(parts: Sequence[Part], threshold: float, confidence: float = 0.95) -> PartMeasures:
    """Count escapes and false rejects of parts at a threshold, with one-sided upper bounds."""

    def rejected(truth):
        (count,), units = _rejected(parts, truth, [threshold])
        return int(count), units

    caught, critical = rejected('critical')
    return PartMeasures(
        threshold=float(threshold),
        escape=rate(critical - caught, critical, confidence),
        false_reject=rate(*rejected('defect-free'), confidence),
        minor_reject=rate(*rejected('minor'), confidence),
        caught_elsewhere=sum(
            part.truth == 'critical'
            and part.score is not None
            and part.score >= threshold
            and (part.hit_score is None or part.hit_score < threshold)
            for part in parts
        ),
    )


def part_curve(parts: Sequence[Part], also: Sequence[float] = (), confidence: float = 0.95) -> PartCurve:
    """Count escapes and false rejects of parts at every threshold, with one-sided upper bounds.

    Args:
        parts: From `gather_parts`.
        also: Further thresholds, such as the operating point.
        confidence: Of each bound.
    """
    scores = [part.score for part in parts if part.score is not None]
    thresholds = np.unique([*scores, *also])  # rising, each once
    caught, critical = _rejected(parts, 'critical', thresholds)
    rejects, defect_free = _rejected(parts, 'defect-free', thresholds)
    escapes = critical - caught

    def share(events, units):
        return (events / units).tolist() if units else None

    def upper(events, units):
        bounds = {int(n): rate(int(n), units, confidence).upper for n in np.unique(events)}
        return [bounds[int(n)] for n in events] if units else None

    return PartCurve(
        thresholds=thresholds.tolist(),
        critical=critical,
        escapes=escapes.tolist(),
        escape=share(escapes, critical),
        escape_upper=upper(escapes, critical),
        defect_free=defect_free,
        rejects=rejects.tolist(),
        false_reject=share(rejects, defect_free),
        false_reject_upper=upper(rejects, defect_free),
        confidence=confidence,
    )


def _rejected(parts: Sequence[Part], truth: str, thresholds: Sequence[float]) -> tuple[np.ndarray, int]:
    """Count the parts of one kind that are rejected at each threshold, and all parts of that kind."""
    of_kind = [part.score for part in parts if part.truth == truth]
    scores = np.sort([NOT_FOUND if score is None else score for score in of_kind])
    return scores.size - np.searchsorted(scores, thresholds), scores.size


def operating_point(
    parts: Sequence[Part],
    max_escape: float,
    confidence: float = 0.95,
    threshold: float | None = None,
    of: str = 'test',
) -> OperatingPoint:
    """Find the highest threshold that proves a critical escape rate, or judge a given one.

    The proof is a one-sided Clopper-Pearson bound over physical parts. It holds for one model, fixed on val
    before test is opened; the best of several models on these parts would break it, so that of another set
    than test it is called an estimate. Choosing the threshold here keeps the promise, as escapes can only
    rise with it.

    Args:
        parts: From `gather_parts`.
        max_escape: The escape rate to prove, in (0, 1).
        confidence: One-sided.
        threshold: To judge; default, choose.
        of: The set that the parts are of. Those of another than 'test' are said to have chosen the model.

    Raises:
        StatisticsError: `max_escape` is not in (0, 1).
    """
    goal = f'critical escape <= {max_escape:.3g} with {confidence:.0%} confidence'
    scores = sorted(NOT_FOUND if p.score is None else p.score for p in parts if p.truth == 'critical')
    least = parts_needed(max_escape, 0, confidence)
    allowed = allowed_events(len(scores), max_escape, confidence)
    chosen, blind, proof = threshold, scores.count(NOT_FOUND), of == 'test'
    rest = ''
    if blind:
        rest += (
            f' {blind} of {len(scores)} critical parts have no detection that rejects them, at any threshold.'
        )
    if not proof:
        rest += (
            f' The {of} parts also chose the model, so what they say is an estimate: prove it on test '
            'parts (tools/test.py --val, tools/report.py).'
        )

    def needed(escapes):
        hopeless = escapes and escapes >= max_escape * len(scores)  # more parts would bring more escapes
        return None if hopeless else parts_needed(max_escape, escapes, confidence)

    if allowed < 0:
        statement = (
            f'The {of} set is too small to prove {goal}: it has {len(scores)} critical parts, and without '
            f'a single escape it takes {least}.'
        )
        measures = None if threshold is None else measure_parts(parts, threshold, confidence)
        escapes = measures.escape.events if measures else 0
        if measures and scores:
            statement += f' Escaped at score >= {floored(threshold)}: {measures.escape}.'
        if escapes and needed(escapes):
            statement += f' With as many escapes it takes {needed(escapes)} critical parts.'
        statement += rest
        return OperatingPoint(max_escape, confidence, False, threshold, measures, needed(escapes), statement)
    if threshold is None:
        # `allowed` of the lowest scores may escape, so the next one has to be rejected
        if scores[allowed] == NOT_FOUND:
            statement = (
                f'No threshold meets {goal}: {allowed} of {len(scores)} critical parts may escape.{rest}'
            )
            return OperatingPoint(max_escape, confidence, False, None, None, None, statement)
        chosen = scores[allowed]
    measures = measure_parts(parts, chosen, confidence)
    escapes = measures.escape.events
    if escapes <= allowed:
        word = 'Proven' if proof else 'Estimated'
        statement = f'{word}: {goal} at score >= {floored(chosen)}; escaped: {measures.escape}.{rest}'
        return OperatingPoint(max_escape, confidence, proof, chosen, measures, None, statement)
    statement = f'Not proven: {goal} at score >= {floored(chosen)}; escaped: {measures.escape}.'
    if needed(escapes):
        statement += f' With as many escapes it takes {needed(escapes)} critical parts.'
    statement += rest
    return OperatingPoint(max_escape, confidence, False, chosen, measures, needed(escapes), statement)


def floored(threshold: float) -> str:
    """Write a threshold with four digits, rounded down: rounded up, it would let a part escape."""
    context = decimal.Context(prec=4, rounding=decimal.ROUND_FLOOR)
    return f'{context.create_decimal(repr(float(threshold))):f}'
