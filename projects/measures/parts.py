"""Physical parts judged by their worst view: escapes and false rejects over the threshold."""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bounds import Rate, rate
from .images import CRITICAL, Bools, Floats, Ints, MeasureError
from .matching import NOT_FOUND, Matched


@dataclass
class Part:
    """One physical part over all its views.

    Attributes:
        part: Id of the part.
        views: Number of its images.
        truth: 'critical', 'minor' or 'defect-free', the worst of its views; 'ignored' with ignored boxes
            only.
        score: Highest score, in any view, of a detection that rejects the part; None without such a
            detection.
        hit_score: Highest score of a detection that found a critical defect of the part; None without one.
        refused: Whether a view was refused; then an inspector decides on the part, not the detector.
    """

    part: str
    views: int
    truth: str
    score: float | None
    hit_score: float | None
    refused: bool = False


@dataclass
class PartMeasures:
    """Decisions on parts at one threshold.

    On the line, an inspector decides on a part with a refused view, whatever the detector finds in the other
    views. Such a part counts against the detector in each rate, so that a bound holds for any decision of the
    inspector.

    Attributes:
        threshold: A part is rejected when its score is at or above it.
        escape: Critical parts that are not rejected, including those with a refused view.
        false_reject: Defect-free parts that are rejected or have a refused view; not estimable without such
            parts.
        minor_reject: Parts with only minor defects that are rejected or have a refused view.
        caught_elsewhere: Critical parts that are rejected although none of their critical defects was found.
        refused: Parts of any kind with a refused view.
        refused_critical: Critical parts with a refused view, which `escape` counts as escaped.
        refused_sound: Defect-free parts with a refused view, which `false_reject` counts as rejected.
        decided_escape: Escapes among the critical parts without a refused view.
        ignored: Parts with only ignored boxes (`iscrowd`), which are in no rate.
    """

    threshold: float
    escape: Rate
    false_reject: Rate
    minor_reject: Rate
    caught_elsewhere: int
    refused: Rate
    refused_critical: int
    refused_sound: int
    decided_escape: Rate
    ignored: int

    @property
    def caught(self) -> int:
        """Return the number of critical parts that are rejected, by any detection."""
        return self.escape.units - self.escape.events


