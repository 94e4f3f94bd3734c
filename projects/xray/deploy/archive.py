"""Inspecting an archive: shards, restarts that repeat nothing, bad files set aside with their reason.

A shard's folder holds `journal.jsonl`, one line per radiograph, written as each is done; from it come
`coco.json`, `detections.csv`, `images.csv` and `quarantine.csv` when the shard is complete. The archive
itself is only read.
"""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from ..imaging import SUFFIXES, ImagingError
from .inspector import Inspection, Inspector
from .pictures import overlay

JOURNAL, RUN = 'journal.jsonl', 'run.json'


class ArchiveError(ValueError):
    """Images or an output folder are not what was expected; one line with the remedy."""


@dataclass
class Summary:
    """What became of a shard's radiographs: counts, those done in an earlier run among them."""

    radiographs: int
    rejected: int
    quarantined: int
    earlier: int


def find_images(source: Path) -> tuple[Path, list[str]]:
    """List radiographs below a folder, by suffix, sorted; or one file.

    Returns:
        The root, and the paths relative to it.

    Raises:
        ArchiveError: Nothing is there.
    """
    if source.is_file():
        return source.parent, [source.name]
    found = []
    for folder, _, names in os.walk(source):
        inner = os.path.relpath(folder, source)
        found += [os.path.normpath(f'{inner}/{name}') for name in names if name.lower().endswith(SUFFIXES)]
    if not found:
        raise ArchiveError(
            f'{source}: expected a radiograph or a folder with some ({", ".join(SUFFIXES)}), found none; '
            'correct the path'
        )
    return source, sorted(found)


def parse_shard(text: str) -> tuple[int, int]:
    """Read 'i/n' with 1 <= i <= n.

    Raises:
        ArchiveError: It is not.
    """
    index, slash, count = text.partition('/')
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ArchiveError(f"shard '{text}': expected i/n with 1 <= i <= n, such as 2/8")
    return int(index), int(count)


def inspect_archive(
    inspector: Inspector,
    root: Path,
    names: list[str],
    out: Path,
    shard: tuple[int, int] = (1, 1),
    overlays: str = 'rejected',
    progress=iter,
) -> Summary:
    """Inspect one shard of an archive, or go on where an earlier run of it stopped.

    Args:
        inspector: The detector.
        root: The archive.
        names: Paths of all its radiographs, relative to it; every shard's run gets the same list.
        out: Folder of all shards; this one writes to `<out>/shard-<i>-of-<n>`.
        shard: (i, n), i from 1; every n-th radiograph is of one shard.
        overlays: 'none', 'rejected' or 'all': whose pictures are written to `overlays/`.
        progress: Wraps the iterator of journal lines, for a progress bar.

    Raises:
        ArchiveError: The folder belongs to a run with another detector, threshold or archive.
    """
    index, count = shard
    folder = out / f'shard-{index}-of-{count}'
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, inspector, root)
    done = {row['image'] for row in _rows(folder / JOURNAL)}
    mine = names[index - 1 :: count]
    todo = [name for name in mine if name not in done]
    with (folder / JOURNAL).open('a') as journal:
        results = inspector.stream(root / name for name in todo)
        for name, said in progress(zip(todo, results, strict=True)):
            if isinstance(said, Inspection) and (
                overlays == 'all' or overlays == 'rejected' and said.verdict == 'reject'
            ):
                _write_picture(folder / 'overlays' / f'{name}.png', said, inspector.threshold)
            # After its picture: a line says that nothing is left to do.
            journal.write(json.dumps(_row(name, said)) + '\n')
            journal.flush()
    return _conclude(folder, inspector, len(mine) - len(todo))


