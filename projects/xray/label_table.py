"""Labels of a Parquet file, checked and repaired once and memory-mapped, so that they take no memory.

The first reader of a file writes its checked content as Arrow IPC below `MMXRAY_CACHE`, named by the SHA-256
of the Parquet file. All ranks and loaders of the machine map the Arrow file. They share its pages, and the
kernel may drop them. A row becomes Python objects on access.
"""

import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from projects.radiograph import files
from projects.radiograph.blocks import cache_folder
from projects.radiograph.remote import RemoteError, is_url, read_bytes

from . import coco as rules
from .errors import DatasetError
from .parquet import (
    ANNOTATION,
    GROUP,
    SCHEMA,
    damaged,
    open_labels,
    pack_annotation,
    unpack_annotations,
    unpack_image,
)
from .parquet import SUFFIX as SUFFIX

_KEPT = 16
"""Number of mapped files that are kept; the least recently opened is deleted."""
_CHECKED = 1  # version of the checks and repairs
_AT_A_TIME = 1024  # images converted to Python objects at a time
_SUSPECT = r'[\x00-\x1f\x7f-\x9f\x{2028}\x{2029}]|^/|(^|/)\.\.(/|$)'


class DefectTable:
    """The content of `coco.load_defects` for a Parquet file, row by row; `open_defects` creates it.

    Args:
        path: The Parquet file, for messages.
        mapped: Arrow file with the checked content.
        facts: `header` and `repairs`.
        classes: See `load_defects`.
        severity: See `load_defects`.
    """

    def __init__(
        self,
        path: str,
        mapped: Path,
        facts: Mapping[str, Any],
        classes: Sequence[str] | None,
        severity: str | Mapping | None,
    ):
        self.path, self.mapped, self.settings = path, mapped, (classes, severity)
        self.info, self.repairs = facts['header'].get('info', {}), facts['repairs']
        reader = pa.ipc.open_file(pa.memory_map(str(mapped)))
        self.batches = [reader.get_batch(k) for k in range(reader.num_record_batches)]
        self.starts = np.cumsum([0, *(batch.num_rows for batch in self.batches)])
        self.types = rules.check_categories(path, facts['header'].get('categories', []))
        self.classes = list(self.types.values() if classes is None else classes)
        category, _, _ = self.boxes()
        used = {self.types[key] for key in np.unique(category).tolist()}
        self.to_class = rules.class_of_types(path, self.types.values(), used, self.classes, severity)
        self.categories = [dict(id=k, name=name) for k, name in enumerate(self.classes, 1)]

    def __reduce__(self):
        """Let a loader that was not forked open the file again."""
        return open_defects, (self.path, *self.settings)

    def __len__(self) -> int:
        """Return the number of images."""
        return int(self.starts[-1])

    def column(self, name: str) -> np.ndarray:
        """Return a column of the images: (n,) `id`, `width` or `height`."""
        return np.concatenate([batch.column(name).to_numpy() for batch in self.batches])

    def names(self) -> Iterator[str]:
        """Yield the file names."""
        for batch in self.batches:
            yield from batch.column('file_name').to_pylist()

    def name(self, row: int) -> str:
        """Return the file name of a row."""
        batch, place = self._place(row)
        return batch.column('file_name')[place].as_py()

    def _place(self, row: int) -> tuple[pa.RecordBatch, int]:
        number = int(np.searchsorted(self.starts, row, 'right')) - 1
        return self.batches[number], int(row - self.starts[number])

    def boxes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return category id, crowd flag and image row of every annotation, each (boxes,)."""
        categories, crowd, rows = [], [], []
        for start, batch in zip(self.starts, self.batches):
            flat = batch.column('annotations').flatten()
            categories.append(flat.field('category_id').to_numpy())
            crowd.append(flat.field('iscrowd').to_numpy().astype(bool))
            lengths = pc.list_value_length(batch.column('annotations')).to_numpy()
            rows.append(start + np.repeat(np.arange(batch.num_rows), lengths))
        return np.concatenate(categories), np.concatenate(crowd), np.concatenate(rows)

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return class index and image row of every annotation to learn, each (boxes,)."""
        category, crowd, rows = self.boxes()
        keys = np.sort(list(self.types))
        index = [self.classes.index(self.to_class.get(self.types[k], self.classes[0])) for k in keys.tolist()]
        return np.array(index)[np.searchsorted(keys, category[~crowd])], rows[~crowd]

    def record(self, row: int) -> tuple[dict, list[dict]]:
        """Return the COCO image of a row and its annotations, with the classes of `load_defects`."""
        batch, place = self._place(row)
        packed = batch.slice(place, 1).to_pylist()[0]
        image = unpack_image(packed)
        annotations = unpack_annotations(packed, image['id'])
        for annotation in annotations:
            annotation['type'] = self.types[annotation['category_id']]
            annotation['category_id'] = 1 + self.classes.index(self.to_class[annotation['type']])
        return image, annotations

    def rows_of(self, ids: Iterable[int]) -> tuple[list[int], list[int]]:
        """Return the rows of image ids, in the order of the file, and the unknown ids."""
        wanted, own = np.unique(np.fromiter(ids, np.int64)), self.column('id')
        order = np.argsort(own)
        place = np.minimum(np.searchsorted(own[order], wanted), len(own) - 1)
        known = own[order[place]] == wanted
        return np.sort(order[place[known]]).tolist(), wanted[~known].tolist()

    def coco(self, rows: Iterable[int] | None = None) -> dict[str, Any]:
        """Return some images, by default all, in the form of `load_defects`."""
        images, annotations = [], []
        for row in range(len(self)) if rows is None else rows:
            image, own = self.record(row)
            images.append(image)
            annotations += own
        return dict(
            info=self.info,
            images=images,
            annotations=annotations,
            categories=self.categories,
            repairs=self.repairs,
        )

    def check_once(self, what: str, check: Callable[[dict], object]) -> None:
        """Check all records before their use, once for this content on this machine.

        Args:
            what: Name of the check.
            check: Called with some images at a time, in the form of `load_defects`; raises an error if it
                fails.
        """
        mark = self.mapped.with_suffix(f'.{what}')
        if not mark.is_file():
            for start in range(0, len(self), _AT_A_TIME):
                check(self.coco(range(start, min(start + _AT_A_TIME, len(self)))))
            files.write_whole(mark, '')

    def rows_without_masks(self) -> list[int]:
        """Return the rows of images with a flaw that has no mask."""
        found = []
        for start, batch in zip(self.starts, self.batches):
            flat = batch.column('annotations').flatten()
            lacking = pc.is_in(
                flat.field('segmentation').fill_null('null'), pa.array(['null', '[]', '{}', '""'])
            )
            lacking = lacking.to_numpy(zero_copy_only=False) & (flat.field('iscrowd').to_numpy() == 0)
            lengths = pc.list_value_length(batch.column('annotations')).to_numpy()
            rows = np.repeat(np.arange(batch.num_rows), lengths)
            found += (start + np.unique(rows[lacking])).tolist()
        return found

    def series(self) -> set[Any]:
        """Return all values of the images' `series`, with None if an image has no series."""
        found = set()
        for batch in self.batches:
            found.update(pc.unique(batch.column('series')).to_pylist())
            odd = pc.match_substring(batch.column('extra').fill_null(''), '"series"')
            for row in batch.filter(odd).to_pylist():
                found.add(unpack_image(row).get('series'))
        return found

    def describe(self) -> str:
        """Return the table of `coco.describe`."""
        category, crowd, rows = self.boxes()
        boxes, images = Counter(), Counter()
        label_of = {key: self.to_class.get(kind) for key, kind in self.types.items()}
        for label in self.classes:
            mine = ~crowd & np.isin(category, [key for key, own in label_of.items() if own == label])
            if mine.any():
                boxes[label, ''], images[label, ''] = int(mine.sum()), len(np.unique(rows[mine]))
        for key, kind in self.types.items():
            mine = ~crowd & (category == key)
            if mine.any():
                name = (label_of[key], kind)
                boxes[name], images[name] = int(mine.sum()), len(np.unique(rows[mine]))
        counts = rules.Counts(len(self), len(np.unique(rows)), int((~crowd).sum()), int(crowd.sum()))
        return rules.as_table(self.path, counts, self.classes, boxes, images, self.repairs)


