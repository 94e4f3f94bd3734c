"""An inventory beside an archive: each file is read once, and later listings read the inventory alone.

The inventory is a gzipped CSV file with one line for each file that may be a radiograph: path, size, mark
(ETag, or time), format, height, width, part, and the reason if it is no radiograph. A refresh reads only new
and changed files, by size and mark, and drops removed files. The listing itself may come from an S3 inventory
report, which a bucket writes daily.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from projects.errors import one_line

from .files import write_whole
from .image import ImagingError
from .listing import SUFFIXES, files_below, is_companion, may_be_dicom
from .parts import PartError, part_of
from .read import read
from .remote import RemoteError, exists, is_url, join, read_bytes, tags, write_bytes

NAME = 'xray_inventory.csv.gz'
SAVED = 20_000
"""Files read between two writes: the most that a kill costs."""
_DAMAGED = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zlib.error, csv.Error)


class InventoryError(ImagingError):
    """An inventory cannot be read or written: one line with the file and the remedy."""


class Entry(NamedTuple):
    """One file. If it is no radiograph, `format`, `height` and `width` are empty, and `reason` says why."""

    path: str
    size: str
    mark: str
    format: str
    height: str
    width: str
    part: str
    reason: str


def take(
    folder: str,
    group: str | None = None,
    report: str | None = None,
    workers: int = 1,
    progress: Callable[[Iterator[Entry], int], Iterator[Entry]] = lambda results, total: results,
) -> tuple[list[Entry], int]:
    """Write the inventory of an archive, or refresh it.

    Args:
        folder: of radiographs, recursive, or its URL.
        group: regular expression; its first group in a path is the part. None: parts are unknown.
        report: `manifest.json` of an S3 inventory report, in place of a listing.
        workers: threads that read.
        progress: wraps the iterator over the files to read; also gets their number.

    Returns:
        All entries, sorted by path, and the number of files read.

    Raises:
        InventoryError: no files, no part in a path, or an unusable report.
        RemoteError: the archive cannot be read or written.
    """
    folder = folder.rstrip('/')
    files = _reported(folder, report) if report else _listed(folder)
    if not files:
        raise InventoryError(f'{folder}: expected files with one of {", ".join(SUFFIXES)}; correct SRC')
    parts = {path: _part(folder, path, group) for path in files}
    kept = {e.path: e for e in load(folder) or [] if files.get(e.path) == (e.size, e.mark)}
    todo = [path for path in files if path not in kept]

    def look(path: str) -> Entry:
        kind, height, width, reason = _look(join(folder, path))
        return Entry(path, *files[path], kind, height, width, parts[path], reason)

    with ThreadPoolExecutor(workers) as pool:
        found = (e for k in range(0, len(todo), 1024) for e in pool.map(look, todo[k : k + 1024]))
        for number, entry in enumerate(progress(found, len(todo)), 1):
            kept[entry.path] = entry
            if number % SAVED == 0:
                _save(folder, [kept[path] for path in files if path in kept])
    entries = [kept[path]._replace(part=parts[path]) for path in files]
    _save(folder, entries)
    return entries, len(todo)


def load(folder: str) -> list[Entry] | None:
    """Read the inventory beside an archive; None where there is none.

    Raises:
        InventoryError: the inventory is damaged.
        RemoteError: the inventory cannot be read.
    """
    path = join(folder.rstrip('/'), NAME)
    if not (exists(path) if is_url(path) else Path(path).is_file()):
        return None
    try:
        data = read_bytes(path) if is_url(path) else Path(path).read_bytes()
        rows = list(_rows(data))
        if not rows or tuple(rows[0]) != Entry._fields:
            raise ValueError('another heading')
        return [Entry(*row) for row in rows[1:]]
    except RemoteError:
        raise
    except _DAMAGED as error:
        raise InventoryError(
            f'{path}: expected an inventory ({one_line(error)}); remove it, and run tools/list_images.py '
            'again'
        ) from None


def radiographs(entries: list[Entry]) -> list[str]:
    """Return the paths of the entries that are radiographs."""
    return [entry.path for entry in entries if not entry.reason]


def _part(folder: str, path: str, group: str | None) -> str:
    try:
        return part_of(path, group) or ''
    except PartError as error:
        raise InventoryError(f'{join(folder, path)}: {error}') from None


def _save(folder: str, entries: list[Entry]) -> None:
    text = io.StringIO(newline='')
    csv.writer(text, lineterminator='\n').writerows([Entry._fields, *entries])
    # Names of local files need not be UTF-8.
    data = gzip.compress(text.getvalue().encode(errors='surrogateescape'), 6, mtime=0)
    path = join(folder, NAME)
    if is_url(path):
        write_bytes(path, data)
        return
    try:
        write_whole(Path(path), data)
    except OSError as error:
        raise InventoryError(f'{path}: {error.strerror}; make the folder writable') from None


def _wanted(path: str) -> bool:
    """Whether a file may be a radiograph, by its name, so that it is read."""
    own = PurePosixPath(path)
    suffix = own.suffix.lower()
    return (
        not own.name.startswith('.')
        and not is_companion(path)
        and (suffix in SUFFIXES or may_be_dicom(suffix))
    )


def _listed(folder: str) -> dict[str, tuple[str, str]]:
    """Return size and mark of the files of an archive, sorted by path."""
    if is_url(folder):
        marks = {path: mark.partition(' ') for path, mark in tags(folder).items() if _wanted(path)}
        return {path: (size, mark.strip('"')) for path, (size, _, mark) in marks.items()}
    found = {}
    for path in filter(_wanted, files_below(folder)):
        try:
            state = Path(folder, path).stat()
        except FileNotFoundError:  # removed since the listing
            continue
        found[path] = str(state.st_size), str(state.st_mtime_ns)
    return found


def _reported(folder: str, manifest: str) -> dict[str, tuple[str, str]]:
    """Return size and ETag of the objects of an archive, from an S3 inventory report, sorted by path."""
    bucket, _, prefix = folder.partition('://')[2].partition('/')
    prefix = f'{prefix}/' if prefix else ''
    place = manifest.rpartition('/')[0]
    try:
        content: dict[str, Any] = json.loads(_content(manifest))
        columns = [column.strip() for column in content['fileSchema'].split(',')]
        if (
            content['fileFormat'] != 'CSV'
            or content['sourceBucket'] != bucket
            or not {'Key', 'Size', 'ETag'} <= set(columns)
        ):
            raise ValueError(
                f'{content["fileFormat"]} of {content["sourceBucket"]} with {", ".join(columns)}'
            )
        found = {}
        for file in content['files']:
            # Keys are `<bucket>/<config>/data/<name>`: these files lie beside the manifest's own folder.
            data = _content(_data_of(place, file['key']))
            for values in _rows(data):
                row = dict(zip(columns, values, strict=True))
                key = unquote_plus(row['Key'])
                latest = (
                    row.get('IsLatest', 'true') == 'true' and row.get('IsDeleteMarker', 'false') == 'false'
                )
                if latest and key.startswith(prefix) and _wanted(key):
                    found[key.removeprefix(prefix)] = row['Size'], row['ETag'].strip('"')
    except RemoteError:
        raise
    except _DAMAGED as error:
        raise InventoryError(
            f'{manifest}: expected the manifest of an S3 inventory report of {bucket}, in CSV with Key, Size '
            f'and ETag ({one_line(error)}); correct --report'
        ) from None
    return dict(sorted(found.items()))


def _rows(data: bytes) -> Iterator[list[str]]:
    """Yield the rows of a gzipped CSV file."""
    return csv.reader(io.StringIO(gzip.decompress(data).decode(errors='surrogateescape'), newline=''))


def _data_of(place: str, key: str) -> str:
    """Return the place of a report's file: in the manifest's bucket, or beside a copy of the manifest."""
    if is_url(place):
        protocol, _, rest = place.partition('://')
        return f'{protocol}://{rest.partition("/")[0]}/{key}'
    return f'{place}/{PurePosixPath(key).name}'


def _content(path: str) -> bytes:
    return read_bytes(path) if is_url(path) else Path(path).read_bytes()


def _look(path: str) -> tuple[str, str, str, str]:
    """Return format, height and width of a file, or the reason why it is no radiograph."""
    try:
        data = _content(path)
        suffix = PurePosixPath(path).suffix.lower()
        if suffix not in SUFFIXES and data[128:132] != b'DICM':
            return '', '', '', 'no DICOM'
        radiograph = read(data, frame=0, name=path)
    except RemoteError:
        raise  # the server fails, not this file
    except (ImagingError, OSError) as error:
        return '', '', '', ' '.join(str(error).split())
    height, width = radiograph.pixels.shape
    return str(radiograph.meta['format']), str(height), str(width), ''
