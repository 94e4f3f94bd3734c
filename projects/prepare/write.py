"""Writing a converted data set: COCO files, and images beside them."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from projects.radiograph.safe_parse import FormatError, check_json_size

from .ledger import ConvertError


def clip_box(box: Iterable[float], width: int, height: int) -> tuple[list[float], bool]:
    """Clip a box [x, y, w, h] in px to its image.

    Returns:
        The clipped box (its width or height may be 0) and whether it reached outside.
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


def write_coco(path: Path, images: list[dict], categories: list[str], info: dict) -> None:
    """Write one split as COCO JSON.

    Args:
        path: file to write.
        images: per image its COCO fields without id, and `boxes`: a list of dicts with `bbox` [x, y, w, h]
            in px, `category` (a name) and further annotation fields.
        categories: names; ids follow from 1.
        info: COCO `info`.

    A box that was clipped to its image keeps what was drawn as `clipped_from`, for tools/check_dataset.py.
    """
    ids = {name: k for k, name in enumerate(categories, 1)}
    coco: dict = dict(info=info, images=[], annotations=[])
    coco['categories'] = [dict(id=k, name=name) for name, k in ids.items()]
    for image_id, image in enumerate(images, 1):
        coco['images'].append(dict(id=image_id, **{k: v for k, v in image.items() if k != 'boxes'}))
        for box in image['boxes']:
            extra = {k: v for k, v in box.items() if k != 'category'}
            area = round(_area(box), 4)
            annotation = dict(
                id=len(coco['annotations']) + 1,
                image_id=image_id,
                category_id=ids[box['category']],
                **dict(area=area, iscrowd=0) | extra,
            )
            coco['annotations'].append(annotation)
    text = json.dumps(coco)
    try:
        check_json_size(text.encode())
    except FormatError as error:
        raise ConvertError(
            f'{path}: expected {error}, which is all that is read again; convert fewer images at once'
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _area(box: dict) -> float:
    """Area in px of an object: of its mask or polygons, as COCO has it, else of its box."""
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
    # Of a polygon that reaches out of its image no more than the box counts, which was clipped.
    return min(float(area), whole) or whole
