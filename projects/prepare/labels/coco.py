"""COCO: JSON files of images, annotations and categories."""

import re
from pathlib import Path

from projects.radiograph.rle import count_regions, decode_rle, extent, uncompress
from projects.radiograph.safe_parse import FormatError, _show, flag_of
from projects.xray.errors import DatasetError
from projects.xray.parquet import SUFFIX, read_whole

from .fields import TURNED, label_of, numbers_of, polygon_object, read_json, size_of, turn, turned_object
from .images import Entry, Images, Source, collect, find_images

ONE_REGION = 'mask of one region marked as crowd read as one object'
"""CVAT marks every mask as crowd, since COCO has run lengths only for crowds."""

_OF_ANNOTATIONS = {'images', 'annotations', 'categories', 'shapes', 'objects', 'boxes'}
"""Keys of a JSON file; an annotation has one of them, in COCO and in formats like it."""


def read_coco(src: Path) -> tuple[Images, Source]:
    """Read COCO: every JSON file, or its Parquet form, with `images` and `annotations` below `src`.

    The division of images among files is not kept. CVAT's turned boxes (`attributes.rotation`) become the
    upright boxes around them. A crowd (`iscrowd`) stays a crowd, unless it is a mask of one region, since
    CVAT writes every mask as crowd.
    """
    images, found, entries = Images(src), Source(), []
    for name in [*images.files('.json'), *images.files(SUFFIX)]:
        entries += collect(found, images, name, lambda name=name: _entries(name, images, found))
    find_images(found, images, entries)
    if found.damaged:
        # The images of a damaged file are unknown.
        found.doubtful |= images.paths.keys() - found.entries.keys()
    return images, found


def read_coco_file(path: Path) -> dict:
    """Return the object of a JSON file or its Parquet form; raise FormatError if there is none."""
    if path.suffix.lower() != SUFFIX:
        return read_json(path)
    try:
        return read_whole(path, path.name)
    except DatasetError as error:
        raise FormatError(str(error).partition(': expected ')[2]) from None


def _entries(name: str, images: Images, found: Source) -> list[Entry]:
    value = read_coco_file(images.others[name])
    if not value.keys() & _OF_ANNOTATIONS:
        found.files.remove(name)  # settings, a report, the head of a packed store
        return []
    tables = tables_of(value)
    names = _categories(tables['categories'])
    objects: dict[int | str, list[tuple[str, dict]]] = {}
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
    _check_unit(tables['annotations'])
    entries = []
    for row in tables['images']:
        reference, own = row.get('file_name'), objects[_key(row.get('id'))]
        if not isinstance(reference, str) or not reference:
            image = f'image {_show(row.get("id"))}'
            found.put_aside(name, f'a file name, found {_show(reference)}', image, len(own))
            continue

        def make(_: str, height: int, width: int, own: list = own) -> list[dict]:
            return [_object(label, row, height, width) for label, row in own]

        entries.append(Entry(reference, name, len(own), make, size_of(row.get('width'), row.get('height'))))
    return entries


def tables_of(value: dict) -> dict[str, list[dict]]:
    """Return the three lists of a COCO file."""
    tables = {}
    for key in ('images', 'annotations', 'categories'):
        rows = value.get(key)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise FormatError(f'COCO JSON with a list `{key}`')
        tables[key] = rows
    return tables


def _categories(rows: list[dict]) -> dict[int | str, str]:
    """Return type names by category id; refuse an id with two names, since one would replace the other."""
    names: dict[int | str, str] = {}
    for row in rows:
        key, name = _key(row.get('id')), label_of(row.get('name'))
        if names.setdefault(key, name) != name:
            raise FormatError(
                f'one name for each category id, found {_show(names[key])} and {_show(name)} with id '
                f'{_show(key)}; give each category its own id'
            )
    return names


