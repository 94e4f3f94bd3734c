"""Measures of detection: recall, false alarms, FROC, precision and recall, average precision."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .matching import CRITICAL, NOT_FOUND, InspectedImage, Matched, MeasureError, _iou

# COCO's areas in px²: small, medium, large.
SIZES = {'small': (0, 32**2), 'medium': (32**2, 96**2), 'large': (96**2, math.inf)}


# --------------------------------------------------------------------------------------- at one threshold


@dataclass
class Found:
    """Defects of one kind at one threshold; `recall`, of their severity alone, is None without any."""

    defects: int
    found: int
    wrong_severity: int
    missed: int
    recall: float | None


@dataclass
class FalseAlarms:
    """False alarms of one severity per image: on all, defective and defect-free ones; None without such."""

    per_image: float | None
    per_defective_image: float | None
    per_defect_free_image: float | None


@dataclass
class DetectionMeasures:
    """What a detector does at one threshold.

    Attributes:
        threshold: Detections with a score at or above it count.
        rule: What a hit is, see `match`.
        images: Images in all.
        defect_free_images: Images without an annotation.
        escapes: Critical defects that are missed or called minor.
        by_severity: Per class.
        by_type: Per defect type, as annotated.
        by_size: Per class and COCO size.
        false_alarms: Per class of the detection.
        duplicates: Further detections of a defect that was found.
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
    """Count what is found, misnamed, missed and falsely reported at a threshold.

    Args:
        matched: From `match_all`.
        threshold: Of the score.
        classes: Names in label order, the critical one first.

    Raises:
        MeasureError: A label without a class.
    """
    labels = np.concatenate([m.image.truth_labels for m in matched])
    highest = max([*labels, *(label for m in matched for label in m.image.labels)], default=0)
    if highest >= len(classes):
        raise MeasureError(f'label {highest} has no name among the classes {tuple(classes)}')
    counted = ~np.concatenate([m.image.ignored for m in matched])
    types = np.array([kind for m in matched for kind in m.image.truth_types], object)
    areas = np.concatenate([m.image.truth_areas for m in matched])
    right = np.concatenate([m.right_scores for m in matched]) >= threshold
    wrong = ~right & (np.concatenate([m.wrong_scores for m in matched]) >= threshold)

    def found(which):
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
            int(((m.outcomes == 'duplicate') & (m.image.scores[m.kept] >= threshold)).sum()) for m in matched
        ),
    )


def count_false_alarms(matched: Sequence[Matched], threshold: float, label: int) -> FalseAlarms:
    """Count the detections of one severity at a threshold that fall on no defect of any severity."""

    def per_image(counts):
        return sum(counts) / len(counts) if counts else None

    counts = [int((m.false_alarm_scores(label) >= threshold).sum()) for m in matched]
    return FalseAlarms(
        per_image(counts),
        per_image([count for count, m in zip(counts, matched, strict=True) if not m.defect_free]),
        per_image([count for count, m in zip(counts, matched, strict=True) if m.defect_free]),
    )


# --------------------------------------------------------------------------------------------------- FROC


@dataclass
class Froc:
    """Recall against false alarms per image (free-response ROC) of one severity.

    Attributes:
        rule: What a hit is, see `match`.
        defects: Defects of that severity.
        images: Images that the false alarms are averaged over.
        thresholds: (T) falling scores at which recall changes.
        recall: (T) share of defects found with their severity.
        false_alarms: (T) false alarms of that severity per image.
        recall_at: Highest recall at no more than that many false alarms per image; None without defects.
        false_alarms_at: Fewest false alarms per image at that recall or more; None where it is not reached.
    """

    rule: str
    defects: int
    images: int
    thresholds: list[float]
    recall: list[float]
    false_alarms: list[float]
    recall_at: dict[float, float | None]
    false_alarms_at: dict[float, float | None]


def froc(
    matched: Sequence[Matched],
    label: int = CRITICAL,
    rates: Sequence[float] = (0.1, 0.5, 1.0),
    recalls: Sequence[float] = (0.8, 0.9, 0.95),
) -> Froc:
    """Trace the free-response ROC curve of one severity.

    A false alarm is a detection of that severity on no defect at all; one on a defect of another severity is
    its own column in `DetectionMeasures`.

    Args:
        matched: From `match_all`.
        label: The severity.
        rates: False alarms per image to read the recall at.
        recalls: Recalls to read the false alarms per image at.
    """
    scores, _ = _defect_scores(matched, label)
    alarms = np.sort(_alarm_scores(matched, label)[0])
    hits = np.sort(scores[scores > NOT_FOUND])
    thresholds = np.unique(hits)[::-1]
    recall = (hits.size - np.searchsorted(hits, thresholds)) / max(scores.size, 1)
    per_image = (alarms.size - np.searchsorted(alarms, thresholds)) / len(matched)

    def alarms_at(level):
        reached = np.flatnonzero(recall >= level)
        return float(per_image[reached[0]]) if reached.size else None

    everything = np.arange(len(matched))
    return Froc(
        rule=matched[0].rule,
        defects=int(scores.size),
        images=len(matched),
        thresholds=thresholds.tolist(),
        recall=recall.tolist(),
        false_alarms=per_image.tolist(),
        recall_at={limit: recall_at(matched, limit, label)(everything) for limit in rates},
        false_alarms_at={level: alarms_at(level) for level in recalls},
    )