def open_defects(
    ann_file: str | os.PathLike, classes: Sequence[str] | None, severity: str | Mapping | None = None
) -> DefectTable:
    """Open a Parquet file of labels, with the checks and repairs of `coco.load_defects`.

    Args:
        ann_file: File written by tools/convert_labels.py, or its URL.
        classes: See `load_defects`.
        severity: See `load_defects`.

    Raises:
        DatasetError: See `load_defects`; or the disk has no space for the checked content.
    """
    path = str(ann_file)
    if isinstance(classes, str):
        raise rules.no_list_of_classes(classes)
    try:
        content = pa.py_buffer(read_bytes(path)) if is_url(path) else pa.memory_map(path).read_buffer()
    except RemoteError as error:
        raise DatasetError(str(error)) from None
    except FileNotFoundError:
        raise rules.no_file(path) from None
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from None
    name = f'{sha256(content).hexdigest()}-{_CHECKED}'
    place = cache_folder() / 'labels'
    try:
        facts = _kept(place, name) or _check(content, path, place, name)
    except OSError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f'{place}: expected room for the labels of {path} ({error.strerror}); point MMXRAY_CACHE at '
            'another disk'
        ) from None
    return DefectTable(path, place / f'{name}.arrow', facts, classes, severity)


def _kept(place: Path, name: str) -> dict[str, Any] | None:
    """Return the facts about checked labels; None if they do not exist or are damaged on disk."""
    with suppress(FileNotFoundError, ValueError):
        facts = json.loads((place / f'{name}.json').read_text())
        mapped = place / f'{name}.arrow'
        if facts['crc'] == _crc(mapped):
            os.utime(mapped)
            return facts
    return None


