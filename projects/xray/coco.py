"""Reading COCO files of defects: checks, safe repairs, and the mapping of types to classes.

Data sets and metrics share `load_defects`, the only reader of annotations.
"""

import difflib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa

from projects.errors import one_line
from projects.radiograph.remote import RemoteError, is_url, read_bytes
from projects.radiograph.safe_parse import MAX_JSON, FormatError, flag_of, is_printable, parse_json, printable

from .errors import DatasetError
from .parquet import SUFFIX, read_whole
from .severity import named, read_severity

_MORE = 'write the file again, or as Parquet with tools/convert_labels.py, which has no limit'


def load_defects(
    ann_file: str | os.PathLike, classes: Sequence[str] | None, severity: str | Mapping | None = None
) -> dict:
    """Read a COCO file, check it, make safe repairs, and map its defect types to classes.

    Counted repairs: a box that exceeds its image is clipped; a box less than one pixel wide or high is
    widened to one pixel (mmdet would drop it); a repeated annotation id is renumbered; a missing or zero
    `area` becomes the area of the box; `ignore` becomes `iscrowd`. Any other fault is an error. A file with
    crowd boxes alone is an error too, since crowd is neither learnt nor counted.

    Args:
        ann_file: COCO annotation file; boxes are [x, y, w, h] in px.
        classes: Names of the classes, in label order; None uses the types of the file.
        severity: See `read_severity`. With None, the category names must be exactly `classes`.

    Returns:
        COCO dict. `categories` are `classes` with ids 1..n in this order. Each annotation keeps its source
        type as `type`. All images of the file are included with their ids, also defect-free ones. `repairs`
        maps each kind of repair to its count.

    Raises:
        DatasetError: The file or the map cannot be used; the message names both and the remedy.
    """
    path = str(ann_file)
    if isinstance(classes, str):
        raise no_list_of_classes(classes)
    coco = read_coco(path)
    images = check_images(path, coco['images'])
    types = check_categories(path, coco['categories'])
    classes = list(types.values() if classes is None else classes)
    used = {_whole(ann.get('category_id')) for ann in coco['annotations']}
    used = {name for cat_id, name in types.items() if cat_id in used}
    to_class = class_of_types(path, types.values(), used, classes, severity)
    class_ids = {name: i for i, name in enumerate(classes, 1)}

    annotations, repairs = repair_annotations(path, coco['annotations'], images, types)
    for ann in annotations:
        ann['category_id'] = class_ids[to_class[ann['type']]]
    crowd = sum(ann['iscrowd'] for ann in annotations)
    if crowd == len(annotations):
        raise nothing_to_learn(path, crowd, len(images))
    return dict(
        info=coco.get('info', {}),
        images=list(images.values()),
        annotations=annotations,
        categories=[dict(id=i, name=name) for name, i in class_ids.items()],
        repairs={what: count for what, count in repairs.items() if count},
    )


def no_list_of_classes(classes: str) -> DatasetError:
    """Return the error for a string instead of a list of classes."""
    return DatasetError(
        f'metainfo.classes is the string {classes!r}, expected a list of names; write ({classes!r},)'
    )


def nothing_to_learn(path: str, crowd: int, images: int) -> DatasetError:
    """Return the error for a file without a box to learn."""
    found = f'{crowd} crowd boxes, which are neither learnt nor counted,' if crowd else '0 boxes'
    return DatasetError(
        f'{path}: {found} in {images} images, expected at least one box to learn; annotate defects '
        '(iscrowd 0), or split the parts so that this file gets some'
    )


def image_twice(path: str, image_id: int, name: str) -> DatasetError:
    """Return the error for an image id or file name that two records share."""
    return DatasetError(
        f'{path}: image id {image_id} or file name {name} occurs twice; give each image one record '
        'with its own id'
    )