def recall_at(
    matched: Sequence[Matched], limit: float, label: int = CRITICAL
) -> Callable[[np.ndarray], float | None]:
    """Return the recall at a number of false alarms per image as a function of the images drawn.

    For `statistics.compare`, which draws the same images many times; all else is computed once.

    Args:
        matched: From `match_all`.
        limit: Most false alarms per image.
        label: The severity.

    Returns:
        Function of positions in `matched` (N,) int, repeats allowed: recall, None without a defect.
    """
    scores, owners = _defect_scores(matched, label)
    alarms, alarm_owners = _alarm_scores(matched, label)
    order = np.argsort(-alarms, kind='stable')
    alarms, alarm_owners = alarms[order], alarm_owners[order]

    def measure(positions):
        draws = np.bincount(positions, minlength=len(matched))
        weights = draws[owners]
        if not weights.sum():
            return None
        # As many of the highest alarms as are allowed; what scores above the next one counts.
        # The allowance is a whole number of alarms but for rounding: 0.1 * 30 = 3.0000000000000004.
        allowed = math.floor(limit * len(positions) + 1e-9)
        count = np.searchsorted(np.cumsum(draws[alarm_owners]), allowed, side='right')
        bar = alarms[count] if count < alarms.size else NOT_FOUND
        return float(weights[scores > bar].sum() / weights.sum())

    return measure


def average_precision_at(
    images: Sequence[InspectedImage], label: int = CRITICAL, iou: float = 0.5, most: int = 100
) -> Callable[[np.ndarray], float | None]:
    """Return COCO's average precision of one class at one IoU as a function of the images drawn.

    As `recall_at`, for `statistics.compare`: boxes are matched once (by falling score, each with the best
    overlapping box that is free; ignored boxes take any number and cost nothing), and a draw only weights
    them. Precision is read at 101 recalls, as pycocotools does.

    Args:
        images: From `read_images`.
        label: The class.
        iou: Smallest intersection over union of a hit.
        most: Detections of an image and class that count.

    Returns:
        Function of positions in `images` (N,) int, repeats allowed: AP in [0, 1], None without a defect.
    """
    _, hits, owners, defects = _ranked(images, label, iou, most)

    def measure(positions):
        draws = np.bincount(positions, minlength=len(images))
        total = draws @ defects
        if not total:
            return None
        weights = draws[owners]
        found, reported = np.cumsum(weights * hits), np.cumsum(weights)
        precision = np.divide(found, reported, out=np.zeros(len(found)), where=reported > 0)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(found / total, np.linspace(0, 1, 101), side='left')
        return float(np.append(envelope, 0.0)[at].mean())

    return measure


def precision_recall(
    images: Sequence[InspectedImage], label: int = CRITICAL, iou: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision (N,) along the detections by falling score, matched as COCO does."""
    _, hits, _, defects = _ranked(images, label, iou, 100)
    found = np.cumsum(hits)
    return found / max(defects.sum(), 1), found / np.arange(1, len(hits) + 1)


def _ranked(images, label, iou, most):
    """Match one class as pycocotools does.

    Returns:
        Scores (N,) falling, whether each detection is a hit (N,), its image (N,), and defects per image.
    """
    scores, hits, owners, defects = [], [], [], np.zeros(len(images), int)
    # Equal scores rank by image id, as in COCO, wherever the file has the image.
    for position, image in sorted(enumerate(images), key=lambda pair: pair[1].image_id):
        mine = image.truth_labels == label
        free, ignored = mine & ~image.ignored, mine & image.ignored
        defects[position] = free.sum()
        chosen = np.flatnonzero(image.labels == label)
        chosen = chosen[np.argsort(-image.scores[chosen], kind='stable')][:most]
        overlap = _iou(image.boxes[chosen], image.truth_boxes)
        inside = _share_inside(image.boxes[chosen], image.truth_boxes)
        for k, detection in enumerate(chosen):
            candidates = np.flatnonzero(free & (overlap[k] >= iou))
            if candidates.size:
                # of equal overlaps the later box, as pycocotools
                free[candidates[::-1][np.argmax(overlap[k, candidates[::-1]])]] = False
            elif (ignored & (inside[k] >= iou)).any():
                continue
            scores.append(image.scores[detection])
            hits.append(bool(candidates.size))
            owners.append(position)
    order = np.argsort(-np.array(scores, float), kind='stable')
    ranked = (
        np.array(column, kind)[order] for column, kind in ((scores, float), (hits, bool), (owners, int))
    )
    return *ranked, defects


def _share_inside(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Share of each box (N, 4) that lies inside each box (M, 4), as (N, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    area = (first[:, 2:] - first[:, :2]).prod(1)[:, None]
    return np.divide(common, area, out=np.zeros_like(common), where=area > 0)


def _defect_scores(matched: Sequence[Matched], label: int) -> tuple[np.ndarray, np.ndarray]:
    """Score that found each defect of a severity, and the position of its image."""
    chosen = [m.right_scores[(m.image.truth_labels == label) & ~m.image.ignored] for m in matched]
    return np.concatenate(chosen), np.repeat(np.arange(len(matched)), [len(c) for c in chosen])


def _alarm_scores(matched: Sequence[Matched], label: int) -> tuple[np.ndarray, np.ndarray]:
    """Score of each false alarm of a severity, and the position of its image."""
    chosen = [m.false_alarm_scores(label) for m in matched]
    return np.concatenate(chosen), np.repeat(np.arange(len(matched)), [len(c) for c in chosen])
