"""Reading what inspectors' labelling tools write: Pascal VOC, YOLO, labelme and COCO.

Each reader lists the annotated images of a folder; each image's objects are dicts with `type` (a name),
`corners` (x1, y1, x2, y2 in px, from 0, at pixel edges) and optionally `segmentation`, as COCO's polygons or
uncompressed RLE, `iscrowd`, and `ignore` where the tool says so. A file that cannot be understood is put in
quarantine with its reason, never skipped.

These four are a few lines each over the standard library. The general converters (datumaro, supervision)
decode to 8 bits on the way, know no DICOM, and pass over a damaged file or stop at it.
"""

import base64
import json
import math
import posixpath
import re
import reprlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
import yaml
from PIL import Image

from .imaging import SUFFIXES, ImagingError, files_below, is_radiograph, read

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

# Characters that break a line or that UTF-8 does not have: names of files may hold any.
_UNPRINTABLE = re.compile('[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')

_SHOW = reprlib.Repr()
_SHOW.maxlevel, _SHOW.maxlist, _SHOW.maxdict, _SHOW.maxstring, _SHOW.maxother = 2, 5, 3, 40, 40


def _show(value) -> str:
    """A short text of any value for an error, however deep or long it is."""
    try:
        return ' '.join(_SHOW.repr(value).split())
    except ValueError:  # an integer beyond Python's limit of digits
        return 'a huge number'


def is_printable(name: str) -> bool:
    """Whether a name has one line, in UTF-8."""
    return not _UNPRINTABLE.search(name)


def printable(text: str) -> str:
    """A text in one line of UTF-8, whatever is in it, with escapes such as `\\udcff`."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode('unicode_escape').decode(), text)


class FormatError(ValueError):
    """An annotation that cannot be understood: what was expected, without the file's name."""


@dataclass
class Entry:
    """One annotated image.

    Attributes:
        reference: how the annotation file names the image.
        source: annotation file, relative to the source folder.
        count: number of objects.
        objects: gives the objects, once the image's name, height and width in px are known.
        size: width and height in px of the image that they were drawn on; None where the file does not say.
        image: the image in `Images.paths`; empty until it is found.
    """

    reference: str
    source: str
    count: int
    objects: Callable[[str, int, int], list[dict]]
    size: tuple[int, int] | None = None
    image: str = ''