def no_file(path: str) -> DatasetError:
    """Return the error for a missing annotation file."""
    return DatasetError(
        f'{path}: no such annotation file; write one with tools/convert_dataset.py or '
        'tools/make_synthetic.py, or correct `data_root` and `ann_file`'
    )


def repair_annotations(
    path: str, sources: list[dict], images: Mapping[int, dict], types: Mapping[int, str]
) -> tuple[list[dict], Counter]:
    """Check a file's annotations and repair copies of them; adds `type`, the name of the defect type.

    Returns:
        Annotations in the order of the file, and the count of each kind of repair.

    Raises:
        DatasetError: An annotation has no valid image or type, or its box cannot be used.
    """
    repairs = Counter()
    annotations, ids = [], set()
    next_id = max((a['id'] for a in sources if isinstance(a.get('id'), int)), default=0) + 1
    for index, source in enumerate(sources):
        ann = dict(source)
        ann_id = ann.get('id')
        where = f'{path}: annotation {index if ann_id is None else ann_id}'
        if not isinstance(ann_id, int) or ann_id in ids:
            ann['id'], next_id = next_id, next_id + 1
            repairs['annotation ids renumbered'] += 1
        ids.add(ann['id'])
        image = images.get(_whole(ann.get('image_id')))
        if image is None:
            raise DatasetError(
                f'{where} belongs to image {ann.get("image_id")}, which is not in `images`; add the image or '
                'delete the annotation'
            )
        kind = types.get(_whole(ann.get('category_id')))
        if kind is None:
            raise DatasetError(
                f'{where} ({image["file_name"]}) has category_id {ann.get("category_id")}, expected one of '
                f'{types}; add the type to `categories` or correct the annotation'
            )
        ann['bbox'] = _repair_box(f'{where} ({image["file_name"]})', ann.get('bbox'), image, repairs)
        ann['type'] = kind
        area = ann.get('area')
        if not isinstance(area, int | float) or not area > 0:
            ann['area'] = ann['bbox'][2] * ann['bbox'][3]
            repairs['areas set to that of the box'] += 1
        crowd, ignore = (_flag(where, ann.pop(key, None), key) for key in ('iscrowd', 'ignore'))
        repairs['`ignore` read as `iscrowd`'] += ignore and not crowd
        ann['iscrowd'] = int(crowd or ignore)
        annotations.append(ann)
    return annotations, repairs


