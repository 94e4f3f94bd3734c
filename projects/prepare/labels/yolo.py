"""YOLO: one text file of rows per image, and a file with the names of the classes."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from projects.radiograph.safe_parse import FormatError, _show, parse_yaml

from .fields import (
    is_turned_box,
    label_of,
    numbers_of,
    polygon_object,
    read_bytes,
    read_text,
    stem_of,
    turned_object,
)
from .images import Entry, Images, Source, collect, find_images, stem_of_radiograph

POINTS_LEFT_OUT = 'key points of an object left out, its box kept'
FAR = 1.5
"""Largest coordinate of a polygon, relative to the image: edges may be drawn slightly outside."""


@dataclass
class Classes:
    """The content of the file of class names.

    Attributes:
        names: class names by number, without numbers that have no name.
        file: the file with the names.
        key_points: count of numbers after a row's box (Ultralytics' `kpt_shape`), 0 for none, None if not
            stated.
        used: number of rows of each class in the label files, known or not.
    """

    names: dict[int, str]
    file: Path
    key_points: int | None = None
    used: Counter = field(default_factory=Counter)


def read_yolo(src: Path) -> tuple[Images, Source]:
    """Read YOLO: one text file per image, in `labels/` for an image in `images/`, or beside the image.

    Rows are `class cx cy w h` or `class x1 y1 x2 y2 x3 y3 …`, relative to the size of the image. Class names
    come from the first of data.yaml, dataset.yaml, *.yaml with `names`, classes.txt, obj.names. An image
    without a file is unlabelled; an image with an empty file is defect-free. Rows of four corners (YOLO-OBB)
    become the upright boxes around them. Of rows with key points (YOLO-pose), only the boxes are kept, and
    the YAML file must state `kpt_shape`.

    Raises:
        FormatError: no names; or the class numbers of the whole folder do not match them.
    """
    images = Images(src)
    classes = _read_classes(src)
    labels = {name: path for name in images.files('.txt') if (path := images.others[name]) != classes.file}
    labels = {name: path for name, path in labels.items() if path.name != 'classes.txt'}
    found, entries = Source(), []
    found.used = {name for name, path in images.others.items() if path == classes.file}
    of_label: dict[str, str] = {}

    def read_one(image: str, label: str) -> list[Entry]:
        rows = _rows(labels[label], classes)

        def objects(_: str, height: int, width: int) -> list[dict]:
            return [_object(*row, height, width) for row in rows]

        return [Entry(image, label, len(rows), objects, image=image)]

    for image in images.paths:
        label = _label_file(image, labels)
        if label is None:
            continue
        if label in of_label:
            found.put_aside(label, 'one image per file of labels, found a second one', image)
            found.blocked.add(image)
            continue
        of_label[label] = image
        entries += collect(found, images, label, lambda image=image, label=label: read_one(image, label))
        if label in found.quarantine:
            found.blocked.add(image)
    _check_numbers(classes, found)
    for label in sorted(labels.keys() - of_label.keys()):
        # YOLO folders also hold image lists and notes, which have no rows of numbers.
        if 'labels' in label.split('/')[:-1] or _is_yolo(labels[label], classes):
            found.files.append(label)
            found.put_aside(label, 'its image below the source, found none')
            found.blocked.update(images.beginning(stem_of(label)))
    find_images(found, images, entries)
    return images, found


def _label_file(image: str, labels: dict[str, Path]) -> str | None:
    """Return the label file of an image: in `labels/` for a folder `images/` (last first), else beside it."""
    stem = stem_of_radiograph(image)
    parts = stem.split('/')
    apart = ['/'.join(parts[:i] + ['labels'] + parts[i + 1 :]) for i, p in enumerate(parts) if p == 'images']
    return next((c for s in (*reversed(apart), stem) if (c := f'{s}.txt') in labels), None)


# ------------------------------------------------------------------------------------------ class names


def _read_classes(src: Path) -> Classes:
    """Return the class names by number.

    Raises:
        FormatError: no names, or two files number the same names differently.
    """
    sheets = [
        src / 'data.yaml',
        src / 'dataset.yaml',
        *sorted(src.glob('*.yaml')),
        *sorted(src.glob('*.yml')),
    ]
    lists = [src / 'classes.txt', src / 'obj.names', src / 'labels' / 'classes.txt']
    read = [_names_of_yaml(path) for path in dict.fromkeys(sheets) if path.is_file()]
    read += [_names_of_list(path) for path in lists if path.is_file()]
    found = [classes for classes in read if classes and classes.names]
    if not found:
        raise FormatError('class names in data.yaml (names: [...]) or classes.txt, found neither; add one')
    first = found[0]
    for other in found[1:]:
        # LabelImg writes its own list beside the labels, which may number the classes differently.
        shared = set(first.names.values()) & set(other.names.values())
        if shared and any(first.names.get(k, v) != v for k, v in other.names.items() if v in shared):
            a, b = (f'{c.file.relative_to(src)} {_show(list(c.names.values()))}' for c in (first, other))
            raise FormatError(
                f'one numbering of the classes, found {a} and {b}; delete the file that does not belong '
                'to the labels'
            )
    return first


def _names_of_yaml(path: Path) -> Classes | None:
    """Return the class names of a YAML file; None without `names`."""
    try:
        value = parse_yaml(read_bytes(path))
    except FormatError as error:
        raise FormatError(f'{error}, in {path.name}') from None
    names = value.get('names') if isinstance(value, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        return None
    names = {_class_number(k): label_of(n) for k, n in names.items()}
    count = value.get('nc')
    if isinstance(count, int) and count != len(names):
        raise FormatError(f'nc: {len(names)} beside {len(names)} names in {path.name}, found nc: {count}')
    shape = value.get('kpt_shape')
    points = None
    if isinstance(shape, list) and len(shape) == 2 and all(type(v) is int and v > 0 for v in shape):
        points = shape[0] * shape[1]
    return Classes(names, path, points)


def _names_of_list(path: Path) -> Classes:
    """Return the class names of a text file, numbered by line; a blank line has a number and no name."""
    try:
        lines = read_text(path).splitlines()
    except FormatError as error:
        raise FormatError(f'{error}, in {path.name}') from None
    return Classes({k: line.strip() for k, line in enumerate(lines) if line.strip()}, path)


def _class_number(value) -> int:
    if not str(value).isdecimal():
        raise FormatError(f'class numbers before the names, found {_show(value)}')
    return int(value)


def _check_numbers(classes: Classes, found: Source) -> None:
    """Raise FormatError if the label files count their classes from 1 and the names from 0."""
    last = max(classes.names)
    if 0 not in classes.names or 0 in classes.used or not classes.used:
        return
    found.notes.append(
        f'no row of class 0 ({_show(classes.names[0])}): check that the labels count their classes from 0'
    )
    if classes.used[last + 1]:
        raise FormatError(
            f'class numbers from 0 to {last}, as {classes.file.name} has them, found numbers from '
            f'{min(classes.used)} to {max(classes.used)} and no row of class 0 ({_show(classes.names[0])}): '
            f'the labels count from 1, or were written with other names; correct {classes.file.name}'
        )


# ----------------------------------------------------------------------------------------------- rows


def _is_yolo(path: Path, classes: Classes) -> bool:
    try:
        return bool(_rows(path, Classes(classes.names, classes.file, classes.key_points)))
    except FormatError:
        return False


def _rows(path: Path, classes: Classes) -> list[tuple[str, list[float], bool]]:
    """Return, for each row of a label file, type, 4 or more numbers, and whether key points were left out."""
    rows, unknown = [], None
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        first, *rest = line.split()
        index = int(first.split('.')[0]) if re.fullmatch(r'[0-9]{1,9}(\.0*)?', first) else None
        classes.used[index] += index is not None
        if index not in classes.names:
            unknown = unknown or FormatError(
                f'a class of the names file in line {number}, found {first[:20]!r}'
            )
            continue
        values = numbers_of(rest, f'line {number}')
        rows.append((classes.names[index], *_geometry(values, number, classes.key_points)))
    if unknown:
        raise unknown
    return rows


def _geometry(values: list[float], number: int, key_points: int | None) -> tuple[list[float], bool]:
    """Return the box or polygon of a row, and whether key points were left out."""
    pose = bool(key_points) and len(values) == 4 + key_points
    if pose:
        values = values[:4]
    count = len(values)
    if count == 5:
        raise FormatError(
            f'4 numbers after the class in line {number}, found 5: a confidence, as predictions have, or an '
            'angle'
        )
    if count != 4 and (count < 6 or count % 2):
        raise FormatError(f'4 numbers, or 3 or more points, after the class in line {number}, found {count}')
    if _looks_like_pose(values):
        raise FormatError(
            f'boxes or polygons, found likely key points in line {number}; state kpt_shape in data.yaml'
        )
    if max(map(abs, values)) > (2 if count == 4 else FAR):
        raise FormatError(f'coordinates relative to the image in line {number}, found {max(values):g}')
    return values, pose


def _looks_like_pose(values: list[float]) -> bool:
    """Whether a row may be a box and key points inside the box, with a visibility of 0, 1 or 2."""
    if len(values) == 4 or len(values) % 3 != 1:
        return False
    x, y, width, height = values[:4]
    points = [values[k : k + 3] for k in range(4, len(values), 3)]
    if not all(v in (0, 1, 2) for _, _, v in points):
        return False
    inside = all(abs(px - x) <= width / 2 and abs(py - y) <= height / 2 for px, py, v in points if v)
    return inside or any(v == 2 for _, _, v in points)


def _object(name: str, values: list[float], pose: bool, height: int, width: int) -> dict:
    """Return the object of a row, in px."""
    # To 1/1000 px: files hold six digits, and a box at the border must not stick out by 1e-13.
    if len(values) == 4:
        cx, cy, w, h = values
        corners = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
        item = dict(type=name, corners=[round(v, 3) for v in corners])
        return item | dict(repairs=(POINTS_LEFT_OUT,)) if pose else item
    points = [round(v * (height if i % 2 else width), 3) for i, v in enumerate(values)]
    return turned_object(name, points) if is_turned_box(points) else polygon_object(name, points)
