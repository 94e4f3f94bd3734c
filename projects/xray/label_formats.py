"""Reading what inspectors' labelling tools write: Pascal VOC, YOLO, labelme and COCO.

Each reader lists the annotated images of a folder; each image's objects are dicts with `type` (a name),
`corners` (x1, y1, x2, y2 in px, from 0, at pixel edges) and optionally `segmentation`, as COCO's polygons or
uncompressed RLE. A file that cannot be understood is put in quarantine with its reason, never skipped.

These four are a few lines each over the standard library. The general converters (datumaro, supervision)
decode to 8 bits on the way, know no DICOM, and pass over a damaged file or stop at it.
"""

import base64
import json
import math
import posixpath
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import yaml
from PIL import Image

from .imaging import SUFFIXES, ImagingError, read

MAX_JSON = 48 * 2**20
"""Largest JSON file. With the next two it keeps the parsed file below 1 GB, whatever is in it."""
MAX_NESTS = 1_000_000
MAX_QUOTES = 8_000_000
MAX_DEPTH = 100
"""Lists within each other, in JSON and YAML. Annotations need fewer than ten."""
MAX_TEXT = 8 * 2**20
"""Largest XML or text file."""
MAX_TAGS = 1_000_000
"""Most tags of an XML file."""
MAX_YAML = 256 * 2**10
"""Largest YAML file, of some ten thousand types; its parser is slow."""
MAX_OBJECTS = 10_000
"""Most objects in one image."""

# A JSON string; not one that never ends, which is an error anyway.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_STEP = bytes(1 if c in b'[{' else 255 for c in range(256))  # as int8: 1 opens, -1 closes
_NO_BRACKET = bytes(c for c in range(256) if c not in b'[]{}')

_SHOW = reprlib.Repr()
_SHOW.maxlevel, _SHOW.maxlist, _SHOW.maxdict, _SHOW.maxstring, _SHOW.maxother = 2, 5, 3, 40, 40


def _show(value) -> str:
    """A short text of any value for an error, however deep or long it is."""
    try:
        return ' '.join(_SHOW.repr(value).split())
    except ValueError:  # an integer beyond Python's limit of digits
        return 'a huge number'


class FormatError(ValueError):
    """An annotation that cannot be understood: what was expected, without the file's name."""


@dataclass
class Entry:
    """One annotated image.

    Attributes:
        image: its name relative to the source, in `Images.paths`.
        source: annotation file.
        count: number of objects.
        objects: gives the objects, once the image's height and width in px are known.
    """

    image: str
    source: Path
    count: int
    objects: Callable[[int, int], list[dict]]


