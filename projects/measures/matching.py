"""Measures of inspection: defects found and escaped, false alarms, FROC, rejected parts, flaws for POD.

Framework-free: arrays in, dataclasses of plain numbers out (`dataclasses.asdict` gives JSON). What the images
cannot tell is None and reads "not estimable". Labels index the classes; label 0 is the critical one, and the
only one of GDXray.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

CRITICAL = 0


RULES = ('either', 'iou', 'centre')


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
