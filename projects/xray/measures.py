"""Measures of inspection: defects found and escaped, false alarms, FROC, rejected parts, flaws for POD.

Framework-free: arrays in, dataclasses of plain numbers out (`dataclasses.asdict` gives JSON). What the images
cannot tell is None and reads "not estimable". Labels index the classes; label 0 is the critical one, and the
only one of GDXray.
"""

import decimal
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .pod import PodFit, fit_pod
from .statistics import Rate, allowed_events, parts_needed, rate

CRITICAL = 0
RULES = ('either', 'iou', 'centre')
# COCO's areas in px²: small, medium, large.
SIZES = {'small': (0, 32**2), 'medium': (32**2, 96**2), 'large': (96**2, math.inf)}
NOT_FOUND = -math.inf  # score of a defect without a detection: below every threshold


class MeasureError(ValueError):
    """Truth or detections that cannot be measured; one line that names the image and the remedy."""


# --------------------------------------------------------------------------------------------- the images


@dataclass
class InspectedImage:
    """One radiograph with its truth and its detections; boxes are xyxy in px of the image as stored.

    Attributes:
        image_id: Names the image in messages; images whose scores tie rank by it.
        boxes: (D, 4) detected boxes.
        scores: (D) finite.
        labels: (D) int.
        truth_boxes: (G, 4) annotated boxes, of positive width and height.
        truth_labels: (G) int.
        truth_types: (G) defect types; default the labels as text.
        truth_areas: (G) areas in px², of the mask where there is one; default those of the boxes.
        truth_flaws: (G) which physical flaw of the part a box shows, in all its views; default unknown.
        truth_contrasts: (G) contrasts; default unknown.
        ignored: (G) bool: neither to be found nor a false alarm (`iscrowd`); default none.
        part: The physical part; None when unknown.

    Raises:
        MeasureError: Shapes that do not fit, a score or box that is not finite, a box of negative size, a
            negative label.
    """

    image_id: Hashable
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    truth_boxes: np.ndarray
    truth_labels: np.ndarray
    truth_types: Sequence[str] | None = None
    truth_areas: np.ndarray | None = None
    truth_flaws: Sequence[Hashable] | None = None
    truth_contrasts: np.ndarray | None = None
    ignored: np.ndarray | None = None
    part: Hashable | None = None

    def __post_init__(self):
        """Make arrays of everything, fill in the defaults, and check."""
        self.boxes = self._corners('boxes')
        self.scores = np.asarray(self.scores, float)
        self.labels = np.asarray(self.labels, int)
        self.truth_boxes = self._corners('truth_boxes')
        self.truth_labels = np.asarray(self.truth_labels, int)
        count = len(self.truth_boxes)
        if self.truth_types is None:
            self.truth_types = [str(label) for label in self.truth_labels]
        if self.truth_areas is None:
            self.truth_areas = (self.truth_boxes[:, 2:] - self.truth_boxes[:, :2]).prod(1)
        if self.truth_flaws is None:
            self.truth_flaws = [None] * count
        if self.truth_contrasts is None:
            self.truth_contrasts = np.full(count, np.nan)
        if self.ignored is None:
            self.ignored = np.zeros(count, bool)
        self.truth_areas = np.asarray(self.truth_areas, float)
        self.truth_contrasts = np.asarray(self.truth_contrasts, float)
        self.ignored = np.asarray(self.ignored, bool)

        per_truth = (
            'truth_labels',
            'truth_types',
            'truth_areas',
            'truth_flaws',
            'truth_contrasts',
            'ignored',
        )
        for names, length in ((('scores', 'labels'), len(self.boxes)), (per_truth, count)):
            for name in names:
                if len(getattr(self, name)) != length:
                    self._refuse(f'{len(getattr(self, name))} {name} for {length} boxes')
        for name in ('boxes', 'scores', 'truth_boxes', 'truth_areas'):
            if not np.isfinite(getattr(self, name)).all():
                self._refuse(f'{name} that are not finite; the run diverged or its file is damaged')
        if (self.labels < 0).any() or (self.truth_labels < 0).any():
            self._refuse('a negative label')
        if (self.boxes[:, 2:] < self.boxes[:, :2]).any():
            self._refuse('a detected box of negative size; expected x1 y1 x2 y2')
        if (self.truth_boxes[:, 2:] <= self.truth_boxes[:, :2]).any():
            self._refuse('an annotated box without area; expected x1 y1 x2 y2')

    def _corners(self, name):
        boxes = np.asarray(getattr(self, name), float)
        if not boxes.size:
            return np.empty((0, 4))
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            self._refuse(f'{name} of shape {boxes.shape}, expected (N, 4)')
        return boxes

    def _refuse(self, reason):
        raise MeasureError(f'image {self.image_id}: {reason}')


