"""COCO: one JSON file for many images."""

from pathlib import Path

import numpy as np

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
from .rle import _uncompress, decode_rle

# ----------------------------------------------------------------------------------------------- COCO


_OF_ANNOTATIONS = {'images', 'annotations', 'categories', 'shapes', 'objects', 'boxes'}


"""Keys of a JSON file one of which an annotation has, be it COCO or not."""


def read_coco(src: Path) -> tuple[Images, Source]:
    """COCO: every JSON file with `images` and `annotations` below `src`; its split, if any, is not kept."""
    images, found, entries = Images(src), Source(), []
    for name in images.files('.json'):
        entries += _collect(found, images, name, lambda name=name: _coco_entries(name, images, found))
    _find_images(found, images, entries)
    if found.damaged:
        # Nobody knows which images a damaged file is about.
        found.doubtful |= images.paths.keys() - found.entries.keys()
    return images, found


def _coco_entries(name: str, images: Images, found: Source) -> list[Entry]:
    value = _json(images.others[name])
    if not value.keys() & _OF_ANNOTATIONS:
        found.files.remove(name)  # settings, a report, the head of a packed store
        return []
    tables = {}
    for key in ('images', 'annotations', 'categories'):
        rows = value.get(key)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise FormatError(f'COCO JSON with a list `{key}`')
        tables[key] = rows
    names, objects = {}, {}
    for row in tables['categories']:
        names[_key(row.get('id'))] = _label(row.get('name'))
    for row in tables['images']:
        key = _key(row.get('id'))
        if key in objects:
            raise FormatError(f'different image ids, found {_show(key)} twice')
        objects[key] = []
    for row in tables['annotations']:
        image, category = _key(row.get('image_id')), _key(row.get('category_id'))
        if image not in objects or category not in names:
            raise FormatError(
                f'annotation {_show(row.get("id"))} of a listed image and category, found '
                f'{_show(image)} and {_show(category)}'
            )
        objects[image].append((names[category], row))
    if not objects:
        found.put_aside(name, 'at least one image in the file, found none')
    entries = []
    for row in tables['images']:
        reference, own = row.get('file_name'), objects[_key(row.get('id'))]
        if not isinstance(reference, str) or not reference:
            image = f'image {_show(row.get("id"))}'
            found.put_aside(name, f'a file name, found {_show(reference)}', image, len(own))
            continue

        def make(_, height: int, width: int, own: list = own) -> list[dict]:
            return [_coco_object(label, row, height, width) for label, row in own]

        entries.append(Entry(reference, name, len(own), make, _size(row.get('width'), row.get('height'))))
    return entries


def _key(value):
    if not isinstance(value, (int, str)):
        raise FormatError(f'ids that are numbers or text, found {_show(value)}')
    return value


def _coco_object(name: str, row: dict, height: int, width: int) -> dict:
    segmentation = _coco_segmentation(row.get('segmentation'), height, width)
    box = row.get('bbox')
    if box:
        numbers = _numbers(box, 'bbox') if isinstance(box, list) else []
        if len(numbers) != 4 or min(numbers[2:]) < 0:
            raise FormatError(f'bbox [x, y, width, height], found {_show(box)}')
        x, y, w, h = numbers
        item = dict(type=name, corners=[x, y, x + w, y + h])
    elif isinstance(segmentation, list):
        points = [v for polygon in segmentation for v in polygon]
        item = _polygon_object(name, points)
    elif segmentation:
        mask = decode_rle(segmentation)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            raise FormatError(f'a mask of {name!r} that is not empty')
        corners = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        item = dict(type=name, corners=corners)
    else:
        raise FormatError(f'a bbox or segmentation in annotation {_show(row.get("id"))}')
    if segmentation:
        item['segmentation'] = segmentation
    if row.get('iscrowd') in (1, True):
        item['iscrowd'] = 1
    elif row.get('ignore') in (1, True):
        item['ignore'] = True
    return item


def _coco_segmentation(value, height: int, width: int):
    """Polygons, or RLE without compression; None without either."""
    if not value:
        return None
    if isinstance(value, list):
        polygons = [_numbers(p if isinstance(p, list) else [p], 'segmentation') for p in value]
        if any(len(p) < 6 or len(p) % 2 for p in polygons):
            raise FormatError('polygons of 3 or more points in segmentation')
        return polygons
    if not isinstance(value, dict) or value.get('size') != [height, width]:
        raise FormatError(f'a segmentation of size [{height}, {width}], found {_show(value)}')
    counts = value.get('counts')
    counts = _uncompress(counts) if isinstance(counts, str) else counts
    good = isinstance(counts, list) and all(type(c) is int and c >= 0 for c in counts)
    if not good or sum(counts) != height * width:
        raise FormatError(f'run lengths that add up to {height} x {width}')
    return dict(size=[height, width], counts=counts)
