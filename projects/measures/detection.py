"""Boxes at a threshold: found, of wrong severity, missed or false alarm, by class, type and size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .images import CRITICAL, Bools, MeasureError
from .matching import DUPLICATE, RULES, Matched

# COCO's areas in px²: small, medium, large.
SIZES = {'small': (0, 32**2), 'medium': (32**2, 96**2), 'large': (96**2, math.inf)}


@dataclass
class Found:
    """Defects of one kind at one threshold; `recall` counts the right severity only, None without defects."""

    defects: int
    found: int
    wrong_severity: int
    missed: int
    recall: float | None


@dataclass
class FalseAlarms:
    """False alarms of one severity per inspected image (all, defective, defect-free); None without images."""

    per_image: float | None
    per_defective_image: float | None
    per_defect_free_image: float | None


@dataclass
class DetectionMeasures:
    """Results of a detector at one threshold.

    Attributes:
        threshold: Detections with a score at or above it count.
        rule: Rule for a hit, see `matching.match`.
        images: All images; defects on refused images count as missed.
        defect_free_images: Images without an annotation.
        escapes: Critical defects that are missed or detected as minor.
        by_severity: Counts per class.
        by_type: Counts per annotated defect type.
        by_size: Counts per class and COCO size.
        false_alarms: False alarms per class of the detection.
        duplicates: Further detections of a defect that is already found.
    """

    threshold: float
    rule: str
    images: int
    defect_free_images: int
    escapes: int
    by_severity: dict[str, Found]
    by_type: dict[str, Found]
    by_size: dict[str, dict[str, Found]]
    false_alarms: dict[str, FalseAlarms]
    duplicates: int


def measure_detection(
    matched: Sequence[Matched], threshold: float, classes: Sequence[str]
) -> DetectionMeasures:
    """Count found defects, wrong severities, misses and false alarms at a threshold.

    Args:
        matched: From `match_all`.
        threshold: Score threshold.
        classes: Names in label order, the critical one first.

    Raises:
        MeasureError: A label without a class.
    """
    labels = np.concatenate([m.image.truth_labels for m in matched])
    highest = max(int(a.max(initial=0)) for a in (labels, *(m.image.labels for m in matched)))
    if highest >= len(classes):
        raise MeasureError(f'label {highest} has no name among the classes {tuple(classes)}')
    counted = ~np.concatenate([m.image.ignored for m in matched])
    types = np.array([kind for m in matched for kind in m.image.truth_types], object)
    areas = np.concatenate([m.image.truth_areas for m in matched])
    right = np.concatenate([m.right_scores for m in matched]) >= threshold
    wrong = ~right & (np.concatenate([m.wrong_scores for m in matched]) >= threshold)

    def found(which: Bools) -> Found:
        which = which & counted
        defects, hits, misnamed = int(which.sum()), int(right[which].sum()), int(wrong[which].sum())
        return Found(defects, hits, misnamed, defects - hits - misnamed, hits / defects if defects else None)

    by_severity = {name: found(labels == label) for label, name in enumerate(classes)}
    critical = by_severity[classes[CRITICAL]]
    return DetectionMeasures(
        threshold=float(threshold),
        rule=matched[0].rule,
        images=len(matched),
        defect_free_images=sum(m.defect_free for m in matched),
        escapes=critical.wrong_severity + critical.missed,
        by_severity=by_severity,
        by_type={kind: found(types == kind) for kind in sorted(set(types[counted]))},
        by_size={
            name: {
                size: found((labels == label) & (areas >= low) & (areas < high))
                for size, (low, high) in SIZES.items()
            }
            for label, name in enumerate(classes)
        },
        false_alarms={
            name: count_false_alarms(matched, threshold, label) for label, name in enumerate(classes)
        },
        duplicates=sum(
            int(((m.codes == DUPLICATE) & (m.image.scores[m.kept] >= threshold)).sum()) for m in matched
        ),
    )


def recall_by_rule(
    matched: Sequence[Matched], threshold: float, label: int = CRITICAL
) -> dict[str, float | None]:
    """Return the recall of a severity by each rule for a hit; None without a defect.

    Args:
        matched: From `match_all`.
        threshold: Score threshold.
        label: The severity.
    """
    counted = [(m.image.truth_labels == label) & ~m.image.ignored for m in matched]
    recalls: dict[str, float | None] = {}
    for rule in RULES:
        scores = np.concatenate([m.right_by_rule[rule][c] for m, c in zip(matched, counted, strict=True)])
        recalls[rule] = float((scores >= threshold).mean()) if scores.size else None
    return recalls


def count_false_alarms(matched: Sequence[Matched], threshold: float, label: int) -> FalseAlarms:
    """Count the detections of one severity at a threshold that fall on no defect of any severity.

    The mean leaves out refused images, since the detector did not run on them.
    """
    matched = [m for m in matched if m.image.refused is None]

    def per_image(counts: Sequence[int]) -> float | None:
        return sum(counts) / len(counts) if counts else None

    counts = [int((m.false_alarm_scores(label) >= threshold).sum()) for m in matched]
    return FalseAlarms(
        per_image(counts),
        per_image([count for count, m in zip(counts, matched, strict=True) if not m.defect_free]),
        per_image([count for count, m in zip(counts, matched, strict=True) if m.defect_free]),
    )