def read_images(truth: Mapping, detections: Iterable[Mapping], image_ids: Iterable | None = None) -> list:
    """Bring a COCO annotation dict and COCO detections together.

    Args:
        truth: COCO dict whose categories are the classes in label order (`datasets.load_defects`);
            annotations may carry `type`, `flaw` and `contrast`, images `part`.
        detections: COCO results: image_id, category_id, bbox [x, y, w, h] in px, score.
        image_ids: The images that the model saw; default all.

    Returns:
        list[InspectedImage]: In the order of `truth['images']`. An image without detections has none: that
        the model was run on it is for the caller to know.

    Raises:
        MeasureError: A detection of an image that is not among them or of an unknown category; no image; a
            score that is not finite; see `InspectedImage`.
    """
    labels = {category['id']: label for label, category in enumerate(truth['categories'])}
    wanted = {image['id'] for image in truth['images']}
    if image_ids is not None:
        image_ids = set(image_ids)
        if image_ids - wanted:
            raise MeasureError(
                f'images {sorted(image_ids - wanted)[:5]} were evaluated but are not annotated'
            )
        wanted = image_ids
    if not wanted:
        raise MeasureError('no image to measure')
    found = {image_id: [] for image_id in wanted}
    for detection in detections:
        if detection['image_id'] not in found:
            raise MeasureError(
                f'image {detection["image_id"]}: detected on but not among the images to measure; the '
                'detections belong to another annotation file'
            )
        if detection['category_id'] not in labels:
            raise MeasureError(
                f'image {detection["image_id"]}: detection of category {detection["category_id"]}, expected '
                f'one of {sorted(labels)}; the run has other classes'
            )
        found[detection['image_id']].append(detection)
    annotated = {image_id: [] for image_id in wanted}
    for annotation in truth['annotations']:
        if annotation['image_id'] in annotated:
            annotated[annotation['image_id']].append(annotation)

    images = []
    for image in truth['images']:
        if image['id'] not in wanted:
            continue
        real, marks = annotated[image['id']], found[image['id']]
        names = {label: category['name'] for label, category in enumerate(truth['categories'])}
        images.append(
            InspectedImage(
                image_id=image['id'],
                boxes=[_corners(mark['bbox']) for mark in marks],
                scores=[mark['score'] for mark in marks],
                labels=[labels[mark['category_id']] for mark in marks],
                truth_boxes=[_corners(box['bbox']) for box in real],
                truth_labels=[labels[box['category_id']] for box in real],
                truth_types=[box.get('type', names[labels[box['category_id']]]) for box in real],
                truth_areas=[box.get('area') or box['bbox'][2] * box['bbox'][3] for box in real],
                truth_flaws=[box.get('flaw') for box in real],
                truth_contrasts=[box.get('contrast', np.nan) for box in real],
                ignored=[bool(box.get('iscrowd')) for box in real],
                part=image.get('part'),
            )
        )
    return images


def _corners(box: Sequence[float]) -> list[float]:
    """[x, y, w, h] to [x1, y1, x2, y2]."""
    x, y, width, height = box
    return [x, y, x + width, y + height]


def check_comparable(arms: Mapping[str, Sequence[InspectedImage]]) -> None:
    """Refuse to compare arms that were not tested on the same images, in one order, with the same truth.

    Args:
        arms: Images by name of the arm.

    Raises:
        MeasureError: Names the first two arms that differ, and how.
    """
    (first, reference), *others = arms.items()
    reference = {image.image_id: image for image in reference}
    for name, images in others:
        images = {image.image_id: image for image in images}
        differing = sorted(map(str, images.keys() ^ reference.keys()))
        if differing:
            raise MeasureError(
                f'{first} and {name} were tested on different images ({len(differing)} differ, such as '
                f'{differing[:3]}); test both on the same annotation file'
            )
        if list(images) != list(reference):
            raise MeasureError(f'{first} and {name} hold the images in different order; read both alike')
        for image_id, image in images.items():
            other = reference[image_id]
            truths = ('truth_boxes', 'truth_labels', 'ignored')
            if not all(np.array_equal(getattr(image, name), getattr(other, name)) for name in truths):
                raise MeasureError(
                    f'{first} and {name} have different annotations of image {image_id}; test both on the '
                    'same annotation file and severity map'
                )


