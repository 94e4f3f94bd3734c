"""Matching of detections with defects, and the outcome of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .images import Bools, Floats, InspectedImage, Ints, MeasureError

RULES = ('either', 'iou', 'centre')
OUTCOMES = ('false alarm', 'hit', 'wrong severity', 'duplicate', 'ignored')
FALSE_ALARM, HIT, WRONG_SEVERITY, DUPLICATE, IGNORED = range(len(OUTCOMES))
NOT_FOUND = float('-inf')  # score of a defect without a detection: below every threshold


@dataclass
class Matched:
    """Outcomes of the detections and defects of one image, valid for every threshold.

    Attributes:
        image: The image.
        rule: Rule for a hit.
        kept: (K) positions of the detections that survive suppression, by falling score.
        codes: (K) int8, position of each outcome in `OUTCOMES`.
        truths: (K) position of the defect; -1 for a false alarm or an ignored detection.
        right_scores: (G) score of the detection that found the defect with its severity; -inf if none.
        wrong_scores: (G) score of the best detection in the right place with another severity; -inf if none.
        right_by_rule: `right_scores` by each rule for a hit.
        defect_free: Whether the image has no annotation.
    """

    image: InspectedImage
    rule: str
    kept: Ints
    codes: npt.NDArray[np.int8]
    truths: Ints
    right_scores: Floats
    wrong_scores: Floats
    right_by_rule: dict[str, Floats]
    defect_free: bool = field(init=False)

    def __post_init__(self) -> None:
        """Derive the attributes that follow from the image."""
        self.defect_free = not len(self.image.truth_boxes)

    @property
    def outcomes(self) -> npt.NDArray[np.str_]:
        """Return 'hit', 'wrong severity', 'duplicate', 'false alarm' or 'ignored' of each detection (K)."""
        return np.array(OUTCOMES)[self.codes]

    def false_alarm_scores(self, label: int) -> Floats:
        """Return the scores of the false alarms of one severity."""
        false = (self.codes == FALSE_ALARM) & (self.image.labels[self.kept] == label)
        scores: Floats = self.image.scores[self.kept[false]]
        return scores


def match_all(images: Sequence[InspectedImage], rule: str = 'either') -> list[Matched]:
    """Match every image, see `match`.

    Raises:
        MeasureError: No images, or an unknown rule.
    """
    if not images:
        raise MeasureError('no image to measure')
    return [match(image, rule) for image in images]


def match(
    image: InspectedImage, rule: str = 'either', iou: float = 0.3, suppression_iou: float = 0.5
) -> Matched:
    """Match detections with defects, after suppression across severities so that a flaw is reported once.

    Detections are taken by falling score. Of the free defects of its severity that a detection falls on, it
    takes the one with the best overlap ('hit'). Otherwise the outcome is 'wrong severity' if the best
    overlapping defect has another severity and no such detection yet, else 'duplicate'. A detection on no
    defect is a 'false alarm'; a detection on ignored defects only is 'ignored'. Each choice depends only on
    higher scores, so the outcomes at a threshold are those of the detections at or above it.

    Args:
        image: The image.
        rule: 'iou' (at least `iou`), 'centre' (of the detection inside the annotated box) or 'either'.
        iou: Smallest intersection over union of a hit.
        suppression_iou: A detection is dropped if its IoU with a higher-scoring detection of any severity is
            larger.

    Raises:
        MeasureError: The rule is unknown.
    """
    if rule not in RULES:
        raise MeasureError(f'unknown rule {rule!r} for a hit, expected one of {RULES}')
    kept = _suppress(image.boxes, image.scores, suppression_iou)
    boxes, truth = image.boxes[kept], image.truth_boxes
    overlap = box_iou(boxes, truth)
    near = overlap >= iou
    centres = (boxes[:, :2] + boxes[:, 2:])[:, None] / 2
    inside: Bools = np.all((centres >= truth[:, :2]) & (centres <= truth[:, 2:]), axis=-1)
    assigned = {
        name: _assign(image, kept, overlap, falls_on)
        for name, falls_on in (('either', near | inside), ('iou', near), ('centre', inside))
    }
    return Matched(image, rule, kept, *assigned[rule], {name: result[2] for name, result in assigned.items()})


def _assign(
    image: InspectedImage, kept: Ints, overlap: Floats, falls_on: Bools
) -> tuple[npt.NDArray[np.int8], Ints, Floats, Floats]:
    """Assign an outcome to each detection; see `Matched` for the result.

    Args:
        image: The image.
        kept: (K) positions of the detections, by falling score.
        overlap: (K, G) IoU with the defects.
        falls_on: (K, G) whether a detection falls on a defect by the rule.
    """
    right: Floats = np.full(falls_on.shape[1], NOT_FOUND)
    wrong: Floats = right.copy()
    codes = np.full(len(kept), FALSE_ALARM, np.int8)
    truths = np.full(len(kept), -1, np.int32)
    for k in np.flatnonzero(falls_on.any(1)):
        position = kept[k]
        candidates = np.flatnonzero(falls_on[k])
        candidates = candidates[np.argsort(-overlap[k, candidates], kind='stable')]
        real = [g for g in candidates if not image.ignored[g]]
        same = [g for g in real if image.truth_labels[g] == image.labels[position]]
        free = [g for g in same if right[g] == NOT_FOUND]
        if free:
            truths[k], codes[k] = free[0], HIT
            right[free[0]] = image.scores[position]
        elif real and real[0] not in same and wrong[real[0]] == NOT_FOUND:
            truths[k], codes[k] = real[0], WRONG_SEVERITY
            wrong[real[0]] = image.scores[position]
        elif real:
            truths[k], codes[k] = real[0], DUPLICATE
        else:
            codes[k] = IGNORED
    return codes, truths, right, wrong


def _suppress(boxes: Floats, scores: Floats, iou: float) -> Ints:
    """Return the positions kept by greedy non-maximum suppression over all labels, by falling score."""
    order = np.argsort(-scores, kind='stable').astype(np.int32)
    over = np.triu(box_iou(boxes[order], boxes[order]) > iou, 1)
    kept = np.ones(len(order), bool)
    for k in np.flatnonzero(over.any(1)):
        if kept[k]:
            kept &= ~over[k]
    return order[kept]


def box_iou(first: Floats, second: Floats) -> Floats:
    """Return the intersection over union of boxes (N, 4) and (M, 4) as (N, M); 0 if both have no area."""
    common = _common_area(first, second)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    result: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return result


def share_inside(first: Floats, second: Floats) -> Floats:
    """Return the share of each box (N, 4) inside each box (M, 4), as (N, M)."""
    common = _common_area(first, second)
    area = (first[:, 2:] - first[:, :2]).prod(1)[:, None]
    result: Floats = np.divide(common, area, out=np.zeros_like(common), where=area > 0)
    return result


def _common_area(first: Floats, second: Floats) -> Floats:
    width = np.minimum(first[:, None, 2], second[None, :, 2])
    width -= np.maximum(first[:, None, 0], second[None, :, 0])
    height = np.minimum(first[:, None, 3], second[None, :, 3])
    height -= np.maximum(first[:, None, 1], second[None, :, 1])
    np.clip(width, 0, None, out=width)
    np.clip(height, 0, None, out=height)
    width *= height
    return width