@dataclass
class Source:
    """What a reader found.

    Attributes:
        entries: annotated images by name.
        files: number of annotation files.
        quarantine: what was put aside, an annotation file or an image's place in one, and why.
        lost: objects that were put aside with it, as far as they could be counted.
        blocked: images whose annotation is in quarantine, so that they do not pass for unlabelled ones.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    files: int = 0
    quarantine: dict[str, str] = field(default_factory=dict)
    lost: int = 0
    blocked: set[str] = field(default_factory=set)


class Images:
    """The radiographs below a folder. An annotation can only name one of these, wherever its path points."""

    def __init__(self, src: Path, skip: tuple[str, ...] = ()) -> None:
        """List the radiographs below `src`, outside of folders named in `skip`."""
        self.src = src
        found = (p for p in src.rglob('*') if p.suffix.lower() in SUFFIXES and p.is_file())
        self.paths = {p.relative_to(src).as_posix(): p for p in sorted(found)}
        self.paths = {name: p for name, p in self.paths.items() if not set(name.split('/')[:-1]) & set(skip)}
        self._by_name: dict[str, list[str]] = {}
        for name in self.paths:
            file = posixpath.basename(name)
            for key in {file, posixpath.splitext(file)[0]}:
                self._by_name.setdefault(key, []).append(name)

    def named(self, key: str) -> list[str]:
        """Images with this file name, with or without suffix, in any folder."""
        return self._by_name.get(key, [])

    def find(self, reference: str, source: Path) -> str:
        """The image that an annotation file means: by its path from there or from the top, else by its name.

        Raises:
            FormatError: no image or several match.
        """
        reference = reference.replace('\\', '/')
        folder = source.parent.relative_to(self.src).as_posix()
        for base in (folder, ''):
            name = posixpath.normpath(posixpath.join(base, reference))
            if name in self.paths:
                return name
        file = posixpath.basename(reference)
        for key in (file, posixpath.splitext(file)[0]):
            names = self.named(key)
            if len(names) == 1:
                return names[0]
            if names:
                raise FormatError(f'one image named {key!r}, found {len(names)} in different folders')
        raise FormatError(f'its image {reference[:80]!r} below the source, found none')


def _text(path: Path, limit: int = MAX_TEXT) -> bytes:
    try:
        if path.stat().st_size > limit:
            raise FormatError(f'at most {limit >> 20} MiB')
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f'a readable file ({error.strerror})') from None


def parse_json(data: bytes):
    """The value of a JSON text, however deep it nests.

    Raises:
        FormatError: it is no JSON, or its lists lie too deep.
    """
    # Python's parser descends on the C stack, which the recursion limit need not protect: libraries raise it.
    brackets = _STRING.sub(b'', data).translate(_STEP, _NO_BRACKET)
    depth = np.cumsum(np.frombuffer(brackets, np.int8), dtype=np.int32).max(initial=0)
    if depth > MAX_DEPTH:
        raise FormatError(f'JSON of at most {MAX_DEPTH} lists within each other, found {depth}')
    try:
        return json.loads(data)
    except ValueError as error:
        raise FormatError(f'JSON ({_show(str(error))})') from None


def parse_yaml(data: bytes):
    """The value of a YAML text, however deep it nests.

    Raises:
        FormatError: it is no YAML, or too large, or its collections lie too deep.
    """
    if len(data) > MAX_YAML:
        raise FormatError(f'at most {MAX_YAML >> 10} KiB of YAML')
    depth = 0
    try:
        for event in yaml.parse(data, yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise FormatError(f'YAML of at most {MAX_DEPTH} lists within each other')
        return yaml.load(data, yaml.CSafeLoader)
    except FormatError:
        raise
    except Exception as error:  # yaml lets TypeError, AttributeError and others through
        raise FormatError(f'YAML ({_show(str(error))})') from None


def _json(path: Path) -> dict:
    """A JSON object."""
    data = _text(path, MAX_JSON)
    if data.count(b'[') + data.count(b'{') > MAX_NESTS or data.count(b'"') > MAX_QUOTES:
        raise FormatError(f'at most {MAX_NESTS} lists and objects and {MAX_QUOTES // 2} strings in a file')
    value = parse_json(data)
    if not isinstance(value, dict):
        raise FormatError('a JSON object')
    return value


def _numbers(values, what: str) -> list[float]:
    """Finite floats."""
    try:
        numbers = [float(v) for v in values]
    except (TypeError, ValueError, OverflowError):
        numbers = [math.nan]
    if not numbers or not all(math.isfinite(v) and abs(v) < 1e7 for v in numbers):
        raise FormatError(f'finite numbers for {what}, found {_show(values)}')
    return numbers


def _label(value) -> str:
    if not isinstance(value, str) or not value.strip():
        raise FormatError(f'a type name, found {_show(value)}')
    return value.strip()


def _polygon_object(label: str, points: list[float]) -> dict:
    """An object whose box is the extent of a polygon x1 y1 x2 y2 …, which it keeps."""
    xs, ys = points[::2], points[1::2]
    return dict(type=label, corners=[min(xs), min(ys), max(xs), max(ys)], segmentation=[points])


def _collect(found: Source, images: Images, path: Path, read_one: Callable[[], list[Entry]]) -> None:
    """Add one annotation file's entries, or put it in quarantine."""
    found.files += 1
    name = path.relative_to(images.src).as_posix()
    try:
        entries = read_one()
    except FormatError as error:
        found.quarantine[name] = f'expected {error}'
        # The image of the same name must not pass for an unlabelled one.
        found.blocked.update(images.named(path.stem))
        return
    for entry in entries:
        if entry.image in found.entries:
            second = 'expected one annotation per image, found a second one'
            found.quarantine[f'{name}: {entry.image}'] = second
            found.lost += entry.count
        else:
            found.entries[entry.image] = entry