# ----------------------------------------------------------------------------------------------- matching


@dataclass
class Matched:
    """What became of the detections and defects of one image, at every threshold at once.

    Attributes:
        image: The image.
        rule: What a hit is.
        kept: (K) positions of the detections that survive suppression, by falling score.
        outcomes: (K) of each: 'hit', 'wrong severity', 'duplicate', 'false alarm' or 'ignored'.
        truths: (K) the defect it fell on; -1 for a false alarm or an ignored one.
        right_scores: (G) score of the detection that found the defect with its severity; -inf if none.
        wrong_scores: (G) score of the best detection in the right place with another severity; -inf if none.
        defect_free: Whether nothing is annotated on the image.
    """

    image: InspectedImage
    rule: str
    kept: np.ndarray
    outcomes: np.ndarray
    truths: np.ndarray
    right_scores: np.ndarray
    wrong_scores: np.ndarray
    defect_free: bool = field(init=False)

    def __post_init__(self):
        """Derive what follows from the image."""
        self.defect_free = not len(self.image.truth_boxes)

    def false_alarm_scores(self, label: int) -> np.ndarray:
        """Return the scores of the false alarms of one severity."""
        return self.image.scores[self.kept][
            (self.outcomes == 'false alarm') & (self.image.labels[self.kept] == label)
        ]


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
    """Match detections with defects; severities compete first, so that one flaw is reported once.

    By falling score a detection takes, of the defects it falls on, the best overlapping one of its severity
    that is still free ('hit'). Else it is 'wrong severity' where the best overlapping defect has another
    severity and no such detection yet, else a 'duplicate'. One that falls on no defect is a 'false alarm', on
    ignored ones alone 'ignored'. As each choice depends on higher scores alone, the outcome at a threshold is
    that of the detections at or above it.

    Args:
        image: The image.
        rule: 'iou' (at least `iou`), 'centre' (of the detection inside the annotated box) or 'either'.
        iou: Smallest intersection over union of a hit.
        suppression_iou: A detection that overlaps a higher-scoring one of any severity by more is dropped.

    Raises:
        MeasureError: Unknown rule.
    """
    if rule not in RULES:
        raise MeasureError(f'unknown rule {rule!r} for a hit, expected one of {RULES}')
    kept = _suppress(image.boxes, image.scores, suppression_iou)
    boxes, truth = image.boxes[kept], image.truth_boxes
    overlap = _iou(boxes, truth)
    centres = (boxes[:, :2] + boxes[:, 2:])[:, None] / 2
    inside = ((centres >= truth[:, :2]) & (centres <= truth[:, 2:])).all(-1)
    falls_on = {'iou': overlap >= iou, 'centre': inside, 'either': (overlap >= iou) | inside}[rule]

    right, wrong = np.full(len(truth), NOT_FOUND), np.full(len(truth), NOT_FOUND)
    outcomes, truths = [], np.full(len(kept), -1)
    for k, position in enumerate(kept):
        candidates = sorted(np.flatnonzero(falls_on[k]), key=lambda g: -overlap[k, g])
        real = [g for g in candidates if not image.ignored[g]]
        same = [g for g in real if image.truth_labels[g] == image.labels[position]]
        free = [g for g in same if right[g] == NOT_FOUND]
        if free:
            truths[k], outcome = free[0], 'hit'
            right[free[0]] = image.scores[position]
        elif real and real[0] not in same and wrong[real[0]] == NOT_FOUND:
            truths[k], outcome = real[0], 'wrong severity'
            wrong[real[0]] = image.scores[position]
        elif real:
            truths[k], outcome = real[0], 'duplicate'
        else:
            outcome = 'ignored' if candidates else 'false alarm'
        outcomes.append(outcome)
    return Matched(image, rule, kept, np.array(outcomes, 'U14'), truths, right, wrong)


def _suppress(boxes: np.ndarray, scores: np.ndarray, iou: float) -> np.ndarray:
    """Greedy non-maximum suppression over all labels; positions kept, by falling score."""
    order = np.argsort(-scores, kind='stable')
    overlap = _iou(boxes, boxes)
    kept = []
    for position in order:
        if not (overlap[position, kept] > iou).any():
            kept.append(position)
    return np.array(kept, int)


def _iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (N, 4) and (M, 4) as (N, M); 0 where both have no area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


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