@dataclass
class Source:
    """What a reader found.

    Attributes:
        entries: annotated images by name.
        files: annotation files.
        used: further files that were read, such as names of classes and masks.
        quarantine: what was put aside, an annotation file or an image's place in one, and why.
        aside: annotation files of which anything was put aside.
        lost: objects that were put aside with it, as far as they could be counted.
        blocked: images whose annotation is in quarantine, so that they do not pass for unlabelled ones.
        doubtful: images without annotation of which a file that could not be understood may say something.
        damaged: files of which nothing could be understood.
        by_name: number of images found by their name alone.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    quarantine: dict[str, str] = field(default_factory=dict)
    aside: set[str] = field(default_factory=set)
    lost: int = 0
    blocked: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    damaged: list[str] = field(default_factory=list)
    by_name: int = 0

    def put_aside(self, file: str, reason: str, reference: str = '', count: int = 0) -> None:
        """Put an annotation file, or one image's place in it, in quarantine.

        Args:
            file: annotation file.
            reason: what was expected of it.
            reference: the image, where the file names several.
            count: number of objects that are lost with it.
        """
        self.quarantine[f'{file}: {reference}' if reference else file] = f'expected {reason}'
        self.aside.add(file)
        self.lost += count


class Images:
    """The files below a folder: radiographs, and what may be annotations.

    An annotation can only name one of these radiographs, wherever its path points.

    Attributes:
        src: the folder.
        paths: radiographs by name, which is the path relative to `src`.
        others: all other files by name, but for hidden ones.
        hidden: number of files whose name begins with a dot.
    """

    def __init__(self, src: Path, skip: tuple[str, ...] = ()) -> None:
        """List the files below `src`; those of folders named in `skip` are no radiographs."""
        self.src = src
        self.paths: dict[str, Path] = {}
        self.others: dict[str, Path] = {}
        self.hidden = 0
        for name in files_below(src):
            path, folders = src / name, name.split('/')[:-1]
            if path.name.startswith('.'):
                self.hidden += 1
            elif is_radiograph(path) and not set(folders) & set(skip):
                self.paths[name] = path
            else:
                self.others[name] = path
        self._at: dict[str, list[str]] = {}
        self._named: dict[str, list[str]] = {}
        for name in self.paths:
            for key in {name, _stem(name)}:
                self._at.setdefault(key, []).append(name)
                self._named.setdefault(posixpath.basename(key), []).append(name)

    def files(self, suffix: str) -> list[str]:
        """Files with this suffix, in lower or upper case, that are no radiographs."""
        return [name for name in self.others if name.lower().endswith(suffix)]

    def named(self, file: str) -> list[str]:
        """Images with this file name, with or without suffix, in any folder."""
        return self._named.get(file, [])

    def at(self, path: str) -> list[str]:
        """The image at a path."""
        return [path] if path in self.paths else []

    def near(self, path: str) -> list[str]:
        """The images whose path differs in the suffix only."""
        return next((self._at[key] for key in _without_suffix(path) if key in self._at), [])

    def alike(self, reference: str) -> list[str]:
        """The images with the file name of a reference; where there are none, those without its suffix."""
        file = posixpath.basename(reference)
        return next((self._named[key] for key in _without_suffix(file) if key in self._named), [])


def _stem(name: str) -> str:
    """A name without the suffix of a radiograph: DICOM files may be named by numbers with dots."""
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name


def _without_suffix(name: str) -> tuple[str, str]:
    return name, posixpath.splitext(name)[0]


def _find_images(found: Source, images: Images, entries: list[Entry]) -> None:
    """Find the image of each entry: by its path from the annotation file, from the top, else by its name.

    What one file names by a path is never taken for another's by the name alone, nor by one of two that could
    mean it.
    """
    for entry in entries:
        entry.reference = posixpath.normpath(entry.reference.replace('\\', '/'))
    several = Counter(entry.source for entry in entries)
    taken = {entry.image for entry in entries}
    waiting = [entry for entry in entries if not entry.image]

    def settle(way: Callable[[Entry], list[str]]) -> None:
        for entry in waiting:
            names = way(entry)
            if len(names) == 1 and names[0] not in taken:
                entry.image = names[0]
        taken.update(entry.image for entry in waiting)
        waiting[:] = [entry for entry in waiting if not entry.image]

    def beside(entry: Entry) -> str:
        return posixpath.normpath(posixpath.join(posixpath.dirname(entry.source), entry.reference))

    settle(lambda entry: images.at(beside(entry)))
    settle(lambda entry: images.near(beside(entry)))
    settle(lambda entry: images.at(entry.reference))
    settle(lambda entry: images.near(entry.reference))
    alike = {id(entry): images.alike(entry.reference) for entry in waiting}
    claims = Counter(names[0] for names in alike.values() if len(names) == 1 and names[0] not in taken)
    before = len(waiting)
    settle(lambda entry: [name for name in alike[id(entry)] if claims[name] < 2])
    found.by_name = before - len(waiting)
    for entry in waiting:
        names = alike[id(entry)]
        if len(names) > 1:
            file = posixpath.basename(entry.reference)
            reason = f'one image named {_show(file)}, found {len(names)} in different folders'
        else:
            reason = f'its image {_show(entry.reference)} below the source, found '
            reason += f'only {names[0]}, which others name too' if names else 'none'
        reference = _show(entry.reference) if several[entry.source] > 1 else ''
        found.put_aside(entry.source, reason, reference, entry.count)
        found.blocked.update(names, images.named(PurePosixPath(entry.source).stem))
    for entry in entries:
        if entry.image in found.entries:
            second = 'one annotation per image, found a second one'
            found.put_aside(entry.source, second, entry.image, entry.count)
        elif entry.image:
            found.entries[entry.image] = entry


def _text(path: Path, limit: int = MAX_TEXT) -> bytes:
    try:
        if path.stat().st_size > limit:
            raise FormatError(f'at most {limit >> 20} MiB')
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f'a readable file ({error.strerror})') from None


def parse_json(data: bytes):
    """The value of a JSON text, in less than 1 GB whatever is in it.

    Raises:
        FormatError: it is no JSON, or too large, or its lists lie too deep.
    """
    check_json_size(data)
    # Python's parser descends on the C stack, which the recursion limit need not protect: libraries raise it.
    brackets = _STRING.sub(b'', data).translate(_STEP, _NO_BRACKET)
    depth = np.cumsum(np.frombuffer(brackets, np.int8), dtype=np.int32).max(initial=0)
    if depth > MAX_DEPTH:
        raise FormatError(f'JSON of at most {MAX_DEPTH} lists within each other, found {depth}')
    try:
        return json.loads(data)
    except ValueError as error:
        raise FormatError(f'JSON ({_show(str(error))})') from None


def check_json_size(data: bytes) -> None:
    """Raise FormatError where a JSON text could take more than 1 GB once it is parsed."""
    if len(data) > MAX_JSON:
        raise FormatError(f'at most {MAX_JSON >> 20} MiB')
    if data.count(b'[') + data.count(b'{') > MAX_NESTS or data.count(b'"') > MAX_QUOTES:
        raise FormatError(f'at most {MAX_NESTS} lists and objects and {MAX_QUOTES // 2} strings in a file')


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
    value = parse_json(_text(path, MAX_JSON))
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


def _size(width, height) -> tuple[int, int] | None:
    """Size in px of the image that was annotated; None unless both are whole numbers above 0."""
    return (width, height) if all(type(v) is int and v > 0 for v in (width, height)) else None


def _collect(found: Source, images: Images, name: str, read_one: Callable[[], list[Entry]]) -> list[Entry]:
    """One annotation file's entries; none, and the file in quarantine, where it cannot be understood."""
    found.files.append(name)
    try:
        return read_one()
    except FormatError as error:
        found.put_aside(name, str(error))
        found.damaged.append(name)
        # The image of the same name must not pass for an unlabelled one.
        found.blocked.update(images.named(PurePosixPath(name).stem))
        return []