@dataclass
class PartCurve:
    """Decisions on parts by threshold; between two thresholds, the values of the upper threshold hold.

    Parts with a refused view count as escapes and as rejects, as in `PartMeasures`.

    Attributes:
        thresholds: (T) rising: every score of a part, where a decision changes, and the requested thresholds.
        critical: Number of critical parts.
        escapes: (T) critical parts that are not rejected.
        escape: (T) share of escapes; None without critical parts.
        escape_upper: (T) one-sided Clopper-Pearson bounds; None without critical parts.
        defect_free: Number of defect-free parts.
        rejects: (T) defect-free parts that are rejected.
        false_reject: (T) share of rejects; None without defect-free parts.
        false_reject_upper: (T) one-sided Clopper-Pearson bounds; None without defect-free parts.
        confidence: Confidence level of each bound by itself.
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


def gather_parts(matched: Sequence[Matched], reject_minor: bool = False) -> list[Part]:
    """Group images by physical part, each judged by its worst view, by the rule of the line's runtime.

    The score of a part is the highest score of any critical detection. Suppression across severities does not
    apply: an overlapping detection of another severity does not let the part pass.

    Views are not independent: three views per part, counted as three parts, broke a 95 % bound in 14 % of
    simulated sets.

    Args:
        matched: From `match_all`.
        reject_minor: Policy for minor defects: True if a detection of any severity rejects the part, False if
            only a critical detection does.

    Raises:
        MeasureError: An image without a part id.
    """
    unknown = [m.image.image_id for m in matched if m.image.part is None]
    if unknown:
        raise MeasureError(
            f'parts not known: {len(unknown)} of {len(matched)} images have no part id, such as '
            f'{unknown[:3]}; escapes are counted per physical part: give every image its `part` '
            '(convert_dataset.py --group)'
        )
    views: dict[str, list[Matched]] = {}
    for m in matched:
        views.setdefault(str(m.image.part), []).append(m)
    parts = []
    for name, members in views.items():
        critical = [(m.image.truth_labels == CRITICAL) & ~m.image.ignored for m in members]
        others = [(m.image.truth_labels != CRITICAL) & ~m.image.ignored for m in members]
        sound = 'defect-free' if all(m.defect_free for m in members) else 'ignored'
        truth = 'critical' if _any(critical) else 'minor' if _any(others) else sound
        scores = [m.image.scores[reject_minor | (m.image.labels == CRITICAL)] for m in members]
        hit_scores = [m.right_scores[c] for m, c in zip(members, critical, strict=True)]
        refused = any(m.image.refused is not None for m in members)
        parts.append(Part(name, len(members), truth, _highest(scores), _highest(hit_scores), refused))
    return parts


def _any(masks: Sequence[Bools]) -> bool:
    return any(mask.any() for mask in masks)


def _highest(scores: Sequence[Floats]) -> float | None:
    highest = max((float(s.max(initial=NOT_FOUND)) for s in scores), default=NOT_FOUND)
    return None if highest == NOT_FOUND else highest


def measure_parts(parts: Sequence[Part], threshold: float, confidence: float = 0.95) -> PartMeasures:
    """Count escapes and false rejects of parts at a threshold, with one-sided upper bounds."""

    def rejected(truth: str) -> tuple[int, int]:
        (count,), units = _rejected(parts, truth, [threshold])
        return int(count), units

    caught, critical = rejected('critical')
    refused = [part.truth for part in parts if part.refused]
    left = refused.count('critical')
    return PartMeasures(
        threshold=float(threshold),
        escape=rate(critical - caught, critical, confidence),
        false_reject=rate(*rejected('defect-free'), confidence),
        minor_reject=rate(*rejected('minor'), confidence),
        caught_elsewhere=sum(
            part.truth == 'critical'
            and not part.refused
            and part.score is not None
            and part.score >= threshold
            and (part.hit_score is None or part.hit_score < threshold)
            for part in parts
        ),
        refused=rate(len(refused), len(parts), confidence),
        refused_critical=left,
        refused_sound=refused.count('defect-free'),
        decided_escape=rate(critical - caught - left, critical - left, confidence),
        ignored=sum(part.truth == 'ignored' for part in parts),
    )


def part_curve(parts: Sequence[Part], also: Sequence[float] = (), confidence: float = 0.95) -> PartCurve:
    """Count escapes and false rejects of parts at every threshold, with one-sided upper bounds.

    Args:
        parts: From `gather_parts`.
        also: Further thresholds, such as the operating point.
        confidence: Confidence level of each bound.
    """
    scores = [part.score for part in parts if part.score is not None and not part.refused]
    thresholds = np.unique([*scores, *also])  # rising, each once
    caught, critical = _rejected(parts, 'critical', thresholds)
    rejects, defect_free = _rejected(parts, 'defect-free', thresholds)
    escapes = critical - caught

    def share(events: Ints, units: int) -> list[float] | None:
        return (events / units).tolist() if units else None

    def upper(events: Ints, units: int) -> list[float] | None:
        bounds = {int(n): rate(int(n), units, confidence).upper for n in np.unique(events)}
        return [bound for n in events if (bound := bounds[int(n)]) is not None] if units else None

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


def _rejected(parts: Sequence[Part], truth: str, thresholds: Sequence[float] | Floats) -> tuple[Ints, int]:
    """Return the number of rejected parts of one kind at each threshold, and of all parts of this kind."""
    scores = sorted_scores(parts, truth)
    return scores.size - np.searchsorted(scores, thresholds), scores.size


def sorted_scores(parts: Sequence[Part], truth: str) -> Floats:
    """Return the rising scores (N) of the parts of one kind; -inf without a detection that rejects.

    A part with a refused view gets the score that counts against the detector at every threshold: -inf for a
    critical part, inf for any other.
    """
    against = NOT_FOUND if truth == 'critical' else -NOT_FOUND

    def score(part: Part) -> float:
        return against if part.refused else NOT_FOUND if part.score is None else part.score

    return np.sort([score(part) for part in parts if part.truth == truth])


def floored(threshold: float) -> str:
    """Write a threshold with four digits, rounded down, since a higher value would let a part escape."""
    context = decimal.Context(prec=4, rounding=decimal.ROUND_FLOOR)
    return f'{context.create_decimal(repr(float(threshold))):f}'