def _check_unit(rows: list[dict]) -> None:
    """Raise FormatError if all boxes are fractions of the image size, not px."""
    boxes = [row['bbox'] for row in rows if isinstance(row.get('bbox'), list) and len(row['bbox']) == 4]
    values = [v for box in boxes for v in box if isinstance(v, int | float)]
    if len(boxes) == len(rows) and any(v % 1 for v in values) and all(0 <= v <= 1 for v in values):
        raise FormatError('boxes in px, found only numbers from 0 to 1; multiply them by the image size')


def _key(value) -> int | str:
    """Return an id. VIA writes some ids as numbers and others as text: '7' is 7."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise FormatError(f'ids that are numbers or text, found {_show(value)}')
    if isinstance(value, str) and re.fullmatch('0|-?[1-9][0-9]{0,17}', value):
        return int(value)
    return value


# --------------------------------------------------------------------------------------------- objects


def _object(name: str, row: dict, height: int, width: int) -> dict:
    segmentation = _segmentation(row.get('segmentation'), height, width)
    attributes = row['attributes'] if isinstance(row.get('attributes'), dict) else {}
    (degrees,) = numbers_of([attributes.get('rotation') or 0], 'attributes.rotation')
    crowd = flag_of(row.get('iscrowd'), 'iscrowd')
    ignore = any([flag_of(v, 'ignore') for v in (row.get('ignore'), attributes.get('difficult'))])
    item = _outline(name, row, segmentation, degrees % 180)
    if segmentation:
        item['segmentation'] = segmentation
    if crowd and not ignore and isinstance(segmentation, dict):
        crowd = count_regions(decode_rle(segmentation)) != 1
        if not crowd:
            item['repairs'] = (ONE_REGION,)
    if ignore:
        item['ignore'] = True
    elif crowd:
        item['iscrowd'] = 1
    return item


def _outline(name: str, row: dict, segmentation: list | dict | None, degrees: float) -> dict:
    """Return the object of an annotation from its box, else from its segmentation."""
    box = row.get('bbox')
    if box and not (degrees and segmentation):
        numbers = numbers_of(box, 'bbox') if isinstance(box, list) else []
        if len(numbers) != 4 or min(numbers[2:]) < 0:
            raise FormatError(f'bbox [x, y, width, height], found {_show(box)}')
        x, y, w, h = numbers
        if degrees:
            return turned_object(name, turn(x, y, w, h, degrees))
        return dict(type=name, corners=[x, y, x + w, y + h])
    if isinstance(segmentation, list):
        item = polygon_object(name, [v for polygon in segmentation for v in polygon])
        return item | dict(repairs=(TURNED,)) if degrees and box else item
    if segmentation:
        mask = decode_rle(segmentation)
        if not mask.any():
            raise FormatError(f'a mask of {name!r} that is not empty')
        return dict(type=name, corners=extent(mask))
    raise FormatError(f'a bbox or segmentation in annotation {_show(row.get("id"))}')


def _segmentation(value, height: int, width: int) -> list | dict | None:
    """Return polygons or uncompressed RLE; None without either."""
    if not value:
        return None
    if isinstance(value, list):
        if not any(isinstance(p, list) for p in value):
            value = [value]  # VIA: one polygon that is not in a list
        polygons = [numbers_of(p if isinstance(p, list) else [p], 'segmentation') for p in value if p != []]
        if any(len(p) < 6 or len(p) % 2 for p in polygons):
            raise FormatError('polygons of 3 or more points in segmentation')
        return polygons or None
    if not isinstance(value, dict) or value.get('size') != [height, width]:
        raise FormatError(f'a segmentation of size [{height}, {width}], found {_show(value)}')
    counts = value.get('counts')
    counts = uncompress(counts) if isinstance(counts, str) else counts
    good = isinstance(counts, list) and all(type(c) is int and c >= 0 for c in counts)
    if not good or sum(counts) != height * width:
        raise FormatError(f'run lengths that add up to {height} x {width}')
    return dict(size=[height, width], counts=counts)