def _claim(folder: Path, inspector: Inspector, root: Path) -> None:
    """Record what a shard is made with, or refuse to mix two runs; cut off a line half written."""
    said = dict(
        archive=str(root.resolve()),
        threshold=inspector.threshold,
        graphs=inspector.exported.files,
        origin=inspector.exported.origin.get('sha256'),
        classes=inspector.exported.classes,
    )
    path = folder / RUN
    if path.is_file():
        try:
            earlier = json.loads(path.read_text())
        except ValueError:
            earlier = None
        if earlier != said:
            raise ArchiveError(
                f'{folder}: holds results of another detector, threshold or archive ({RUN}); give '
                'another --out'
            )
    _replace(path, json.dumps(said, indent=1) + '\n')
    journal = folder / JOURNAL
    if journal.is_file():
        with journal.open('rb+') as file:
            content_end = file.seek(0, os.SEEK_END)
            # A line is short, but a busy radiograph has a hundred boxes.
            start = max(content_end - 2**20, 0)
            file.seek(start)
            file.truncate(start + file.read().rfind(b'\n') + 1)


def _rows(journal: Path) -> Iterator[dict]:
    if journal.is_file():
        with journal.open() as file:
            yield from map(json.loads, file)


def _row(name: str, said: Inspection | ImagingError) -> dict:
    if isinstance(said, ImagingError):
        return dict(image=name, error=str(said))
    return dict(
        image=name,
        height=said.pixels.shape[0],
        width=said.pixels.shape[1],
        verdict=said.verdict,
        risk=round(said.risk, 6),
        boxes=[[round(float(v), 2) for v in box] for box in said.boxes],
        scores=[round(float(score), 6) for score in said.scores],
        labels=said.labels.tolist(),
    )


def _conclude(folder: Path, inspector: Inspector, earlier: int) -> Summary:
    """Write the tables of a complete shard from its journal."""
    classes = inspector.exported.classes
    counts = Summary(0, 0, 0, earlier)
    images, annotations = [], []
    for row in _rows(folder / JOURNAL):
        counts.radiographs += 1
        if 'error' in row:
            counts.quarantined += 1
            continue
        counts.rejected += row['verdict'] == 'reject'
        image = dict(id=len(images) + 1, file_name=row['image'])
        images.append(image | {key: row[key] for key in ('width', 'height', 'verdict', 'risk')})
        for (x1, y1, x2, y2), score, label in zip(row['boxes'], row['scores'], row['labels'], strict=True):
            box = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image['id'],
                    category_id=label + 1,
                    bbox=box,
                    area=round(box[2] * box[3], 2),
                    iscrowd=0,
                    score=score,
                )
            )
    content = dict(
        info=dict(description='detections', threshold=inspector.threshold, origin=inspector.exported.origin),
        images=images,
        annotations=annotations,
        categories=[dict(id=k + 1, name=name) for k, name in enumerate(classes)],
    )
    _replace(folder / 'coco.json', json.dumps(content))
    _table(
        folder / 'images.csv',
        ('image', 'verdict', 'risk'),
        ((i['file_name'], i['verdict'], i['risk']) for i in images),
    )
    _table(
        folder / 'detections.csv',
        ('image', 'severity', 'score', 'x', 'y', 'width', 'height'),
        (
            (images[a['image_id'] - 1]['file_name'], classes[a['category_id'] - 1], a['score'], *a['bbox'])
            for a in annotations
        ),
    )
    _table(
        folder / 'quarantine.csv',
        ('image', 'reason'),
        ((row['image'], row['error']) for row in _rows(folder / JOURNAL) if 'error' in row),
    )
    return counts


def _table(path: Path, header: tuple, rows) -> None:
    draft = path.with_name(path.name + '.part')
    with draft.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    draft.replace(path)


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(path.name + '.part')
    draft.write_text(text)
    draft.replace(path)


def _write_picture(path: Path, said: Inspection, threshold: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coded, content = cv2.imencode('.png', overlay(said, threshold))
    if not coded:
        raise ArchiveError(f'{path}: the overlay could not be coded as PNG; run with --overlays none')
    path.write_bytes(content)