# ------------------------------------------------------------------------------------------------ VOC


def read_voc(src: Path) -> tuple[Images, Source]:
    """Pascal VOC: one XML file per image, anywhere below `src`, beside or apart from the images.

    Corners are taken as pixel edges counted from 0, as LabelImg and CVAT write them; the PASCAL challenge
    itself counted pixels from 1, one pixel less. Instance masks in `SegmentationObject/<stem>.png`, whose
    value k marks the k-th object, are kept.
    """
    images = Images(src, skip=('SegmentationObject', 'SegmentationClass'))
    masks = {p.stem: p for p in sorted(src.rglob('SegmentationObject/*.png'))}
    found = Source()
    for path in sorted(src.rglob('*.xml')):

        def read_one(path: Path = path) -> list[Entry]:
            objects = _voc_objects(path)
            name = images.find(objects.pop('filename') or path.name, path)
            mask = masks.get(posixpath.splitext(posixpath.basename(name))[0])
            items = objects['objects']
            return [Entry(name, path, len(items), lambda h, w: _with_masks(items, mask, h, w))]

        _collect(found, images, path, read_one)
    return images, found


def _voc_objects(path: Path) -> dict:
    """File name and objects of one VOC file."""
    data = _text(path)
    # expat limits how far entities may grow; a VOC file needs none.
    if b'<!DOCTYPE' in data or b'<!ENTITY' in data:
        raise FormatError('VOC XML without a document type')
    if data.count(b'<') > MAX_TAGS:
        raise FormatError(f'at most {MAX_TAGS} tags of XML')
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise FormatError(f'XML ({_show(str(error))})') from None
    if root.tag != 'annotation':
        raise FormatError(f'a VOC annotation, found <{root.tag[:40]}>')
    objects = []
    for item in root.findall('object'):
        box = item.find('bndbox')
        values = [None if box is None else box.findtext(key) for key in ('xmin', 'ymin', 'xmax', 'ymax')]
        objects.append(dict(type=_label(item.findtext('name')), corners=_numbers(values, 'bndbox')))
    return dict(filename=(root.findtext('filename') or '').strip(), objects=objects)


def _with_masks(objects: list[dict], mask: Path | None, height: int, width: int) -> list[dict]:
    """Objects with the masks of a VOC instance image."""
    if mask is None:
        return objects
    try:
        # A palette image: its indices are wanted, not its colours.
        with Image.open(mask) as image:
            if image.size != (width, height):
                raise FormatError(f'masks of {width} x {height} px in {mask.name}, found {image.size}')
            values = np.asarray(image if image.mode in ('P', 'L') else image.convert('L'))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FormatError(f'an instance mask in {mask.name} ({_show(str(error))})') from None
    return [
        dict(item, segmentation=encode_rle(values == k)) if (values == k).any() else item
        for k, item in enumerate(objects, 1)
    ]


# ----------------------------------------------------------------------------------------------- YOLO


