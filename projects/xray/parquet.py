"""COCO labels in a Parquet file with one row per image, written and read in batches.

JSON of a million images takes minutes and gigabytes to read. The usual fields of a row are separate columns,
which other tools can read. Further fields, and values that their column cannot hold exactly, are kept as JSON
in `extra`, so that no value is lost. Categories and `info` are in the file's metadata.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from projects.errors import one_line
from projects.radiograph.files import draft_of

from .errors import DatasetError

SUFFIX = '.parquet'
GROUP = 16_384  # images per row group; one group is in memory at a time
_FORMAT = 'mmxray labels 1'

ANNOTATION = pa.struct(
    [
        ('position', pa.int64()),  # index in `annotations` of the COCO file
        ('id', pa.int64()),
        ('category_id', pa.int64()),
        ('bbox', pa.list_(pa.float64(), 4)),  # x, y, w, h in px
        ('area', pa.float64()),
        ('iscrowd', pa.int8()),
        ('ignore', pa.int8()),
        ('segmentation', pa.string()),  # JSON: polygons or run lengths
        ('extra', pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ('id', pa.int64()),
        ('file_name', pa.string()),
        ('width', pa.int32()),
        ('height', pa.int32()),
        ('part', pa.string()),
        ('series', pa.string()),
        ('extra', pa.string()),
        ('annotations', pa.list_(ANNOTATION)),
    ]
)


def _whole(bits: int):
    return lambda value: type(value) is int and -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)


def _real(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) <= 2**53)


def _text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def _box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_real, value))


_OF_IMAGE = dict(
    id=_whole(64), file_name=_text, width=_whole(32), height=_whole(32), part=_text, series=_text
)
_OF_ANNOTATION = dict(
    id=_whole(64), category_id=_whole(64), bbox=_box, area=_real, iscrowd=_whole(8), ignore=_whole(8)
)


def _packed(record: Mapping[str, Any], fits: Mapping[str, Any]) -> dict[str, Any]:
    """Split a record into columns that hold its values exactly, and the rest in `extra`."""
    row = {key: record[key] for key, test in fits.items() if key in record and test(record[key])}
    rest = {key: value for key, value in record.items() if key not in row}
    return row | ({'extra': json.dumps(rest)} if rest else {})


def pack_annotation(annotation: Mapping[str, Any], position: int) -> dict[str, Any]:
    """Return an annotation as a struct, without `image_id`, which the row gives."""
    rest = {key: value for key, value in annotation.items() if key not in ('image_id', 'segmentation')}
    row = _packed(rest, _OF_ANNOTATION) | dict(position=position)
    if 'segmentation' in annotation:
        row['segmentation'] = json.dumps(annotation['segmentation'], separators=(',', ':'))
    return row


def pack_image(image: Mapping[str, Any], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an image and its packed annotations as a row."""
    return _packed(image, _OF_IMAGE) | dict(annotations=annotations)


def unpack_image(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the COCO image of a row."""
    image = {key: row[key] for key in _OF_IMAGE if row[key] is not None}
    return image | (json.loads(row['extra']) if row['extra'] else {})


def unpack_annotations(row: Mapping[str, Any], image_id: Any) -> list[dict[str, Any]]:
    """Return the COCO annotations of a row, in the order of the row."""
    annotations = []
    for packed in row['annotations']:
        annotation = {key: packed[key] for key in _OF_ANNOTATION if packed[key] is not None}
        annotation['image_id'] = image_id
        if packed['segmentation'] is not None:
            annotation['segmentation'] = json.loads(packed['segmentation'])
        annotations.append(annotation | (json.loads(packed['extra']) if packed['extra'] else {}))
    return annotations


def write_labels(path: Path, header: Mapping[str, Any], rows: Iterable[dict[str, Any]]) -> int:
    """Write labels as Parquet.

    Args:
        path: File to write, atomically.
        header: The COCO object without `images` and `annotations`.
        rows: Results of `pack_image`.

    Returns:
        The number of images.
    """
    rows = iter(rows)
    groups = iter(lambda: list(itertools.islice(rows, GROUP)), [])
    return write_batches(path, header, (pa.RecordBatch.from_pylist(group, SCHEMA) for group in groups))


def write_batches(path: Path, header: Mapping[str, Any], batches: Iterable[pa.RecordBatch]) -> int:
    """Write labels as Parquet, see `write_labels`; each batch of `SCHEMA` becomes a row group."""
    schema = SCHEMA.with_metadata(dict(format=_FORMAT, coco=json.dumps(header)))
    count = 0
    checked = dict(compression='zstd', write_page_checksum=True)
    with draft_of(path) as draft, pq.ParquetWriter(draft, schema, **checked) as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
            count += batch.num_rows
    return count


def open_labels(source: Any, path: str) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """Open a Parquet file of labels.

    Args:
        source: The file, or its content as a buffer.
        path: Its path, for messages.

    Returns:
        The file and the COCO object without `images` and `annotations`.

    Raises:
        DatasetError: The file was not written by `write_labels`.
    """
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True)
        metadata = file.schema_arrow.metadata or {}
        if metadata.get(b'format') != _FORMAT.encode() or not file.schema_arrow.equals(SCHEMA):
            raise DatasetError(
                f'{path}: expected labels of tools/convert_labels.py, found another Parquet file; convert '
                'the COCO file again'
            )
        return file, json.loads(metadata[b'coco'])
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise damaged(path, error) from None


def damaged(path: str, error: Exception) -> DatasetError:
    """Return the error for a damaged or truncated file."""
    return DatasetError(
        f'{path}: expected a complete Parquet file ({one_line(error)[:200]}); copy or convert it again'
    )


def read_rows(file: pq.ParquetFile, path: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows, with one group in memory at a time.

    Raises:
        DatasetError: The file is damaged.
    """
    try:
        for batch in file.iter_batches(GROUP, columns=columns):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, error) from None


def read_whole(source: Any, path: str) -> dict[str, Any]:
    """Return labels as a COCO object, all in memory; see `open_labels`."""
    file, header = open_labels(source, path)
    images, annotations = [], []
    for row in read_rows(file, path):
        images.append(unpack_image(row))
        own = unpack_annotations(row, images[-1].get('id'))
        annotations += zip((packed['position'] for packed in row['annotations']), own, strict=True)
    annotations.sort(key=lambda pair: pair[0])
    return header | dict(images=images, annotations=[annotation for _, annotation in annotations])