def _crc(path: Path) -> int:
    crc = 0
    with path.open('rb') as file:
        while block := file.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc


def _check(content: Any, path: str, place: Path, name: str) -> dict[str, Any]:
    """Check the labels, write the checked content, and return its facts."""
    file, header = open_labels(pa.BufferReader(content), path)
    types = rules.check_categories(path, header.get('categories', []))
    repairs: Counter = Counter()
    mapped = place / f'{name}.arrow'
    try:
        new_ids = _new_ids(file, repairs)
        with files.draft_of(mapped) as draft:
            with pa.OSFile(str(draft), 'wb') as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
                start, learnt, crowd, ids, names = 0, 0, 0, [], []
                for batch in file.iter_batches(GROUP):
                    checked = _checked(path, batch, start, types, new_ids, repairs)
                    writer.write_batch(checked)
                    flags = checked.column('annotations').flatten().field('iscrowd').to_numpy()
                    learnt, crowd = learnt + int((flags == 0).sum()), crowd + int((flags == 1).sum())
                    start += batch.num_rows
                    ids.append(checked.column('id').to_numpy())
                    names.append(checked.column('file_name'))
            if not start:
                rules.check_images(path, [])
            _check_unique(path, np.concatenate(ids), pa.chunked_array(names))
            if not learnt:
                raise rules.nothing_to_learn(path, crowd, start)
            crc = _crc(draft)
    except (pa.ArrowException, ValueError, OSError) as error:
        # Arrow's OSError for damaged files has no errno.
        if isinstance(error, DatasetError) or getattr(error, 'errno', None):
            raise
        raise damaged(path, error) from None
    repairs = {what: count for what, count in repairs.items() if count}
    facts = dict(header=header, repairs=repairs, crc=crc)
    files.write_json(place / f'{name}.json', facts)
    for old in sorted(place.glob('*.arrow'), key=lambda file: -file.stat().st_mtime_ns)[_KEPT:]:
        old.unlink(missing_ok=True)
        for beside in old.parent.glob(f'{old.stem}.*'):  # its facts and the marks of checks
            beside.unlink(missing_ok=True)
    pa.default_memory_pool().release_unused()
    return facts


def _check_unique(path: str, ids: np.ndarray, names: pa.ChunkedArray) -> None:
    for values in (ids, pc.dictionary_encode(names).combine_chunks().indices.to_numpy()):
        first = np.unique(values, return_index=True)[1]
        if len(first) < len(values):
            row = int(np.setdiff1d(np.arange(len(values)), first)[0])
            raise rules.image_twice(path, int(ids[row]), names[row].as_py())


def _new_ids(file: pq.ParquetFile, repairs: Counter) -> dict[int, int]:
    """Return new ids, by position, for annotations without an id or with a repeated one."""
    positions, ids, none = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, bool)]
    columns = ['annotations.list.element.position', 'annotations.list.element.id']
    for batch in file.iter_batches(4 * GROUP, columns=columns):
        flat = batch.column('annotations').flatten()
        positions.append(flat.field('position').to_numpy())
        ids.append(flat.field('id').fill_null(0).to_numpy())
        none.append(_null(flat.field('id')))
    order = np.argsort(np.concatenate(positions), kind='stable')
    position, own, lacks = (np.concatenate(part)[order] for part in (positions, ids, none))
    wrong = lacks.copy()
    has = np.flatnonzero(~lacks)
    first = np.unique(own[has], return_index=True)[1]
    later = np.ones(len(has), bool)
    later[first] = False
    wrong[has[later]] = True
    next_id = int(own[has].max(initial=0)) + 1 if len(has) else 1
    repairs['annotation ids renumbered'] += int(wrong.sum())
    return {int(p): next_id + k for k, p in enumerate(position[wrong])}


def _null(column: pa.Array) -> np.ndarray:
    return pc.is_null(column).to_numpy(zero_copy_only=False)


def _floats(column: pa.Array) -> np.ndarray:
    """(n,) float64; nan for missing values."""
    return column.fill_null(np.nan).to_numpy(zero_copy_only=False)


