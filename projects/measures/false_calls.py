"""False calls on sound images and parts, with an interval clustered by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .bounds import ClusteredRate, clustered_rate
from .images import CRITICAL
from .matching import Matched


@dataclass
class FalseCalls:
    """False calls of one severity on sound images and parts.

    Attributes:
        threshold: Detections with a score at or above it count.
        label: Severity of the calls.
        per_image: Calls per inspected defect-free image, clustered by part.
        per_part: Calls per part over its views, for parts whose images are all defect-free and inspected;
            None where parts are unknown.
        parts_known: Whether every sound image names its part. If not, each image counts as its own part,
            which makes the interval too narrow.
    """

    threshold: float
    label: int
    per_image: ClusteredRate
    per_part: ClusteredRate | None
    parts_known: bool


def measure_false_calls(
    matched: Sequence[Matched], threshold: float, label: int = CRITICAL, confidence: float = 0.95
) -> FalseCalls:
    """Count false calls on sound images and parts.

    Args:
        matched: From `match_all`.
        threshold: Score threshold.
        label: Severity of the calls.
        confidence: Confidence level of the two-sided intervals.
    """
    sound = [m for m in matched if m.defect_free and m.image.refused is None]
    known = all(m.image.part is not None for m in sound)
    others = {str(m.image.part) for m in matched if not m.defect_free or m.image.refused is not None}
    calls: dict[str, int] = {}
    images: dict[str, int] = {}
    for number, m in enumerate(sound):
        part = str(m.image.part) if known else str(number)
        calls[part] = calls.get(part, 0) + int((m.false_alarm_scores(label) >= threshold).sum())
        images[part] = images.get(part, 0) + 1
    free = [part for part in calls if part not in others]
    return FalseCalls(
        threshold=float(threshold),
        label=label,
        per_image=clustered_rate(list(calls.values()), list(images.values()), confidence),
        per_part=clustered_rate([calls[part] for part in free], [1] * len(free), confidence)
        if known
        else None,
        parts_known=known,
    )
