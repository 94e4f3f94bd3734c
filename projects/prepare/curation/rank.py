"""Ranking of an archive for labelling, from the results of two exported detectors."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from projects.measures.matching import box_iou
from projects.radiograph.files import write_whole
from projects.radiograph.large_json import read_object
from projects.radiograph.listing import unlistable
from projects.radiograph.safe_parse import FormatError

from ..ledger import UsageError

SAME = 0.5
"""Smallest IoU at which two boxes of one class are the same find."""
ORDERS = ('both', 'uncertainty', 'disagreement')


@dataclass
class Found:
    """The results of one detector on an archive.

    Attributes:
        threshold: Score threshold of the boxes.
        classes: Names of the classes.
        rows: (x1, y1, x2, y2, score, class) of each box, by image; (0, 6) without boxes.
        unread: Number of radiographs that could not be read.
        detector: Digest of the exported folder; None if the table does not state it.
    """

    threshold: float
    classes: list[str]
    rows: dict[str, np.ndarray]
    unread: int
    detector: str | None = None


def read_found(folder: Path) -> Found:
    """Read the results of tools/infer.py: the folder of a shard, or of the merged shards.

    Raises:
        UsageError: The folder holds no such results, or is incomplete.
    """
    file = folder / 'coco.json'
    if not file.is_file():
        raise UsageError(
            f'{folder}: expected coco.json of tools/infer.py; name a shard of one, such as '
            'found/shard-1-of-1, or merge its shards with tools/merge_shards.py'
        )
    names: dict[int, str] = {}
    boxes: dict[int, list[float]] = {}

    def take_images(_: dict, elements: Iterator[Any]) -> None:
        for image in elements:
            if image['id'] in names:
                raise ValueError('an id twice')
            names[image['id']] = image['file_name']

    def take_boxes(_: dict, elements: Iterator[Any]) -> None:
        for box in elements:
            x, y, w, h = box['bbox']
            boxes.setdefault(box['image_id'], []).extend(
                (x, y, x + w, y + h, box['score'], box['category_id'] - 1)
            )

    try:
        head = read_object(file, dict(images=take_images, annotations=take_boxes))
        threshold = float(head['info']['threshold'])
        classes = [category['name'] for category in head['categories']]
        rows = {name: np.array(boxes.pop(key, []), float).reshape(-1, 6) for key, name in names.items()}
        if (
            boxes
            or len(rows) < len(names)
            or not all(np.isfinite(r).all() for r in (threshold, *rows.values()))
        ):
            raise ValueError('boxes of no image, a name twice, or scores that are no numbers')
        unread = _count_unread(folder / 'quarantine.csv')
    except (
        OSError,
        FormatError,
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        RecursionError,
        csv.Error,
    ):
        raise UsageError(f'{file}: expected results of tools/infer.py; inspect the archive again') from None
    return Found(threshold, classes, rows, unread, head['info'].get('folder'))


def _count_unread(quarantine: Path) -> int:
    """Count the rows of a table; file names may not be UTF-8."""
    if not quarantine.is_file():
        return 0
    with quarantine.open(newline='', encoding='utf-8', errors='surrogateescape') as file:
        return sum(1 for _ in csv.reader(file)) - 1


def uncertainty(found: Found, name: str) -> float:
    """Return the uncertainty of an image's verdict: 1 at the threshold, 0 at a score of 0 or 1.

    The verdict depends only on the highest score; without a box, this score is 0.
    """
    rows, at = found.rows[name], found.threshold
    score = rows[:, 4].max(initial=0.0)
    side = at if score < at else 1 - at
    return float(1 - abs(score - at) / side) if side > 0 else 0.0


def disagreement(first: Found, second: Found, name: str) -> float:
    """Return the largest difference of scores for one find; a missing box counts as a score of 0.

    Boxes of one class with an IoU of at least `SAME` are one find; they are paired by falling score.
    """
    a, b = first.rows[name], second.rows[name]
    same = (box_iou(a[:, :4], b[:, :4]) >= SAME) & (a[:, 5:] == b[:, 5])
    alone, largest = np.ones(len(b), bool), 0.0
    for k in np.argsort(-a[:, 4], kind='stable'):
        open_ = np.flatnonzero(same[k] & alone)
        if len(open_):
            other = open_[b[open_, 4].argmax()]
            alone[other] = False
            largest = max(largest, abs(float(a[k, 4] - b[other, 4])))
        else:
            largest = max(largest, float(a[k, 4]))
    return max(largest, float(b[alone, 4].max(initial=0.0)))


def rank(first: Found, second: Found, by: str = 'both') -> list[tuple[str, float, float]]:
    """Rank images for labelling, the most informative first; equal ranks are sorted by name.

    Args:
        first: Results of one detector.
        second: Results of another detector on the same images.
        by: 'uncertainty' (the mean of both), 'disagreement', or 'both', the mean rank in the two orders.

    Returns:
        Name, uncertainty and disagreement of each image.

    Raises:
        UsageError: The detectors differ in classes or images, or are the same detector.
    """
    if by != 'uncertainty' and first.detector is not None and first.detector == second.detector:
        raise UsageError(
            f'both are of the detector {first.detector[:12]}, expected two; name the results of another, or '
            'rank by uncertainty'
        )
    if first.classes != second.classes:
        raise UsageError(
            f'classes {first.classes} and {second.classes}: expected two detectors with equal classes; '
            'export both with the same classes'
        )
    apart = sorted(first.rows.keys() ^ second.rows.keys())
    if apart:
        raise UsageError(
            f'{len(apart)} images were inspected by one detector alone, such as {apart[0]}; inspect the same '
            'archive with both'
        )
    names = sorted(first.rows)
    unsure = np.array([(uncertainty(first, n) + uncertainty(second, n)) / 2 for n in names])
    apart_by = np.array([disagreement(first, second, n) for n in names])
    keys = dict(uncertainty=-unsure, disagreement=-apart_by, both=_places(unsure) + _places(apart_by))[by]
    order = np.argsort(keys, kind='stable')
    return [(names[k], float(unsure[k]), float(apart_by[k])) for k in order]


def _places(values: np.ndarray) -> np.ndarray:
    """Return the rank (n,) of each value, the largest first; equal values share a rank."""
    return np.unique(-values, return_inverse=True)[1]


def write_ranking(rows: list[tuple[str, float, float]], out: Path, most: int | None = None) -> None:
    """Write the first `most` images as a table, or as a list if the name ends with .txt.

    Raises:
        UsageError: A name that a text list cannot hold.
    """
    rows = rows[:most]
    if out.suffix.lower() == '.txt':
        if (odd := unlistable(name for name, _, _ in rows)) is not None:
            raise UsageError(
                f'{out}: {odd!r} is no name that a list can hold; write a table, such as next.csv'
            )
        write_whole(out, ''.join(f'{name}\n' for name, _, _ in rows))
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(('image', 'uncertainty', 'disagreement'))
    writer.writerows((name, f'{unsure:.6f}', f'{apart:.6f}') for name, unsure, apart in rows)
    write_whole(out, text.getvalue().encode(errors='surrogateescape'))