def _checked(
    path: str,
    batch: pa.RecordBatch,
    start: int,
    types: Mapping[int, str],
    new_ids: Mapping[int, int],
    repairs: Counter,
) -> pa.RecordBatch:
    """Check a batch by columns; records with a fault go through the checks of `coco` one by one."""
    _check_image_rows(path, batch, start)
    lists = batch.column('annotations')
    flat = lists.flatten()
    rows = np.repeat(np.arange(batch.num_rows), pc.list_value_length(lists).to_numpy())
    size = np.stack([batch.column(key).to_numpy()[rows] for key in ('width', 'height')], 1).astype(float)
    boxes = np.full((len(flat), 4), np.nan)
    boxes[~_null(flat.field('bbox'))] = flat.field('bbox').flatten().to_numpy().reshape(-1, 4)
    ids = flat.field('id').fill_null(0).to_numpy().copy()
    position = flat.field('position').to_numpy()
    if new_ids:
        for k in np.flatnonzero(np.isin(position, np.fromiter(new_ids, np.int64))):
            ids[k] = new_ids[int(position[k])]
    category = flat.field('category_id').fill_null(-1).to_numpy()
    area, crowd = _floats(flat.field('area')).copy(), flat.field('iscrowd').fill_null(-1).to_numpy().copy()
    far = boxes[:, :2] + boxes[:, 2:]
    with np.errstate(invalid='ignore'):
        extent = far - boxes[:, :2]  # bit-identical to the computation in `coco`
        sound = (
            (boxes[:, :2] >= 0).all(1)
            & (extent >= 1).all(1)
            & (far <= size).all(1)
            & (boxes[:, 2:] > 0).all(1)
        )
        sound &= np.isin(category, list(types)) & ~_null(flat.field('category_id'))
        sound &= (area > 0) & np.isfinite(area) & ((crowd == 0) | (crowd == 1)) & _null(flat.field('ignore'))
    named = pc.match_substring(flat.field('extra').fill_null(''), '"ignore"')
    sound &= ~named.to_numpy(zero_copy_only=False)
    boxes[:, 2:] = np.where(sound[:, None], extent, boxes[:, 2:])
    extra = None
    for k in np.flatnonzero(~sound).tolist():
        image = unpack_image(batch.slice(int(rows[k]), 1).to_pylist()[0])
        annotation = unpack_annotations(dict(annotations=[flat[k].as_py()]), image['id'])[0]
        annotation['id'] = int(ids[k])
        repaired = rules.repair_annotations(path, [annotation], {image['id']: image}, types)
        repairs.update(repaired[1])
        packed = pack_annotation({key: v for key, v in repaired[0][0].items() if key != 'type'}, 0)
        boxes[k], area[k], crowd[k] = packed['bbox'], packed['area'], packed['iscrowd']
        extra = flat.field('extra').to_pylist() if extra is None else extra
        extra[k] = packed.get('extra')
    columns = dict(
        position=flat.field('position'),
        id=pa.array(ids),
        category_id=flat.field('category_id'),
        bbox=pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 4),
        area=pa.array(area),
        iscrowd=pa.array(crowd.astype(np.int8)),
        ignore=pa.nulls(len(flat), pa.int8()),
        segmentation=flat.field('segmentation'),
        extra=flat.field('extra') if extra is None else pa.array(extra, pa.string()),
    )
    struct = pa.StructArray.from_arrays(
        [columns[field.name] for field in ANNOTATION], fields=list(ANNOTATION)
    )
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=batch.num_rows))]).astype(np.int32)
    arrays = [batch.column(name) for name in SCHEMA.names[:-1]]
    return pa.RecordBatch.from_arrays(
        [*arrays, pa.ListArray.from_arrays(pa.array(offsets), struct)], schema=SCHEMA
    )


def _check_image_rows(path: str, batch: pa.RecordBatch, start: int) -> None:
    """Check the images by columns, and suspect images with the checks of `coco`."""
    suspect = np.zeros(batch.num_rows, bool)
    for key in ('id', 'file_name', 'width', 'height'):
        suspect |= _null(batch.column(key))
    for key in ('width', 'height'):
        suspect |= batch.column(key).fill_null(0).to_numpy() <= 0
    name = batch.column('file_name').fill_null('')
    suspect |= pc.match_substring_regex(name, _SUSPECT).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(suspect).tolist():
        image = unpack_image(batch.slice(row, 1).to_pylist()[0])
        rules.check_images(path, [image], start + row)
        if any(batch.column(key)[row].as_py() is None for key in ('id', 'file_name', 'width', 'height')):
            raise DatasetError(
                f'{path}: image {image["file_name"]} has an id or a size that is no whole number of 32 bits, '
                'or a name that cannot be shown; correct it'
            )