def read_coco(path: str) -> dict:
    """Read a COCO file or its Parquet form from a path or a URL, and check that it has the three lists.

    Raises:
        DatasetError: The file is missing, has another format, or lacks one of the lists.
    """
    try:
        if path.endswith(SUFFIX):
            return read_whole(pa.py_buffer(read_bytes(path)) if is_url(path) else Path(path), path)
        if not is_url(path) and Path(path).stat().st_size > MAX_JSON:
            raise FormatError(f'at most {MAX_JSON >> 20} MiB')
        coco = parse_json(read_bytes(path) if is_url(path) else Path(path).read_bytes())
    except RemoteError as error:
        raise DatasetError(str(error)) from None
    except FileNotFoundError:
        raise no_file(path) from None
    except FormatError as error:
        raise DatasetError(f'{path}: expected {error}; {_MORE}') from None
    except OSError as error:
        raise DatasetError(f'{path}: expected a readable file ({one_line(error)}); restore it') from None
    for key in ('images', 'annotations', 'categories'):
        rows = coco.get(key) if isinstance(coco, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DatasetError(
                f'{path}: `{key}` is not a list of records, expected a COCO file; convert it with '
                'tools/convert_dataset.py'
            )
    return coco


def check_images(path: str, rows: list[dict], start: int = 0) -> dict[int, dict]:
    """Check image records and return them by id; messages count them from `start`."""
    images, names = {}, set()
    for index, row in enumerate(rows, start):
        if not isinstance(row.get('id'), int) or not isinstance(row.get('file_name'), str):
            raise DatasetError(
                f'{path}: image number {index} lacks an integer `id` or a `file_name`; write them'
            )
        name = row['file_name']
        if not is_printable(name):
            raise DatasetError(
                f'{path}: file name {printable(name)} is not one line of UTF-8; rename the file, and correct '
                'its name here'
            )
        if PurePosixPath(name).is_absolute() or '..' in PurePosixPath(name).parts:
            raise DatasetError(
                f'{path}: file name {name} leaves the image folder, expected a path below it; correct it'
            )
        if not all(isinstance(row.get(k), int) and row[k] > 0 for k in ('width', 'height')):
            raise DatasetError(
                f'{path}: image {name} has width {row.get("width")} and height {row.get("height")}, expected '
                'positive whole numbers of px; write the size of the file'
            )
        if row['id'] in images or name in names:
            raise image_twice(path, row['id'], name)
        images[row['id']] = row
        names.add(name)
    if not images:
        raise DatasetError(f'{path}: 0 images, expected at least one; check how the file was written')
    return images


def check_categories(path: str, rows: list[dict]) -> dict[int, str]:
    """Check categories and return the type names by id."""
    types = {}
    for row in rows:
        if not isinstance(row.get('id'), int) or not isinstance(row.get('name'), str):
            raise DatasetError(f'{path}: category {row} lacks an integer `id` or a `name`; write them')
        if row['id'] in types or row['name'] in types.values():
            raise DatasetError(
                f'{path}: category id {row["id"]} or name {row["name"]!r} occurs twice; give each type one id'
            )
        types[row['id']] = row['name']
    return types


def class_of_types(path, types, used, classes, severity) -> dict[str, str]:
    """Check the types of a file against the classes; return type -> class.

    Args:
        path: Annotation file, for messages.
        types: All types that the file declares.
        used: Types that occur in its annotations.
        classes: Classes of the dataset.
        severity: See `read_severity`.
    """
    table = read_severity(severity)
    types = list(types)
    if table is None:
        if set(types) != set(classes):
            remedy = 'rename one side, or give `severity` a map from type to class'
            if {t.lower() for t in types} == {c.lower() for c in classes}:
                remedy = 'they differ in upper and lower case only; use the same spelling'
            raise DatasetError(f'{path} has the types {types}, metainfo.classes is {classes}; {remedy}')
        return {name: name for name in types}
    wrong = {kind: label for kind, label in table.items() if label not in classes}
    if wrong:
        raise DatasetError(f'{named(severity)}: {wrong} is not among the classes {classes}; correct the map')
    missing = sorted(used - set(table))
    if missing:
        by_case = {kind.lower(): kind for kind in table}
        shown = []
        for kind in missing:
            near = by_case.get(kind.lower()) or next(iter(difflib.get_close_matches(kind, table, 1)), None)
            shown.append(repr(kind) + (f' (the map has {near!r})' if near else ''))
        raise DatasetError(
            f'{path}: types missing from the {named(severity)}: {", ".join(shown)}; point `severity` of the '
            'config at a map of your own, such as OUT/severity.yaml of a conversion, or add them to it, each '
            f'as one of {classes}'
        )
    return {kind: table[kind] for kind in types if kind in table}


def _flag(where: str, value, key: str) -> bool:
    try:
        return flag_of(value, key)
    except FormatError as error:
        raise DatasetError(f'{where}: expected {error}; correct it') from None


def _repair_box(where: str, box, image: dict, repairs: Counter) -> list[float]:
    """Clip a box to its image and widen it to one pixel; `repairs` counts both."""
    try:
        x, y, w, h = (float(v) for v in box)
    except (TypeError, ValueError, OverflowError):
        x = y = w = h = math.nan
    if not all(map(math.isfinite, (x, y, w, h))):
        raise DatasetError(f'{where} has the box {box}, expected [x, y, w, h] in px; correct or delete it')
    if w <= 0 or h <= 0:
        raise DatasetError(f'{where} has the box {box} without area; draw it again or delete it')
    width, height = image['width'], image['height']
    x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if x2 <= x1 or y2 <= y1:
        raise DatasetError(
            f'{where} has the box {box} wholly outside its image of {width} x {height} px; correct or delete '
            'it, or correct the size of the image'
        )
    # Programs round boxes when writing, so an excess below 0.01 px is not counted as a fault.
    if max(-x, -y, x + w - width, y + h - height) > 0.01:
        repairs['boxes clipped to their image'] += 1
    w, h = x2 - x1, y2 - y1
    if w < 1 or h < 1:
        repairs['boxes widened to one pixel'] += 1
        # The width is set to exactly 1: (x1 + 1) - x1 may round to less, and mmdet would drop the box.
        if w < 1:
            x1, w = min(max((x1 + x2) / 2 - 0.5, 0.0), width - 1.0), 1.0
        if h < 1:
            y1, h = min(max((y1 + y2) / 2 - 0.5, 0.0), height - 1.0), 1.0
    return [x1, y1, w, h]


def describe(coco: dict, ann_file: str | os.PathLike) -> str:
    """Return a table of images and boxes per class and per source type, the crowd boxes, and the repairs.

    Args:
        coco: Result of `load_defects`.
        ann_file: Path for the first line.
    """
    names = {c['id']: c['name'] for c in coco['categories']}
    boxes: Counter = Counter()
    images = defaultdict(set)
    learnt = [ann for ann in coco['annotations'] if not ann['iscrowd']]
    for ann in learnt:
        label = names[ann['category_id']]
        for key in {(label, ''), (label, ann['type'])}:
            boxes[key] += 1
            images[key].add(ann['image_id'])
    counts = Counts(
        len(coco['images']),
        len({ann['image_id'] for ann in coco['annotations']}),
        len(learnt),
        len(coco['annotations']) - len(learnt),
    )
    seen = {key: len(ids) for key, ids in images.items()}
    return as_table(str(ann_file), counts, list(names.values()), boxes, seen, coco['repairs'])


class Counts(NamedTuple):
    """Counts of a file: images, images with boxes, boxes to learn, crowd boxes."""

    images: int
    with_boxes: int
    learnt: int
    crowd: int


def as_table(
    path: str,
    counts: Counts,
    classes: Sequence[str],
    boxes: Mapping[tuple[str, str], int],
    images: Mapping[tuple[str, str], int],
    repairs: Mapping[str, int],
) -> str:
    """Return the table of `describe`.

    Args:
        path: Path for the first line.
        counts: Counts of the file.
        classes: Classes; each gets a row.
        boxes: Number of boxes by class and type, '' for all types of a class.
        images: Number of images with such boxes, by the same keys.
        repairs: Count of each kind of repair.
    """
    lines = [
        f'{path}: {counts.images} images ({counts.images - counts.with_boxes} without defects), '
        f'{counts.learnt} boxes'
    ]
    if counts.crowd:
        lines[0] += f'; {counts.crowd} crowd boxes beside them are neither learnt nor counted'
    kinds = defaultdict(list)
    for label, kind in boxes:
        if kind:
            kinds[label].append(kind)
    width = max(len(kind) for kind in [*classes, *(k for ks in kinds.values() for k in ks)]) + 4
    lines.append(f'{"class / type":<{width}} {"images":>7} {"boxes":>7}')
    for label in classes:
        lines.append(f'{label:<{width}} {images.get((label, ""), 0):>7} {boxes[label, ""]:>7}')
        # A class with a single type of the same name needs no second row.
        for kind in sorted(kinds[label], key=lambda k: -boxes[label, k]):
            if kinds[label] != [label]:
                lines.append(f'  {kind:<{width - 2}} {images[label, kind]:>7} {boxes[label, kind]:>7}')
    lines += [f'repaired: {count} {what}' for what, count in sorted(repairs.items())]
    return '\n'.join(lines)


def _whole(value) -> int | None:
    """Return an integer id; None for any other value."""
    return value if isinstance(value, int) else None
