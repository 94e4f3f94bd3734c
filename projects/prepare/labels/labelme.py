"""LabelMe: one JSON file an image."""

import base64
import math
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from projects.radiograph.read import ImagingError, read
from projects.radiograph.safe_parse import FormatError, _show

from .images import (
    Entry,
    Images,
    Source,
    _collect,
    _find_images,
    _json,
    _label,
    _numbers,
    _polygon_object,
    _size,
)
from .rle import encode_rle

# -------------------------------------------------------------------------------------------- labelme


def read_labelme(src: Path) -> tuple[Images, Source]:
    """Labelme: one JSON file per image with rectangles, polygons, masks, circles and lines.

    Polygons and masks are kept beside their boxes. Circles, lines and points become their extents, so that
    a point or an upright line has no area and is counted as such.
    """
    images, found, entries = Images(src), Source(), []

    def read_one(name: str) -> list[Entry]:
        value = _json(images.others[name])
        if not isinstance(value.get('shapes'), list):
            raise FormatError('labelme JSON with `shapes`')
        shapes = [_shape(shape) for shape in value['shapes']]
        path = value.get('imagePath')
        path = path if isinstance(path, str) and path else PurePosixPath(name).stem
        size = _size(value.get('imageWidth'), value.get('imageHeight'))
        return [Entry(path, name, len(shapes), lambda _, h, w: [make(h, w) for make in shapes], size)]

    for name in images.files('.json'):
        entries += _collect(found, images, name, lambda name=name: read_one(name))
    _find_images(found, images, entries)
    return images, found


def _shape(shape: dict) -> Callable[[int, int], dict]:
    """A labelme shape as a function of the image's height and width."""
    if not isinstance(shape, dict) or not isinstance(shape.get('points'), list):
        raise FormatError('shapes with `points`')
    label, kind = _label(shape.get('label')), shape.get('shape_type') or 'polygon'
    points = [_numbers(p if isinstance(p, list) else [p], 'points') for p in shape['points']]
    if not points or any(len(p) != 2 for p in points):
        raise FormatError(f'points of two numbers in {label!r}')
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    corners = [min(xs), min(ys), max(xs), max(ys)]
    if kind == 'polygon' and len(points) >= 3:
        item = _polygon_object(label, [v for p in points for v in p])
    elif kind == 'circle' and len(points) == 2:
        radius = math.dist(*points)
        item = dict(type=label, corners=[xs[0] - radius, ys[0] - radius, xs[0] + radius, ys[0] + radius])
    elif kind == 'mask':
        return lambda h, w: _mask_object(label, shape.get('mask'), corners, h, w)
    elif kind in ('rectangle', 'line', 'linestrip', 'point', 'points', 'polygon'):
        item = dict(type=label, corners=corners)
    else:
        raise FormatError(f'a known shape type in {label!r}, found {_show(kind)}')
    return lambda h, w: item


def _mask_object(label: str, mask, corners: list[float], height: int, width: int) -> dict:
    """A labelme mask: a PNG in base64 that fills the corners, whose end is inclusive."""
    try:
        values = read(base64.b64decode(mask, validate=True)).pixels > 0
    except (ImagingError, TypeError, ValueError) as error:
        raise FormatError(f'a PNG in the mask of {label!r} ({_show(str(error))})') from None
    x, y = (math.floor(v) for v in corners[:2])
    full = np.zeros((height, width), bool)
    inside = values[max(-y, 0) : max(height - y, 0), max(-x, 0) : max(width - x, 0)]
    full[max(y, 0) : max(y, 0) + inside.shape[0], max(x, 0) : max(x, 0) + inside.shape[1]] = inside
    if not full.any():
        return dict(type=label, corners=[x, y, x, y])
    rows, columns = np.flatnonzero(full.any(1)), np.flatnonzero(full.any(0))
    corners = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
    return dict(type=label, corners=corners, segmentation=encode_rle(full))
