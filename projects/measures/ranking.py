"""Measures of ranked detections as functions of the images drawn: FROC, recall, average precision.

The comparison of two arms draws images and swaps outputs part by part. So a measure takes the images of both
arms one after the other, and returns its value for any positions among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .images import CRITICAL, Bools, Floats, InspectedImage, Ints
from .matching import NOT_FOUND, Matched, box_iou, share_inside

Measure = Callable[[Ints], float | None]
RECALLS = np.linspace(0, 1, 101)  # recalls at which COCO reads precision


@dataclass
class Froc:
    """Recall against false alarms per image (free-response ROC) of one severity.

    Attributes:
        rule: Rule for a hit, see `matching.match`.
        defects: Number of defects of this severity.
        images: Number of inspected images, over which false alarms are averaged.
        thresholds: (T) falling scores at which recall changes.
        recall: (T) share of defects found with the right severity.
        false_alarms: (T) false alarms of this severity per image.
        recall_at: Highest recall by limit of false alarms per image; None without defects.
        false_alarms_at: Fewest false alarms per image by lowest recall; None if the recall is not reached.
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

    A false alarm is a detection of this severity on no defect. `DetectionMeasures` counts detections on a
    defect of another severity separately.

    Args:
        matched: From `match_all`.
        label: The severity.
        rates: False alarms per image at which the recall is read.
        recalls: Recalls at which the false alarms per image are read.
    """
    scores, _ = _defect_scores(matched, label)
    alarms = np.sort(_alarm_scores(matched, label)[0])
    hits = np.sort(scores[scores > NOT_FOUND])
    thresholds = np.unique(hits)[::-1]
    recall = (hits.size - np.searchsorted(hits, thresholds)) / max(scores.size, 1)
    images = int(_inspected(matched).sum())
    per_image = (alarms.size - np.searchsorted(alarms, thresholds)) / max(images, 1)

    def alarms_at(level: float) -> float | None:
        reached = np.flatnonzero(recall >= level)
        return float(per_image[reached[0]]) if reached.size else None

    everything = np.arange(len(matched))
    return Froc(
        rule=matched[0].rule,
        defects=int(scores.size),
        images=images,
        thresholds=thresholds.tolist(),
        recall=recall.tolist(),
        false_alarms=per_image.tolist(),
        recall_at={limit: recall_at(matched, limit, label)(everything) for limit in rates},
        false_alarms_at={level: alarms_at(level) for level in recalls},
    )


def recall_at(matched: Sequence[Matched], limit: float, label: int = CRITICAL, arms: int = 1) -> Measure:
    """Return the recall at a number of false alarms per image as a function of the drawn images.

    `comparison.compare` draws the same images many times, so everything else is computed once.

    Args:
        matched: From `match_all`, of all arms one after the other.
        limit: Largest number of false alarms per image.
        label: The severity.
        arms: Number of arms. With several arms, ranks within each arm replace the scores, so that models with
            different score scales can be mixed. The ranks do not change the recall of any arm.

    Returns:
        Function of positions in `matched` (N,) int, repeats allowed: recall, None without a defect.
    """
    scores, owners = _defect_scores(matched, label)
    alarms, alarm_owners = _alarm_scores(matched, label)
    if arms > 1:
        everything = np.concatenate([scores, alarms])
        arm = np.concatenate([owners, alarm_owners]) * arms // len(matched)
        ranked = _rank_within(everything, arm)
        ranked[everything == NOT_FOUND] = NOT_FOUND
        scores, alarms = ranked[: scores.size], ranked[scores.size :]
    order = np.argsort(-alarms, kind='stable')
    alarms, alarm_owners = alarms[order], alarm_owners[order]
    inspected = _inspected(matched)

    def measure(positions: Ints) -> float | None:
        draws = np.bincount(positions, minlength=len(matched))
        weights = draws[owners]
        if not weights.sum():
            return None
        # Defects count if they score above the first alarm beyond the allowed number.
        # The allowed number is an integer apart from rounding: 0.1 * 30 = 3.0000000000000004.
        allowed = math.floor(limit * int(draws @ inspected) + 1e-9)
        count = np.searchsorted(np.cumsum(draws[alarm_owners]), allowed, side='right')
        bar = alarms[count] if count < alarms.size else NOT_FOUND
        return float(weights[scores > bar].sum() / weights.sum())

    return measure


def average_precision_at(
    images: Sequence[InspectedImage], label: int = CRITICAL, iou: float = 0.5, most: int = 100
) -> Measure:
    """Return COCO's average precision of one class at one IoU as a function of the drawn images.

    Like `recall_at`, it serves `comparison.compare`: boxes are matched once, and a draw only changes their
    weights. By falling score, each detection takes the free box with the best overlap. Detections on ignored
    boxes do not count. Precision is read at 101 recalls, as in pycocotools.

    Args:
        images: From `read_images`, of one arm, or of two arms one after the other.
        label: The class.
        iou: Smallest intersection over union of a hit.
        most: Largest number of detections per image and class.

    Returns:
        Function of positions in `images` (N,) int, repeats allowed: AP in [0, 1], None without a defect.
    """
    _, hits, owners, defects = _ranked(images, label, iou, most)
    # Precision peaks at the hits: between two hits only the number of detections matters.
    at_hits = np.flatnonzero(hits)
    owners = owners[: at_hits[-1] + 1] if at_hits.size else owners[:0]
    starts = np.concatenate([[0], at_hits[:-1] + 1]).astype(int) if at_hits.size else at_hits

    def measure(positions: Ints) -> float | None:
        draws = np.bincount(positions, minlength=len(images))
        total = draws @ defects
        if not total:
            return None
        if not at_hits.size:
            return 0.0
        weights = draws[owners]
        found = np.cumsum(weights[at_hits])
        reported = np.cumsum(np.add.reduceat(weights, starts))
        precision = np.divide(found, reported, out=np.zeros(len(found)), where=reported > 0)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(found / total, RECALLS, side='left')
        return float(np.append(envelope, 0.0)[at].mean())

    return measure


def precision_recall(
    images: Sequence[InspectedImage], label: int = CRITICAL, iou: float = 0.5
) -> tuple[Floats, Floats]:
    """Return recall and precision (N,) along the detections by falling score, matched as in COCO."""
    _, hits, _, defects = _ranked(images, label, iou, 100)
    found = np.cumsum(hits)
    return found / max(defects.sum(), 1), found / np.arange(1, len(hits) + 1)


def average_precision(scores: Floats, positive: Bools) -> float:
    """Return the area under the precision-recall curve, Σ (R_k − R_{k−1}) P_k over the distinct thresholds k.

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
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # end of each run of equal scores
    hits = np.cumsum(positive)[last]
    recall_steps = np.diff(hits, prepend=0) / hits[-1]
    return float((recall_steps * hits / (last + 1)).sum())