def read_yolo(src: Path) -> tuple[Images, Source]:
    """YOLO: one text file per image with rows `class cx cy w h` or `class x1 y1 x2 y2 x3 y3 …`, relative to
    the image's size; in `labels/` where the image is in `images/`, or beside it.

    Class names come from the first of data.yaml, dataset.yaml, *.yaml with `names`, classes.txt, obj.names.
    An image without a file is unlabelled; an empty file says that it is free of defects.
    """
    images = Images(src)
    names, names_file = _yolo_names(src)
    found = Source()
    label_files = {
        p.relative_to(src).as_posix(): p
        for p in sorted(src.rglob('*.txt'))
        if p != names_file and p.name != 'classes.txt'
    }
    used = set()
    for image in images.paths:
        stem = posixpath.splitext(image)[0]
        parts = stem.split('/')
        apart = [
            '/'.join(parts[:i] + ['labels'] + parts[i + 1 :]) for i, p in enumerate(parts) if p == 'images'
        ]
        label = next((c for s in (*reversed(apart), stem) if (c := f'{s}.txt') in label_files), None)
        if label is None:
            continue
        if label in used:
            found.quarantine[f'{label}: {image}'] = (
                'expected one image per file of labels, found a second one'
            )
            found.blocked.add(image)
            continue
        used.add(label)
        path = label_files[label]

        def read_one(image: str = image, path: Path = path) -> list[Entry]:
            rows = _yolo_rows(path, names)
            return [Entry(image, path, len(rows), lambda h, w: _yolo_objects(rows, h, w))]

        _collect(found, images, path, read_one)
        if label in found.quarantine:
            found.blocked.add(image)
    for label in sorted(label_files.keys() - used):
        # Lists of images and readme files lie about in YOLO folders; only files of `labels/` count.
        if 'labels' in label.split('/')[:-1]:
            found.files += 1
            found.quarantine[label] = 'expected its image below the source, found none'
    return images, found


def _yolo_names(src: Path) -> tuple[list[str] | dict, Path]:
    """Class names by index, and the file that holds them."""
    for path in (
        src / 'data.yaml',
        src / 'dataset.yaml',
        *sorted(src.glob('*.yaml')),
        *sorted(src.glob('*.yml')),
    ):
        if path.is_file():
            try:
                value = parse_yaml(_text(path))
            except FormatError as error:
                raise FormatError(f'{error}, in {path.name}') from None
            names = value.get('names') if isinstance(value, dict) else None
            if isinstance(names, list) and names:
                return [_label(n) for n in names], path
            if isinstance(names, dict) and names:
                return {_class_index(k): _label(n) for k, n in names.items()}, path
    for path in (src / 'classes.txt', src / 'labels' / 'classes.txt', src / 'obj.names'):
        if path.is_file():
            return [
                line.strip() for line in _text(path).decode(errors='replace').splitlines() if line.strip()
            ], path
    raise FormatError('class names in data.yaml (names: [...]) or classes.txt, found neither; add one')


def _class_index(value) -> int:
    if not str(value).isdecimal():
        raise FormatError(f'class numbers before the names, found {_show(value)}')
    return int(value)


def _yolo_rows(path: Path, names: list[str] | dict) -> list[tuple[str, list[float]]]:
    rows = []
    for number, line in enumerate(_text(path).decode(errors='replace').splitlines(), 1):
        if not line.strip():
            continue
        first, *rest = line.split()
        try:
            index = int(first)
            if index < 0:
                raise IndexError
            name = names[index]
        except (ValueError, IndexError, KeyError):
            raise FormatError(f'a class of the names file in line {number}, found {first[:20]!r}') from None
        values = _numbers(rest, f'line {number}')
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise FormatError(
                f'4 numbers, or 3 or more points, after the class in line {number}, found {len(values)}'
            )
        if max(map(abs, values)) > 2:
            raise FormatError(f'coordinates relative to the image in line {number}, found {max(values):g}')
        rows.append((name, values))
    return rows


def _yolo_objects(rows: list[tuple[str, list[float]]], height: int, width: int) -> list[dict]:
    objects = []
    for name, values in rows:
        if len(values) == 4:
            cx, cy, w, h = values
            # To 1/1000 px: files hold six digits, and a box at the border must not stick out by 1e-13.
            corners = [
                (cx - w / 2) * width,
                (cy - h / 2) * height,
                (cx + w / 2) * width,
                (cy + h / 2) * height,
            ]
            objects.append(dict(type=name, corners=[round(v, 3) for v in corners]))
        else:
            points = [round(v * (height if i % 2 else width), 3) for i, v in enumerate(values)]
            objects.append(_polygon_object(name, points))
    return objects