def ceiled(bound: float) -> str:
    """Write the upper bound of a size with three digits, rounded up: rounded down, it would not hold."""
    context = decimal.Context(prec=3, rounding=decimal.ROUND_CEILING)
    return f'{float(context.create_decimal(repr(float(bound)))):.3g}'


# ---------------------------------------------------------------------------------------------------- POD


@dataclass
class Flaw:
    """One physical flaw.

    Attributes:
        part: The part it is in; None when unknown.
        type: Defect type.
        size: Equivalent diameter, of its largest view, in px or mm.
        contrast: Of its best view; None when unknown.
        hit: Whether it was found with its severity in a view.
    """

    part: str | None
    type: str
    size: float
    contrast: float | None
    hit: bool


@dataclass
class Pod:
    """POD of one severity at one threshold, the false calls at that threshold beside it.

    Attributes:
        label: The severity.
        threshold: A flaw is a hit when a detection finds it with its severity at this score or above.
        unit: Of the sizes, 'px' or 'mm'.
        fit: The curve.
        false_calls: Of that severity, per image.
    """

    label: int
    threshold: float
    unit: str
    fit: PodFit
    false_calls: FalseAlarms


def gather_flaws(
    matched: Sequence[Matched], threshold: float, label: int = CRITICAL, pixel_pitch: float | None = None
) -> list[Flaw]:
    """List the physical flaws of a severity with their sizes and whether they were found.

    Where all boxes say which physical flaw of which part they show, the views of a flaw make one row; else
    every box is a row.

    Args:
        matched: From `match_all`.
        threshold: Of the score.
        label: The severity.
        pixel_pitch: mm per px at the part; None leaves sizes in px.
    """
    views = {}
    known = all(
        m.image.part is not None and all(flaw is not None for flaw in m.image.truth_flaws)
        for m in matched
        if not m.defect_free
    )
    for number, m in enumerate(matched):
        image = m.image
        for g in np.flatnonzero((image.truth_labels == label) & ~image.ignored):
            key = (str(image.part), image.truth_flaws[g]) if known else (number, g)
            views.setdefault(key, []).append((m, g))
    flaws = []
    for members in views.values():
        image, g = members[0][0].image, members[0][1]
        area = max(m.image.truth_areas[g] for m, g in members)
        contrasts = [float(m.image.truth_contrasts[g]) for m, g in members]
        flaws.append(
            Flaw(
                part=None if image.part is None else str(image.part),
                type=image.truth_types[g],
                size=2 * math.sqrt(area / math.pi) * (pixel_pitch or 1),  # of the circle of that area
                contrast=max(contrasts) if np.isfinite(contrasts).all() else None,
                hit=bool(max(m.right_scores[g] for m, g in members) >= threshold),
            )
        )
    return flaws


def measure_pod(
    matched: Sequence[Matched],
    threshold: float,
    label: int = CRITICAL,
    pixel_pitch: float | None = None,
    by_contrast: bool = False,
    log_size: bool = True,
) -> Pod:
    """Fit the POD curve of one severity, clustered by part where a part carries several of its flaws.

    Args:
        matched: From `match_all`.
        threshold: Of the score.
        label: The severity.
        pixel_pitch: mm per px at the part; None leaves sizes in px.
        by_contrast: Fit against size and contrast, which in a radiograph counts as much as size.
        log_size: See `pod.fit_pod`.

    Raises:
        MeasureError: No flaw of that severity, or `by_contrast` and a flaw without contrast.
    """
    flaws = gather_flaws(matched, threshold, label, pixel_pitch)
    if not flaws:
        raise MeasureError(f'no flaw with label {label}, so there is no POD to measure')
    if by_contrast and any(flaw.contrast is None for flaw in flaws):
        raise MeasureError('flaws without a contrast: POD against contrast takes generated data')
    parts = [flaw.part for flaw in flaws]
    clustered = None not in parts and len(set(parts)) < len(parts)
    fit = fit_pod(
        sizes=[flaw.size for flaw in flaws],
        hits=[flaw.hit for flaw in flaws],
        contrasts=[flaw.contrast for flaw in flaws] if by_contrast else None,
        parts=parts if clustered else None,
        log_size=log_size,
    )
    if None in parts:
        fit.problems.append('no part ids: flaws are taken as independent, which makes the bound too narrow')
    return Pod(
        label=label,
        threshold=float(threshold),
        unit='px' if pixel_pitch is None else 'mm',
        fit=fit,
        false_calls=count_false_alarms(matched, threshold, label),
    )
