"""LabelMe and X-AnyLabeling: one JSON file of shapes per image."""

import base64
import math
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from projects.radiograph.image import ImagingError
from projects.radiograph.read import read
from projects.radiograph.rle import encode_rle, extent
from projects.radiograph.safe_parse import FormatError, _show, flag_of

from .fields import label_of, numbers_of, polygon_object, read_json, size_of, turned_object
from .images import Entry, Images, Source, collect, find_images

_TURNED = ('oriented_rectangle', 'rotation')
"""Turned rectangles, in LabelMe and in X-AnyLabeling."""


def read_labelme(src: Path) -> tuple[Images, Source]:
    """Read LabelMe: one JSON file per image with rectangles, polygons, masks, circles and lines.

    Polygons and masks are kept with their boxes. Turned rectangles become the upright boxes around them.
    Circles, lines and points become their bounding boxes. So a point or an upright line has no area, and is
    counted as such. Shapes marked difficult become ignored objects.
    """
    images, found, entries = Images(src), Source(), []

    def read_one(name: str) -> list[Entry]:
        value = read_json(images.others[name])
        if not isinstance(value.get('shapes'), list):
            raise FormatError('labelme JSON with `shapes`')
        shapes = [_shape(shape) for shape in value['shapes']]
        path = value.get('imagePath')
        path = path if isinstance(path, str) and path else PurePosixPath(name).stem
        size = size_of(value.get('imageWidth'), value.get('imageHeight'))
        return [Entry(path, name, len(shapes), lambda _, h, w: [make(h, w) for make in shapes], size)]

    for name in images.files('.json'):
        entries += collect(found, images, name, lambda name=name: read_one(name))
    find_images(found, images, entries)
    return images, found


def _shape(shape: dict) -> Callable[[int, int], dict]:
    """Return a shape as a function of the image's height and width."""
    if not isinstance(shape, dict) or not isinstance(shape.get('points'), list):
        raise FormatError('shapes with `points`')
    label, kind = label_of(shape.get('label')), shape.get('shape_type') or 'polygon'
    points = [numbers_of(p if isinstance(p, list) else [p], 'points') for p in shape['points']]
    if not points or any(len(p) != 2 for p in points):
        raise FormatError(f'points of two numbers in {label!r}')
    flags = shape.get('flags')
    flags = [flags.get('difficult')] if isinstance(flags, dict) else []
    difficult = any([flag_of(value, 'difficult') for value in (shape.get('difficult'), *flags)])
    ignore = dict(ignore=True) if difficult else {}
    if kind == 'mask':
        x, y = (min(p[k] for p in points) for k in (0, 1))
        return lambda h, w: _mask_object(label, shape.get('mask'), x, y, h, w) | ignore
    item = _outline(label, kind, points) | ignore
    return lambda h, w: item


def _outline(label: str, kind: str, points: list[list[float]]) -> dict:
    """Return the object of a shape given by points."""
    flat = [v for p in points for v in p]
    if kind in _TURNED and len(points) == 4:
        return turned_object(label, flat)
    if kind in ('polygon', 'quadrilateral') and len(points) >= 3:
        return polygon_object(label, flat)
    if kind == 'circle' and len(points) == 2:
        (x, y), radius = points[0], math.dist(*points)
        return dict(type=label, corners=[x - radius, y - radius, x + radius, y + radius])
    if kind in ('rectangle', 'line', 'linestrip', 'point', 'points', 'polygon'):
        xs, ys = flat[::2], flat[1::2]
        return dict(type=label, corners=[min(xs), min(ys), max(xs), max(ys)])
    raise FormatError(f'a known shape type in {label!r}, found {_show(kind)} of {len(points)} points')


def _mask_object(label: str, mask, left: float, top: float, height: int, width: int) -> dict:
    """Return the object of a mask: a PNG in base64 whose upper left pixel lies at (left, top)."""
    try:
        values = read(base64.b64decode(mask, validate=True)).pixels > 0
    except (ImagingError, TypeError, ValueError) as error:
        raise FormatError(f'a PNG in the mask of {label!r} ({_show(str(error))})') from None
    x, y = math.floor(left), math.floor(top)
    full = np.zeros((height, width), bool)
    inside = values[max(-y, 0) : max(height - y, 0), max(-x, 0) : max(width - x, 0)]
    full[max(y, 0) : max(y, 0) + inside.shape[0], max(x, 0) : max(x, 0) + inside.shape[1]] = inside
    if not full.any():
        return dict(type=label, corners=[x, y, x, y])
    return dict(type=label, corners=extent(full), segmentation=encode_rle(full))