def _inspected(matched: Sequence[Matched]) -> Ints:
    """Return 1 for each inspected image (N), 0 for each refused image."""
    return np.array([m.image.refused is None for m in matched], int)


def _rank_within(scores: Floats, groups: Ints) -> Floats:
    """Replace scores (N) by minus their rank within their group (N) int; equal scores share the best rank."""
    ranks = np.empty(len(scores))
    for group in np.unique(groups):
        mine = groups == group
        falling = np.sort(-scores[mine])
        ranks[mine] = -np.searchsorted(falling, -scores[mine]).astype(float)
    return ranks


def _ranked(
    images: Sequence[InspectedImage], label: int, iou: float, most: int
) -> tuple[Floats, Bools, Ints, Ints]:
    """Match one class as in pycocotools.

    Returns:
        Scores (N,) falling, whether each detection is a hit (N,), its image (N,), and defects per image.
    """
    scores, hits, owners = [np.empty(0)], [np.empty(0, bool)], [np.empty(0, np.int32)]
    defects: Ints = np.zeros(len(images), int)
    # Equal scores rank by image id, as in COCO, whatever the order of images in the file.
    for position in sorted(range(len(images)), key=lambda i: images[i].image_id):  # type: ignore[arg-type, return-value]
        image = images[position]
        defects[position] = ((image.truth_labels == label) & ~image.ignored).sum()
        chosen = np.flatnonzero(image.labels == label)
        chosen = chosen[np.argsort(-image.scores[chosen], kind='stable')][:most]
        of_image, counted = _match_class(image, chosen, label, iou)
        scores.append(image.scores[chosen[counted]])
        hits.append(of_image[counted])
        owners.append(np.full(int(counted.sum()), position, np.int32))
    falling = np.concatenate(scores)
    order = np.argsort(-falling, kind='stable')
    hit: Bools = np.concatenate(hits)[order]
    return falling[order], hit, np.concatenate(owners)[order], defects


def _match_class(image: InspectedImage, chosen: Ints, label: int, iou: float) -> tuple[Bools, Bools]:
    """Return, for the detections `chosen` (K) of one class, whether each is a hit and whether it counts."""
    hit, counted = np.zeros(len(chosen), bool), np.ones(len(chosen), bool)
    mine = image.truth_labels == label
    if not mine.any() or not len(chosen):
        return hit, counted
    free, ignored = mine & ~image.ignored, mine & image.ignored
    near = box_iou(image.boxes[chosen], image.truth_boxes)
    in_ignored = (share_inside(image.boxes[chosen], image.truth_boxes) >= iou) & ignored
    for k in np.flatnonzero(((near >= iou) & free).any(1) | in_ignored.any(1)):
        candidates = np.flatnonzero(free & (near[k] >= iou))
        if candidates.size:
            # among equal overlaps the later box, as in pycocotools
            free[candidates[::-1][np.argmax(near[k, candidates[::-1]])]] = False
            hit[k] = True
        elif in_ignored[k].any():
            counted[k] = False
    return hit, counted


def _defect_scores(matched: Sequence[Matched], label: int) -> tuple[Floats, Ints]:
    """Return the score that found each defect of a severity, and the position of its image."""
    chosen = [m.right_scores[(m.image.truth_labels == label) & ~m.image.ignored] for m in matched]
    return np.concatenate(chosen), np.repeat(np.arange(len(matched)), [len(c) for c in chosen])


def _alarm_scores(matched: Sequence[Matched], label: int) -> tuple[Floats, Ints]:
    """Return the score of each false alarm of a severity, and the position of its image."""
    chosen = [m.false_alarm_scores(label) for m in matched]
    return np.concatenate(chosen), np.repeat(np.arange(len(matched)), [len(c) for c in chosen])
