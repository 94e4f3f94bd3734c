"""Masks of annotated flaws: checks, and conversion to compressed run lengths."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.logging import print_log
from pycocotools import mask as coco_mask

from projects.radiograph.rle import uncompress
from projects.radiograph.safe_parse import FormatError

from .errors import DatasetError

_FEWEST = 6  # numbers in a polygon: three points


def with_masks(coco: dict, ann_file: str) -> dict:
    """Convert the mask of every annotation to compressed run lengths over the whole image.

    Polygons become the pixels that pycocotools marks; several polygons of one flaw become their union. Run
    lengths keep holes and parts. A mask without a pixel, such as a polygon between pixel centres, becomes its
    box. A missing mask of an ignored annotation, which is neither learnt nor counted, also becomes its box.

    Args:
        coco: Result of `coco.load_defects`.
        ann_file: Annotation file, for messages.

    Returns:
        A copy of `coco` in which each `segmentation` is dict(size=[height, width], counts=str).

    Raises:
        DatasetError: A flaw has no mask, or its mask is outside of its box or cannot be read; the message
            names the image.
    """
    images = {image['id']: image for image in coco['images']}
    learnt = [ann for ann in coco['annotations'] if not ann['iscrowd']]
    without = [ann for ann in learnt if not ann.get('segmentation')]
    if without:
        raise DatasetError(
            f'{ann_file}: {len(without)} of {len(learnt)} flaws have no `segmentation` '
            f'({images[without[0]["image_id"]]["file_name"]}), expected a mask of each, as the recipe learns '
            'masks; draw them, or train a Faster R-CNN, which needs boxes alone'
        )
    boxes = 0
    annotations = []
    for ann in coco['annotations']:
        image = images[ann['image_id']]
        rle = _mask(ann, image, ann_file) if ann.get('segmentation') else None
        if rle is not None and not ann['iscrowd'] and _apart(ann['segmentation'], rle, ann['bbox']):
            raise DatasetError(
                f'{ann_file}: annotation {ann["id"]} ({image["file_name"]}): its mask lies beside its box '
                f'{ann["bbox"]}, expected both of one flaw, in px of the image; correct one of them'
            )
        if rle is None or not coco_mask.area(rle):
            boxes += not ann['iscrowd']
            rle = _of_box(ann['bbox'], image['height'], image['width'])
        annotations.append(dict(ann, segmentation=as_text(rle)))
    if boxes:
        print_log(f'{ann_file}: {boxes} masks without a pixel are replaced by their boxes', logger='current')
    return dict(coco, annotations=annotations)


def _apart(segmentation: list | dict, rle: dict, box: list[float]) -> bool:
    """Whether a mask and its box [x, y, w, h] are more than a pixel apart, e.g. polygons in 0..1 units."""
    if isinstance(segmentation, list):
        corners = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in segmentation])
        low, high = corners.min(0), corners.max(0)
    else:
        low = coco_mask.toBbox(rle)
        low, high = low[:2], low[:2] + low[2:]
    near, far = np.maximum(low, box[:2]), np.minimum(high, np.add(box[:2], box[2:]))
    return bool((far - near < -1).any()) and bool((high > low).all())


def pixels_of(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """Return the pixels (H, W) bool of polygons or run lengths.

    Raises:
        FormatError: The polygons or run lengths cannot be read.
    """
    return coco_mask.decode(_encoded(segmentation, height, width)).astype(bool)


def _mask(ann: Mapping[str, Any], image: Mapping[str, Any], ann_file: str) -> dict:
    """Return an annotation's polygons or run lengths as compressed run lengths."""
    try:
        return _encoded(ann['segmentation'], image['height'], image['width'])
    except FormatError as error:
        raise DatasetError(
            f'{ann_file}: annotation {ann["id"]} ({image["file_name"]}): expected {error}; correct its '
            '`segmentation`'
        ) from None


def _encoded(value: Any, height: int, width: int) -> dict:
    if isinstance(value, dict):
        return _run_lengths(value, height, width)
    polygons = value if isinstance(value, list) else [value]
    for polygon in polygons:
        _check_polygon(polygon)
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))


def _check_polygon(polygon: Any) -> None:
    numbers = isinstance(polygon, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in polygon
    )
    if not numbers or len(polygon) < _FEWEST or len(polygon) % 2:
        raise FormatError('polygons [x1, y1, x2, y2, x3, y3, …] in px')


def _run_lengths(value: Mapping[str, Any], height: int, width: int) -> dict:
    """Check and compress run lengths; pycocotools would read out of bounds if they were too long."""
    if value.get('size') != [height, width]:
        raise FormatError(f'run lengths of size [{height}, {width}], found {str(value.get("size"))[:40]}')
    counts = value.get('counts')
    lengths = uncompress(counts) if isinstance(counts, str) else counts
    whole = isinstance(lengths, list) and all(type(n) is int and n >= 0 for n in lengths)
    if not whole or sum(lengths) != height * width:
        raise FormatError(f'run lengths that add up to {height} x {width} px')
    return coco_mask.frPyObjects(dict(size=[height, width], counts=lengths), height, width)


def _of_box(box: list[float], height: int, width: int) -> dict:
    """Return compressed run lengths of all pixels that a box [x, y, w, h] touches."""
    mask = np.zeros((height, width), np.uint8, order='F')
    x, y, w, h = box
    mask[math.floor(y) : math.ceil(y + h), math.floor(x) : math.ceil(x + w)] = 1
    return coco_mask.encode(mask)


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Return a boolean mask (H, W) as compressed run lengths for JSON."""
    return as_text(coco_mask.encode(np.asfortranarray(mask, np.uint8)))


def as_text(rle: Mapping[str, Any]) -> dict[str, Any]:
    """Return run lengths of pycocotools in a form for JSON."""
    height, width = rle['size']
    return dict(size=[int(height), int(width)], counts=rle['counts'].decode())
