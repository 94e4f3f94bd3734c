"""Radiographs with truth and detections, read from COCO and checked."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from projects.errors import MMXrayError
from projects.ids import as_text

CRITICAL = 0
STRATA = ('series', 'batch', 'part_type', 'view')  # keys of a COCO image that group results

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]


class MeasureError(MMXrayError, ValueError):
    """Truth or detections cannot be measured; one line names the image and the remedy."""


@dataclass
class InspectedImage:
    """One radiograph with its truth and its detections; boxes are xyxy in px of the stored image.

    Attributes:
        image_id: Names the image in messages, and ranks images with equal scores.
        boxes: (D, 4) float, detected boxes.
        scores: (D) float, finite.
        labels: (D) int.
        truth_boxes: (G, 4) float, annotated boxes of positive width and height.
        truth_labels: (G) int.
        truth_types: (G) defect types; default the labels as text.
        truth_areas: (G) areas in px², of the mask where one exists; default the areas of the boxes.
        truth_flaws: (G) ids of the physical flaws, equal in all views of the part; default unknown.
        truth_contrasts: (G) contrasts, or contrast-to-noise ratios; default unknown (nan).
        areas: (D) areas of the detected masks in px²; default unknown (nan).
        ignored: (G) bool: boxes that count neither as defects nor as false alarms (`iscrowd`); default none.
        part: The physical part; None when unknown.
        strata: Groups of the image, such as series, batch, part type or view.
        refused: Reason why the detector did not inspect the image, such as a gray level outside the band of
            an exported folder; None for an inspected image.

    Raises:
        MeasureError: Mismatched shapes, a score or box that is not finite, a box of negative size, a negative
            label, an area that is not above zero, or detections on a refused image.
    """

    image_id: Hashable
    boxes: Floats
    scores: Floats
    labels: Ints
    truth_boxes: Floats
    truth_labels: Ints
    truth_types: Sequence[str] = None  # type: ignore[assignment]
    truth_areas: Floats = None  # type: ignore[assignment]
    truth_flaws: Sequence[Hashable] = None  # type: ignore[assignment]
    truth_contrasts: Floats = None  # type: ignore[assignment]
    areas: Floats = None  # type: ignore[assignment]
    ignored: Bools = None  # type: ignore[assignment]
    part: Hashable | None = None
    strata: Mapping[str, str] = field(default_factory=dict)
    refused: str | None = None

    def __post_init__(self) -> None:
        """Convert all values to arrays, fill in the defaults, and check."""
        self.part = as_text(self.part)
        self.boxes = self._corners('boxes')
        self.scores = np.asarray(self.scores, float)
        self.labels = np.asarray(self.labels, np.int32)
        self.truth_boxes = self._corners('truth_boxes')
        self.truth_labels = np.asarray(self.truth_labels, np.int32)
        count = len(self.truth_boxes)
        if self.truth_types is None:
            self.truth_types = [str(label) for label in self.truth_labels]
        if self.truth_areas is None:
            self.truth_areas = (self.truth_boxes[:, 2:] - self.truth_boxes[:, :2]).prod(1)
        if self.truth_flaws is None:
            self.truth_flaws = [None] * count
        self.truth_flaws = [as_text(flaw) for flaw in self.truth_flaws]
        if self.truth_contrasts is None:
            self.truth_contrasts = np.full(count, np.nan)
        if self.ignored is None:
            self.ignored = np.zeros(count, bool)
        if self.areas is None:
            self.areas = np.full(len(self.boxes), np.nan)
        self.areas = np.asarray(self.areas, float)
        self.truth_areas = np.asarray(self.truth_areas, float)
        self.truth_contrasts = np.asarray(self.truth_contrasts, float)
        self.ignored = np.asarray(self.ignored, bool)
        self._check_lengths(count)
        self._check_values()

    def _check_lengths(self, count: int) -> None:
        per_truth = (
            'truth_labels',
            'truth_types',
            'truth_areas',
            'truth_flaws',
            'truth_contrasts',
            'ignored',
        )
        for names, length in ((('scores', 'labels', 'areas'), len(self.boxes)), (per_truth, count)):
            for name in names:
                if len(getattr(self, name)) != length:
                    self._refuse(f'{len(getattr(self, name))} {name} for {length} boxes')

    def _check_values(self) -> None:
        if self.refused is not None and len(self.boxes):
            self._refuse(f'{len(self.boxes)} detections, expected none of an image that was refused')
        for name in ('boxes', 'scores', 'truth_boxes', 'truth_areas'):
            if not np.isfinite(getattr(self, name)).all():
                self._refuse(f'{name} that are not finite; the run diverged or its file is damaged')
        if (self.labels < 0).any() or (self.truth_labels < 0).any():
            self._refuse('a negative label')
        if (self.boxes[:, 2:] < self.boxes[:, :2]).any():
            self._refuse('a detected box of negative size; expected x1 y1 x2 y2')
        if (self.truth_boxes[:, 2:] <= self.truth_boxes[:, :2]).any():
            self._refuse('an annotated box without area; expected x1 y1 x2 y2')
        if (self.truth_areas <= 0).any():
            self._refuse(
                f'an annotation of area {self.truth_areas.min():g}, expected px² above zero; correct `area` '
                'or leave it out to use the area of the box'
            )

    def _corners(self, name: str) -> Floats:
        boxes = np.asarray(getattr(self, name), float)
        if not boxes.size:
            return np.empty((0, 4))
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            self._refuse(f'{name} of shape {boxes.shape}, expected (N, 4)')
        return boxes

    def _refuse(self, reason: str) -> NoReturn:
        raise MeasureError(f'image {self.image_id}: {reason}')


def read_images(
    truth: Mapping[str, Any],
    detections: Iterable[Mapping[str, Any]],
    image_ids: Iterable[Hashable] | None = None,
) -> list[InspectedImage]:
    """Join a COCO annotation dict and COCO detections.

    Detections are read one by one and kept as numbers, so that the dicts of a large file are never all in
    memory.

    Args:
        truth: COCO dict whose categories are the classes in label order. Annotations may carry `type`,
            `flaw`, and `cnr` or `contrast`; images may carry `part` and the keys of `STRATA`.
        detections: COCO results: image_id, category_id, bbox [x, y, w, h] in px, score; with a mask
            (`segmentation`) also its `area` in px².
        image_ids: The images that the model inspected; default all.

    Returns:
        Images in the order of `truth['images']`. An image without detections counts as inspected; the caller
        must make sure that the model ran on it.

    Raises:
        MeasureError: A detection on an unknown image or of an unknown category; no image; a score that is not
            finite; see `InspectedImage`.
    """
    labels = {category['id']: label for label, category in enumerate(truth['categories'])}
    names = [category['name'] for category in truth['categories']]
    wanted = {image['id'] for image in truth['images']}
    if len(wanted) < len(truth['images']):
        raise MeasureError(f'{len(truth["images"])} images share {len(wanted)} ids; give each its own')
    if image_ids is not None:
        seen = set(image_ids)
        if seen - wanted:
            unknown = sorted(seen - wanted)[:5]  # type: ignore[type-var]
            raise MeasureError(f'images {unknown} were evaluated but are not annotated')
        wanted = seen
    if not wanted:
        raise MeasureError('no image to measure')
    found = _gather_detections(detections, labels, wanted)
    annotated: dict[Hashable, list[Mapping[str, Any]]] = {image_id: [] for image_id in wanted}
    for annotation in truth['annotations']:
        if annotation['image_id'] in annotated:
            annotated[annotation['image_id']].append(annotation)

    # The contrast-to-noise ratio takes precedence: it describes a flaw better than the contrast.
    covariate = 'cnr' if any('cnr' in a for a in truth['annotations']) else 'contrast'
    images = []
    for image in truth['images']:
        if image['id'] not in wanted:
            continue
        real = annotated[image['id']]
        marks = np.array(found.pop(image['id'])).reshape(-1, 7)
        images.append(
            InspectedImage(
                image_id=image['id'],
                boxes=np.hstack([marks[:, :2], marks[:, :2] + marks[:, 2:4]]),
                scores=marks[:, 4].copy(),
                labels=marks[:, 5].astype(np.int32),
                areas=marks[:, 6].copy(),
                truth_boxes=np.array([_to_corners(box['bbox']) for box in real]),
                truth_labels=np.array([labels[box['category_id']] for box in real], np.int32),
                truth_types=[box.get('type', names[labels[box['category_id']]]) for box in real],
                truth_areas=np.array([_area(box) for box in real], float),
                truth_flaws=[box.get('flaw') for box in real],
                truth_contrasts=np.array([box.get(covariate, np.nan) for box in real], float),
                ignored=np.array([bool(box.get('iscrowd')) for box in real], bool),
                part=image.get('part'),
                strata={key: name for key in STRATA if (name := as_text(image.get(key)))},
            )
        )
    return images


def _gather_detections(
    detections: Iterable[Mapping[str, Any]], labels: Mapping[int, int], wanted: set[Hashable]
) -> dict[Hashable, array[float]]:
    """Return x, y, w, h, score, label and area of the detections of each image, as one flat array."""
    found: dict[Hashable, array[float]] = {image_id: array('d') for image_id in wanted}
    for detection in detections:
        image_id = detection['image_id']
        if image_id not in found:
            raise MeasureError(
                f'image {image_id}: has detections but is not among the images to measure; the detections '
                'belong to another annotation file'
            )
        if detection['category_id'] not in labels:
            raise MeasureError(
                f'image {image_id}: detection of category {detection["category_id"]}, expected one of '
                f'{sorted(labels)}; the run has other classes'
            )
        x, y, width, height = detection['bbox']
        score = detection['score']
        found[image_id].extend(
            (
                *(x, y, width, height, np.nan if score is None else score),
                labels[detection['category_id']],
                detection.get('area', np.nan) if 'segmentation' in detection else np.nan,
            )
        )
    return found


def _area(annotation: Mapping[str, Any]) -> float:
    """Return the area of an annotation, or of its box where the area is missing or zero."""
    width, height = annotation['bbox'][2:]
    return float(annotation.get('area') or width * height)


def _to_corners(box: Sequence[float]) -> list[float]:
    """Convert [x, y, w, h] to [x1, y1, x2, y2]."""
    x, y, width, height = box
    return [x, y, x + width, y + height]


def check_comparable(arms: Mapping[str, Sequence[InspectedImage]]) -> None:
    """Refuse arms that were not tested on the same images in the same order with the same truth.

    Args:
        arms: Images by name of the arm.

    Raises:
        MeasureError: Two arms differ; the text names the first such pair and the difference.
    """
    (first, images), *others = arms.items()
    reference = {image.image_id: image for image in images}
    for name, candidates in others:
        of_arm = {image.image_id: image for image in candidates}
        differing = sorted(map(str, of_arm.keys() ^ reference.keys()))
        if differing:
            raise MeasureError(
                f'{first} and {name} were tested on different images ({len(differing)} differ, such as '
                f'{differing[:3]}); test both on the same annotation file'
            )
        if list(of_arm) != list(reference):
            raise MeasureError(f'{first} and {name} hold the images in different order; read both alike')
        for image_id, image in of_arm.items():
            other = reference[image_id]
            truths = ('truth_boxes', 'truth_labels', 'ignored')
            if not all(np.array_equal(getattr(image, key), getattr(other, key)) for key in truths):
                raise MeasureError(
                    f'{first} and {name} have different annotations of image {image_id}; test both on the '
                    'same annotation file and severity map'
                )
