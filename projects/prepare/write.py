"""Writing a converted data set: labels as COCO JSON or Parquet, and images beside them."""

import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from projects.radiograph.files import write_whole
from projects.radiograph.safe_parse import FormatError, check_json_size
from projects.xray.parquet import SUFFIX, pack_annotation, pack_image, write_labels


def clip_box(box: Iterable[float], width: int, height: int) -> tuple[list[float], bool]:
    """Clip a box [x, y, w, h] in px to its image.

    Returns:
        The clipped box (its width or height may be 0), and whether the box reached outside.
    """
    x, y, w, h = box
    x1, y1 = min(max(x, 0), width), min(max(y, 0), height)
    x2, y2 = min(max(x + w, 0), width), min(max(y + h, 0), height)
    clipped = [x1, y1, x2 - x1, y2 - y1]
    return clipped, clipped != [x, y, w, h]


def place(source: Path, target: Path) -> None:
    """Put a file at `target`: a hard link where the file system allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        if target.samefile(source):
            return
        target.unlink()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


MOST_IN_JSON = 100_000
"""Maximum number of images of a split in JSON; more become Parquet, as JSON of a million takes gigabytes."""


def write_coco(path: Path, images: list[dict], categories: Iterable[str], info: dict) -> list[str]:
    """Write one split as COCO JSON, or as Parquet if JSON would be too large to read again.

    Args:
        path: file to write.
        images: COCO fields of each image without id, and `boxes`: a list of dicts with `bbox` [x, y, w, h] in
            px, `category` (a name) and further annotation fields.
        categories: names; ids follow from 1.
        info: COCO `info`.

    A box that was clipped to its image keeps the drawn box as `clipped_from`, for tools/check_dataset.py.

    Returns:
        Notes, one line each.
    """
    ids = {name: k for k, name in enumerate(categories, 1)}
    header = dict(info=info, categories=[dict(id=k, name=name) for name, k in ids.items()])
    numbers = itertools.count(1)

    def records() -> Iterator[tuple[dict, list[dict]]]:
        for image_id, image in enumerate(images, 1):
            record = dict(id=image_id, **{k: v for k, v in image.items() if k != 'boxes'})
            yield record, [_annotation(box, next(numbers), image_id, ids) for box in image['boxes']]

    reason = f'{len(images):,} images'
    if len(images) <= MOST_IN_JSON:
        coco: dict = dict(info=info, images=[], annotations=[])
        for record, annotations in records():
            coco['images'].append(record)
            coco['annotations'] += annotations
        text = json.dumps(coco | header)
        try:
            check_json_size(text.encode())
            write_whole(path, text)
            path.with_suffix(SUFFIX).unlink(missing_ok=True)
            return []
        except FormatError as error:
            reason, numbers = f'JSON is read up to {str(error).removeprefix("at most ")}', itertools.count(1)
    large = path.with_suffix(SUFFIX)
    packed = (
        pack_image(record, [pack_annotation(row, row['id'] - 1) for row in annotations])
        for record, annotations in records()
    )
    write_labels(large, header, packed)
    path.unlink(missing_ok=True)  # of an earlier conversion
    return [f'{large.name} in place of {path.name} ({reason}): write it as `ann_file` into the config']


def _annotation(box: dict, number: int, image_id: int, ids: dict[str, int]) -> dict:
    extra = {k: v for k, v in box.items() if k != 'category'}
    return dict(
        id=number,
        image_id=image_id,
        category_id=ids[box['category']],
        **dict(area=round(_area(box), 4), iscrowd=0) | extra,
    )


def _area(box: dict) -> float:
    """Return the area of an object in px: of its mask or polygons, as in COCO, else of its box."""
    whole = box['bbox'][2] * box['bbox'][3]
    segmentation = box.get('segmentation')
    if isinstance(segmentation, dict):
        return sum(segmentation['counts'][1::2])
    if not segmentation:
        return whole
    area = 0.0
    for polygon in segmentation:
        x, y = np.reshape(polygon, (-1, 2)).T
        area += abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2  # Gauss's formula
    # A polygon may reach out of its image: at most the area of the clipped box counts.
    return min(float(area), whole) or whole
