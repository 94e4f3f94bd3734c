"""The tables of inspected radiographs, made line by line from the journals of one or several shards."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from projects.errors import MMXrayError
from projects.radiograph.files import draft_of
from projects.radiograph.rle import area_of

OPINION = ('unusual', 'flagged')  # of a folder with a second opinion
RESULT = {'height', 'width', 'verdict', 'risk', 'boxes', 'scores', 'labels'}


class ArchiveError(MMXrayError, ValueError):
    """Images or an output folder cannot be used; one line with the remedy."""


def rows_of(*journals: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of journals, one journal after the other; a missing journal has no lines.

    Raises:
        ArchiveError: A line is damaged.
    """
    for journal in journals:
        if journal.is_file():
            yield from _rows(journal)


def _rows(journal: Path) -> Iterator[dict[str, Any]]:
    with journal.open('rb') as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                if not (isinstance(row['image'], str) and ('error' in row or _is_result(row))):
                    raise ValueError
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise ArchiveError(
                    f'{journal}: line {number} is damaged, expected a line of an inspection; delete it, and '
                    'its radiograph is inspected again'
                ) from None
            yield row


def _is_result(row: dict[str, Any]) -> bool:
    """Whether a line is a valid result: as many scores, labels and masks as boxes."""
    count = len(row['boxes']) if row.keys() >= RESULT else -1
    return (
        all(len(row.get(key) or ()) == count for key in ('scores', 'labels'))
        and len(row.get('masks') or row['boxes']) == count
        and all(len(box) == 4 for box in row['boxes'])
        and all(type(label) is int and label >= 0 for label in row['labels'])
    )


def write_tables(folder: Path, journals: Sequence[Path], head: dict[str, Any], opinion: bool = False) -> None:
    """Write `coco.json`, `images.csv`, `detections.csv` and `quarantine.csv`, each whole.

    Args:
        folder: Output folder.
        journals: Journals of the shards; with millions of lines, they are read line by line.
        head: `info` and `categories` of the COCO file.
        opinion: Whether the folder has a second opinion.
    """
    classes = [category['name'] for category in head['categories']]
    columns = ('image', 'verdict', 'risk', *(OPINION if opinion else ()))
    images = (
        dict(id=number, file_name=row['image'])
        | {key: row[key] for key in ('width', 'height', 'verdict', 'risk', *OPINION) if key in row}
        for number, row in _inspected(journals)
    )
    annotations = (annotation for _, annotation in _annotations(journals))
    with text_draft(folder / 'coco.json') as file:
        file.write(json.dumps(head)[:-1])
        for key, rows in (('images', images), ('annotations', annotations)):
            file.write(f', "{key}": [')
            for k, row in enumerate(rows):
                file.write((',\n' if k else '\n') + json.dumps(row))
            file.write(']')
        file.write('}\n')
    _table(
        folder / 'images.csv',
        columns,
        ([row.get(key) for key in columns] for _, row in _inspected(journals)),
    )
    _table(
        folder / 'detections.csv',
        ('image', 'severity', 'score', 'x', 'y', 'width', 'height', 'area'),
        (
            (name, classes[a['category_id'] - 1], a['score'], *a['bbox'], a['area'])
            for name, a in _annotations(journals)
        ),
    )
    _table(
        folder / 'quarantine.csv',
        ('image', 'reason'),
        ((row['image'], row['error']) for row in rows_of(*journals) if 'error' in row),
    )


def _inspected(journals: Sequence[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Enumerate the rows of inspected radiographs, from 1."""
    return enumerate((row for row in rows_of(*journals) if 'error' not in row), 1)


def _annotations(journals: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield image name and COCO annotation of each box."""
    number = 0
    for image_id, row in _inspected(journals):
        masks = row.get('masks') or [None] * len(row['boxes'])
        columns = (row['boxes'], row['scores'], row['labels'], masks)
        for (x1, y1, x2, y2), score, label, mask in zip(*columns, strict=True):
            number += 1
            yield (
                row['image'],
                dict(
                    id=number,
                    image_id=image_id,
                    category_id=label + 1,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1) if mask is None else area_of(mask),
                    **({} if mask is None else dict(segmentation=mask)),
                    iscrowd=0,
                    score=score,
                ),
            )


def _table(path: Path, header: tuple[str, ...], rows: Iterable[Any]) -> None:
    with text_draft(path) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


@contextmanager
def text_draft(path: Path) -> Iterator[TextIO]:
    """Open a draft of a text file that replaces it once complete; file names in it need not be UTF-8."""
    with draft_of(path) as draft, draft.open('w', newline='', errors='surrogateescape') as file:
        yield file
