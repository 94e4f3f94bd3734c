"""COCO labels from JSON to Parquet and back, without loss and without the size limits of parsed JSON."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from projects.errors import one_line
from projects.radiograph.files import draft_of
from projects.radiograph.large_json import read_object
from projects.radiograph.safe_parse import MAX_JSON, FormatError
from projects.xray.parquet import (
    SUFFIX,
    open_labels,
    pack_annotation,
    pack_image,
    read_rows,
    unpack_annotations,
    unpack_image,
    write_labels,
)

from .ledger import UsageError


def convert_labels(source: Path, out: Path) -> Counter:
    """Convert COCO JSON to Parquet or Parquet to COCO JSON, by the suffixes.

    The round trip is lossless in JSON values: categories, masks, parts, flags and all other fields of records
    stay, in the same order. Each annotation takes some 300 bytes of memory meanwhile.

    Args:
        source: File to read.
        out: File to write, atomically.

    Returns:
        Number of images, boxes, and crowd or ignored boxes.

    Raises:
        UsageError: The suffixes are not one .json and one .parquet, or the source is no COCO file.
        DatasetError: The Parquet file cannot be read.
    """
    suffixes = source.suffix.lower(), out.suffix.lower()
    if suffixes not in (('.json', SUFFIX), (SUFFIX, '.json')):
        raise UsageError(
            f'{source} to {out}: expected a .json and a .parquet file, in either order; correct the names'
        )
    if not source.is_file():
        raise UsageError(f'{source}: no such file; correct its name')
    return _from_json(source, out) if suffixes[0] == '.json' else _to_json(source, out)


class _Gathered:
    """The annotations of a file until its images are known: text and image id of each."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.owners: list[Any] = []
        self.counts: Counter = Counter()

    def add(self, annotation: Mapping[str, Any]) -> None:
        """Take the next annotation of the list."""
        self.owners.append(annotation.get('image_id'))
        self.texts.append(json.dumps(annotation, separators=(',', ':')))
        crowd = bool(annotation.get('iscrowd') or annotation.get('ignore'))
        self.counts.update(boxes=1, crowd=int(crowd))

    def rows(self, images: Iterable[Mapping[str, Any]], numbers: Mapping[Any, int]) -> Iterator[dict]:
        """Yield one row per image, in the order of the file.

        Raises:
            FormatError: An annotation without an image.
        """
        try:
            of = np.fromiter((numbers[owner] for owner in self.owners), np.int64, len(self.owners))
        except (KeyError, TypeError) as error:
            raise FormatError(f'annotations of listed images, found one of the image {error}') from None
        order = np.argsort(of, kind='stable')
        edges = np.searchsorted(of[order], np.arange(len(numbers) + 1))
        for number, image in enumerate(images):
            mine = order[edges[number] : edges[number + 1]].tolist()
            yield pack_image(image, [pack_annotation(json.loads(self.texts[k]), k) for k in mine])


def _from_json(source: Path, out: Path) -> Counter:
    gathered, images = _Gathered(), []

    def take_images(_: dict, elements: Iterator) -> list:
        images.extend(json.dumps(_record(image), separators=(',', ':')) for image in elements)
        return []

    def take_annotations(_: dict, elements: Iterator) -> list:
        for annotation in elements:
            gathered.add(_record(annotation))
        return []

    try:
        coco = read_object(source, dict(images=take_images, annotations=take_annotations))
        for key in ('images', 'annotations', 'categories'):
            if not isinstance(coco.get(key), list):
                raise FormatError(f'COCO JSON with a list `{key}`')
        numbers = {json.loads(text).get('id'): k for k, text in enumerate(images)}
        if len(numbers) < len(images):
            raise FormatError(f'an id of its own for each of {len(images)} images, found {len(numbers)}')
        header = {key: value for key, value in coco.items() if key not in ('images', 'annotations')}
        count = write_labels(out, header, gathered.rows(map(json.loads, images), numbers))
    except (FormatError, RecursionError, UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        reason = error if isinstance(error, FormatError) else f'COCO JSON ({one_line(error)[:200]})'
        raise UsageError(f'{source}: expected {reason}; correct the file') from None
    return Counter(images=count) + gathered.counts


def _record(element: object) -> dict:
    if not isinstance(element, dict):
        raise FormatError('records in the lists of COCO JSON')
    return element


def _to_json(source: Path, out: Path) -> Counter:
    file, header = open_labels(source, str(source))
    counts: Counter = Counter()
    positions = []
    for batch in file.iter_batches(columns=['annotations.list.element.position']):
        positions.append(batch.column('annotations').flatten().field('position').to_numpy())
    in_order = bool((np.diff(np.concatenate([np.empty(0, np.int64), *positions])) > 0).all())
    with draft_of(out) as draft, draft.open('w', encoding='utf-8') as text:
        text.write('{')
        for key, value in header.items():
            text.write(f'{json.dumps(key)}: {json.dumps(value)}, ')
        text.write('"images": [')
        images = (unpack_image(row) for row in read_rows(file, str(source), _IMAGE_COLUMNS))
        counts['images'] = _write_list(text, images)
        text.write('], "annotations": [')
        counts['boxes'] = _write_list(text, _annotations(file, source, in_order, counts))
        text.write(']}')
    return counts


_IMAGE_COLUMNS = ['id', 'file_name', 'width', 'height', 'part', 'series', 'extra']


def _annotations(file: Any, source: Path, in_order: bool, counts: Counter) -> Iterator[dict]:
    """Yield the annotations in the order of their list."""

    def of_rows() -> Iterator[tuple[int, dict]]:
        for row in read_rows(file, str(source)):
            own = unpack_annotations(row, unpack_image(row).get('id'))
            for packed, annotation in zip(row['annotations'], own, strict=True):
                counts['crowd'] += bool(annotation.get('iscrowd') or annotation.get('ignore'))
                yield packed['position'], annotation

    if in_order:
        yield from (annotation for _, annotation in of_rows())
    else:
        texts = sorted((position, json.dumps(annotation)) for position, annotation in of_rows())
        yield from (json.loads(text) for _, text in texts)


def _write_list(text: Any, records: Iterable[dict]) -> int:
    count = 0
    for count, record in enumerate(records, 1):
        text.write((', ' if count > 1 else '') + json.dumps(record))
    return count


def note_of_size(path: Path) -> str:
    """Return a note on a COCO file that is too large to parse here; '' for a smaller file."""
    if path.stat().st_size <= MAX_JSON:
        return ''
    return f'note: more than {MAX_JSON >> 20} MiB; for other tools, while configs here name the Parquet file'