# ------------------------------------------------------------------------------------------------ VOC


def read_voc(src: Path) -> tuple[Images, Source]:
    """Pascal VOC: one XML file per image, anywhere below `src`, beside or apart from the images.

    Corners are taken as pixel edges counted from 0, as LabelImg and CVAT write them; the PASCAL challenge
    itself counted pixels from 1, one pixel less. Objects marked difficult are to be ignored. Instance masks
    in the `SegmentationObject/<stem>.png` above the image, whose value k marks the k-th object, are kept.
    """
    images = Images(src, skip=('SegmentationObject', 'SegmentationClass'))
    found, entries = Source(), []

    def read_one(name: str) -> list[Entry]:
        file, size, items = _voc_objects(images.others[name])

        def objects(image: str, height: int, width: int) -> list[dict]:
            mask = _voc_mask(image, images)
            if mask is None:
                return items
            found.used.add(mask)
            return _with_masks(items, images.others[mask], height, width)

        return [Entry(file or PurePosixPath(name).stem, name, len(items), objects, size)]

    for name in images.files('.xml'):
        entries += _collect(found, images, name, lambda name=name: read_one(name))
    _find_images(found, images, entries)
    return images, found


def _voc_mask(image: str, images: Images) -> str | None:
    """The instance image of a radiograph: in the `SegmentationObject` nearest above it."""
    stem = posixpath.basename(_stem(image))
    for folder in PurePosixPath(image).parents:
        name = (folder / 'SegmentationObject' / f'{stem}.png').as_posix()
        if name in images.others:
            return name
    return None


def _refuse_doctype(*args) -> None:
    raise FormatError('VOC XML without a document type')


def _voc_objects(path: Path) -> tuple[str, tuple[int, int] | None, list[dict]]:
    """File name, width and height, and objects of one VOC file."""
    data = _text(path)
    if data.count(b'<') > MAX_TAGS:
        raise FormatError(f'at most {MAX_TAGS} tags of XML')
    # Entities are declared in a document type, which a VOC file does not need. Only a parser finds one in any
    # encoding.
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(data, True)
        root = ElementTree.fromstring(data)
    except FormatError:
        raise
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise FormatError(f'XML ({_show(str(error))})') from None
    if root.tag != 'annotation':
        raise FormatError(f'a VOC annotation, found <{root.tag[:40]}>')
    objects = []
    for item in root.findall('object'):
        box = item.find('bndbox')
        values = [None if box is None else box.findtext(key) for key in ('xmin', 'ymin', 'xmax', 'ymax')]
        found = dict(type=_label(item.findtext('name')), corners=_numbers(values, 'bndbox'))
        if (item.findtext('difficult') or '').strip() == '1':
            found['ignore'] = True
        objects.append(found)
    sides = [(root.findtext(f'size/{key}') or '').strip() for key in ('width', 'height')]
    size = _size(*(int(v) if re.fullmatch('[0-9]{1,9}', v) else 0 for v in sides))
    return (root.findtext('filename') or '').strip(), size, objects


def _with_masks(objects: list[dict], mask: Path, height: int, width: int) -> list[dict]:
    """Objects with the masks of a VOC instance image."""
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
    labels = {name: path for name in images.files('.txt') if (path := images.others[name]) != names_file}
    labels = {name: path for name, path in labels.items() if path.name != 'classes.txt'}
    found, entries = Source(), []
    found.used = {name for name, path in images.others.items() if path == names_file}
    of_label: dict[str, str] = {}

    def read_one(image: str, label: str) -> list[Entry]:
        rows = _yolo_rows(labels[label], names)
        return [Entry(image, label, len(rows), lambda _, h, w: _yolo_objects(rows, h, w), image=image)]

    for image in images.paths:
        stem = _stem(image)
        parts = stem.split('/')
        apart = [
            '/'.join(parts[:i] + ['labels'] + parts[i + 1 :]) for i, p in enumerate(parts) if p == 'images'
        ]
        label = next((c for s in (*reversed(apart), stem) if (c := f'{s}.txt') in labels), None)
        if label is None:
            continue
        if label in of_label:
            found.put_aside(label, 'one image per file of labels, found a second one', image)
            found.blocked.add(image)
            continue
        of_label[label] = image
        entries += _collect(found, images, label, lambda image=image, label=label: read_one(image, label))
        if label in found.quarantine:
            found.blocked.add(image)
    for label in sorted(labels.keys() - of_label.keys()):
        # Lists of images and notes lie about in YOLO folders; they are no rows of numbers.
        if 'labels' in label.split('/')[:-1] or _is_yolo(labels[label], names):
            found.files.append(label)
            found.put_aside(label, 'its image below the source, found none')
    _find_images(found, images, entries)
    return images, found


def _is_yolo(path: Path, names: list[str] | dict) -> bool:
    try:
        return bool(_yolo_rows(path, names))
    except FormatError:
        return False


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