# -------------------------------------------------------------------------------------------- labelme


def read_labelme(src: Path) -> tuple[Images, Source]:
    """Labelme: one JSON file per image with rectangles, polygons, masks, circles and lines.

    Polygons and masks are kept beside their boxes. Circles, lines and points become their extents, so that
    a point or an upright line has no area and is counted as such.
    """
    images, found = Images(src), Source()
    for path in sorted(src.rglob('*.json')):

        def read_one(path: Path = path) -> list[Entry]:
            value = _json(path)
            if not isinstance(value.get('shapes'), list):
                raise FormatError('labelme JSON with `shapes`')
            reference = value.get('imagePath')
            name = images.find(reference if isinstance(reference, str) and reference else path.name, path)
            shapes = [_shape(shape) for shape in value['shapes']]
            return [Entry(name, path, len(shapes), lambda h, w: [make(h, w) for make in shapes])]

        _collect(found, images, path, read_one)
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


# ----------------------------------------------------------------------------------------------- COCO


def read_coco(src: Path) -> tuple[Images, Source]:
    """COCO: every JSON file with `images` and `annotations` below `src`; its split, if any, is not kept."""
    images, found = Images(src), Source()
    for path in sorted(src.rglob('*.json')):
        _collect(found, images, path, lambda path=path: _coco_entries(path, images, found))
    if found.quarantine:
        # Nobody knows which images a damaged file is about.
        found.blocked |= images.paths.keys() - found.entries.keys()
    return images, found


def _coco_entries(path: Path, images: Images, found: Source) -> list[Entry]:
    value = _json(path)
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
    entries = []
    name = path.relative_to(images.src).as_posix()
    for row in tables['images']:
        reference, own = row.get('file_name'), objects[_key(row.get('id'))]
        try:
            if not isinstance(reference, str):
                raise FormatError(f'a file name of image {_show(row.get("id"))}')
            image = images.find(reference, path)
        except FormatError as error:
            found.quarantine[f'{name}: {_show(reference)}'] = f'expected {error}'
            found.lost += len(own)
            continue
        entries.append(
            Entry(image, path, len(own), lambda h, w, own=own: [_coco_object(n, r, h, w) for n, r in own])
        )
    return entries


def _key(value):
    if not isinstance(value, (int, str)):
        raise FormatError(f'ids that are numbers or text, found {_show(value)}')
    return value


def _coco_object(name: str, row: dict, height: int, width: int) -> dict:
    segmentation = _coco_segmentation(row.get('segmentation'), height, width)
    box = row.get('bbox')
    if box:
        x, y, w, h = (
            (*_numbers(box, 'bbox'), 0, 0, 0, 0)[:4] if isinstance(box, list) else _numbers([box], 'bbox')
        )
        if len(box) != 4 or w < 0 or h < 0:
            raise FormatError(f'bbox [x, y, width, height], found {_show(box)}')
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


# ------------------------------------------------------------------------------------------------ RLE


def _uncompress(text: str) -> list[int]:
    """Run lengths of COCO's compressed RLE: 5 bits per character from 48, differences from the third on."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise FormatError('compressed run lengths')
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def encode_rle(mask: np.ndarray) -> dict:
    """COCO's uncompressed RLE of a boolean mask (H, W): run lengths down the columns, zeros first."""
    flat = mask.ravel(order='F')
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return dict(size=list(mask.shape), counts=[0, *counts] if flat[0] else counts)


def decode_rle(rle: dict) -> np.ndarray:
    """Boolean mask (H, W) of COCO's uncompressed RLE."""
    values = np.arange(len(rle['counts'])) % 2 == 1
    return np.repeat(values, rle['counts']).reshape(rle['size'], order='F')


READERS = {'voc': read_voc, 'yolo': read_yolo, 'labelme': read_labelme, 'coco': read_coco}
