"""YOLO: one text file an image, boxes or polygons relative to its size."""

from pathlib import Path

from projects.radiograph.safe_parse import FormatError, _show, parse_yaml

from .images import (
    Entry,
    Images,
    Source,
    _collect,
    _find_images,
    _label,
    _numbers,
    _polygon_object,
    _stem,
    _text,
)

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
