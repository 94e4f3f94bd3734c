"""Packing a folder of radiographs into a store, resuming after a kill; comparing a store with its sources."""

import hashlib
import json
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from io import BufferedWriter
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .files import locked, sha256, write_whole
from .image import ImagingError
from .listing import SUFFIXES, list_radiographs
from .parts import PartError, part_of
from .read import read
from .recipe import Recipe, StoreError, prepare
from .remote import RemoteError, is_url, join, read_bytes, tags
from .remote import list_radiographs as list_remote_radiographs
from .store import (
    FORMAT,
    HEAD,
    RECORD,
    Record,
    Store,
    again,
    checksum_of,
    map_file,
    pixels_of,
    read_head,
    shard_name,
    text_of,
)

SHARD_BYTES = 2**30
"""Size at which a shard is full: the first image that ends beyond it is the shard's last."""

Progress = Callable[[Iterator[Any], int], Iterator[Any]]
"""Wraps the iterator over the images for a progress bar; also gets their number."""


def pack(
    source: str | Path,
    out: str | Path,
    recipe: Recipe,
    group: str | None = None,
    workers: int = 1,
    progress: Progress = lambda results, total: results,
    closed: Callable[[int], None] = lambda number: None,
) -> tuple[Store, dict[str, str]]:
    """Pack a folder of radiographs, or resume a killed run.

    Args:
        source: image folder, or its URL.
        out: the store: a new folder, or an unfinished store of the same arguments.
        recipe: the window, size and depth of the pixels.
        group: regular expression searched in each name; its first group, or else the match, is the part.
            None: parts are unknown, and '' is written.
        workers: processes that decode.
        progress: wraps the iterator over the images; also gets their number.
        closed: called with the number of each shard except the last, once the shard is on the disk.

    Returns:
        The store, and the reason for each file that was left out because it is no readable radiograph.

    Raises:
        StoreError: nothing to pack, a name without a part, a store of other arguments, another process that
            writes to the folder, images that were added, removed or changed meanwhile, or a full disk.
    """
    out = Path(out)
    source = str(source).rstrip('/') if is_url(source) else Path(source)
    names, _ = _list(source)
    if not names:
        raise StoreError(f'{source}: expected a folder with files of {", ".join(SUFFIXES)}; correct SRC')
    parts = {name: _part(source, name, group) for name in names}
    place = str(source.resolve() if isinstance(source, Path) else source)
    head = dict(format=FORMAT, source=place, group=group, recipe=asdict(recipe))
    files = _fingerprint(source, names)
    with _lock(out):
        written = _begin(out, head, files)
        same = written.get('files') == files
        if written['finished']:
            store = Store(out)
            packed = {store.name(i): store[i].source_sha256 for i in range(len(store))}
            left_out = written['left_out']
            late = [name for name in names if name not in packed and name not in left_out]
            if not late:
                _compare(source, out, parts, packed, same)
        else:
            late, left_out = _pack_rest(source, out, recipe, parts, same, workers, progress, closed)
        if late:
            raise StoreError(f'{out}: {_path(source, late[0])} came too late for its place; {again(out)}')
        if not written['finished'] or not same:
            sizes = {name: (out / name).stat().st_size for name in ('index.bin', 'names.bin')}
            _write_head(out, head | dict(finished=True, files=files, left_out=left_out) | sizes)
    return Store(out), left_out


def _list(source: str | Path) -> tuple[list[str], dict[str, int]]:
    return list_remote_radiographs(str(source)) if is_url(source) else list_radiographs(source)


def _path(source: str | Path, name: str) -> str:
    """Path or URL of an image."""
    return join(str(source), name)


def _sha256(path: str) -> str:
    """Return the SHA-256 of a file or object in hexadecimal digits."""
    return hashlib.sha256(read_bytes(path)).hexdigest() if is_url(path) else sha256(Path(path))


def _fingerprint(source: str | Path, names: list[str]) -> str:
    """Return the SHA-256 of names, sizes and times of files; it differs if a file is new, gone or changed."""
    hashed = hashlib.sha256()
    marks = tags(str(source)) if is_url(source) else {}
    for name in names:
        if not is_url(source):
            try:
                stat = Path(source, name).stat()
            except OSError:  # removed since the listing: decoding reports it
                continue
            marks[name] = f'{stat.st_size} {stat.st_mtime_ns}'
        hashed.update(f'{name} {marks.pop(name, "")}\n'.encode())
    return hashed.hexdigest()


def _compare(
    source: str | Path, out: Path, parts: dict[str, str], packed: dict[str, bytes], same: bool
) -> None:
    """Make sure that the images in a store still equal those of the source folder.

    Args:
        source: image folder.
        out: the store.
        parts: part of each image in the source folder, by name.
        packed: SHA-256 of the source file of each image in the store, by name.
        same: whether sizes and times of the source files are unchanged; else their contents are compared.

    Raises:
        StoreError: an image is missing or differs.
    """
    for name, packed_as in packed.items():
        if name not in parts:
            raise StoreError(
                f'{_path(source, name)}: no such file, but it was packed; put it back, or {again(out)}'
            )
        try:
            changed = not same and bytes.fromhex(_sha256(_path(source, name))) != packed_as
        except RemoteError:
            raise
        except OSError as error:
            raise StoreError(f'{_path(source, name)}: {error.strerror}; make the file readable') from None
        if changed:
            raise StoreError(f'{_path(source, name)}: differs from the file that was packed; {again(out)}')


def _pack_rest(
    source: str | Path,
    out: Path,
    recipe: Recipe,
    parts: dict[str, str],
    same: bool,
    workers: int,
    progress: Progress,
    closed: Callable[[int], None],
) -> tuple[list[str], dict[str, str]]:
    """Append the images that are not in the store yet.

    Returns:
        The names that were added too late for their place in the order, and the reason for each unreadable
        file.
    """
    late: list[str] = []
    left_out: dict[str, str] = {}
    with _Writer(out, recipe, closed) as writer:
        _compare(source, out, parts, writer.done, same)
        todo = [name for name in parts if name not in writer.done]
        results = _decode_all(todo, source, recipe, workers)
        for name, result in progress(results, len(todo)):
            if isinstance(result, str):
                left_out[name] = result
            elif writer.done and name < next(reversed(writer.done)):
                late.append(name)
            else:
                writer.append(name, parts[name], *result)
        if not writer.done:
            raise StoreError(
                f'{source}: no radiograph among {len(parts)} files can be read: {left_out[todo[0]]}'
            )
    return late, left_out


def _part(source: str | Path, name: str, group: str | None) -> str:
    """Return the physical part that an image shows; empty where it is unknown."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise StoreError(f'{source}: file name {name!r} is not UTF-8; rename the file') from None
    try:
        return part_of(name, group) or ''
    except PartError as error:
        raise StoreError(f'{_path(source, name)}: {error}') from None


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Create a folder and keep other packing processes out of it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f'{out}: expected a folder to write to ({error.strerror}); correct OUT') from None
    with locked(out, StoreError(f'{out}: another process is packing into it; wait for it')):
        yield


def _begin(out: Path, head: dict[str, Any], files: str) -> dict[str, Any]:
    """Return the head of a store; a new store is started first."""
    if not (out / HEAD).exists():
        strangers = sorted(path.name for path in out.iterdir() if not path.name.startswith(('lock', HEAD)))
        if strangers:
            raise StoreError(f'{out}: expected a new folder, found {strangers[0]}; give another OUT')
        _write_head(out, head | dict(finished=False, files=files))
    written = read_head(out)
    for key, value in head.items():
        if written.get(key) != value:
            raise StoreError(
                f'{out}: begun with {key} {written.get(key)}, now {value}; give the same arguments or '
                'another OUT'
            )
    return written


def _write_head(out: Path, head: dict[str, Any]) -> None:
    write_whole(out / HEAD, json.dumps(head, indent=1) + '\n', durable=True)


class _Writer:
    """Appends images to an unfinished store.

    Args:
        out: the store.
        recipe: window, size and depth of its pixels.
        closed: see `pack`.
    """

    def __init__(self, out: Path, recipe: Recipe, closed: Callable[[int], None]):
        """Keep the whole records of a killed run, and cut off the rest."""
        self.out, self.dtype, self.closed = out, recipe.dtype, closed
        for name in ('index.bin', 'names.bin'):
            (out / name).touch()
        index, names = (out / 'index.bin').read_bytes(), (out / 'names.bin').read_bytes()
        whole = len(index) // RECORD.size * RECORD.size
        records = self._whole([Record._make(row) for row in RECORD.iter_unpack(index[:whole])], names)
        # SHA-256 of the source files by name, in the order written.
        self.done = {text_of(record, names)[0].decode(): record.source_sha256 for record in records}
        last = records[-1] if records else Record(0, 0, 0, 0, 0, 0, 0, 0, 0, b'', 0)
        self.number = last.shard
        self.index = self._open('index.bin', len(records) * RECORD.size)
        self.names = self._open('names.bin', last.text + last.name_bytes + last.part_bytes)
        end = last.offset + last.height * last.width * self.dtype.itemsize
        self.shard = self._open(shard_name(self.number), end)
        for path in out.glob('shard-*.bin'):
            if path.name > shard_name(self.number):
                path.unlink()

    def _whole(self, records: list[Record], names: bytes) -> list[Record]:
        """Return the records before the first torn record; closed shards were synced and stay unchecked."""
        # A torn record may name any shard, so the last shard is only known once no torn record is left.
        torn: int | None = 0
        while records and torn is not None:
            number = records[-1].shard
            path = self.out / shard_name(number)
            shard = map_file(path) if path.is_file() and path.stat().st_size else b''
            torn = next(
                (i for i, r in enumerate(records) if r.shard == number and self._torn(r, names, shard)), None
            )
            records = records[:torn]
        return records

    def _torn(self, record: Record, names: bytes, shard: mmap.mmap | bytes) -> bool:
        pixels = pixels_of(record, shard, self.dtype)
        return checksum_of(record, text_of(record, names), pixels) != record.checksum

    def _open(self, name: str, size: int) -> BufferedWriter:
        file = (self.out / name).open('ab')
        file.truncate(size)
        file.seek(size)  # else tell() returns the old end
        return file

    def append(
        self, name: str, part: str, digest: bytes, source_shape: tuple[int, ...], pixels: np.ndarray
    ) -> None:
        """Append an image; its name must sort behind all names in the store.

        Args:
            name: path relative to the source folder.
            part: physical part.
            digest: SHA-256 of the source file, 32 bytes.
            source_shape: height and width of the source image, in px.
            pixels: (H, W) of the store's type.
        """
        if self.shard.tell() >= SHARD_BYTES:
            self._sync()
            self.shard.close()
            self.closed(self.number)
            self.number += 1
            self.shard = self._open(shard_name(self.number), 0)
        text = name.encode(), part.encode()
        pixels = np.ascontiguousarray(pixels)
        place = self.names.tell(), *map(len, text), self.number, self.shard.tell()
        record = Record._make((*place, *pixels.shape, *source_shape, digest, 0))
        record = record._replace(checksum=checksum_of(record, text, pixels))
        # The record comes last: an image counts once its record is written.
        writes = (
            (self.shard, pixels.data),
            (self.names, b''.join(text)),
            (self.index, RECORD.pack(*record)),
        )
        try:
            for file, data in writes:
                file.write(data)
                file.flush()
        except OSError as error:
            raise StoreError(
                f'{self.out}: {error.strerror}; free disk space and run again: packing resumes here'
            ) from None
        self.done[name] = digest

    def _sync(self) -> None:
        for file in (self.shard, self.names, self.index):
            os.fsync(file.fileno())

    def __enter__(self) -> '_Writer':
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._sync()
        for file in (self.shard, self.names, self.index):
            file.close()


def _decode_all(
    names: list[str], source: str | Path, recipe: Recipe, workers: int
) -> Iterator[tuple[str, Any]]:
    """Yield (name, what `_decode` returned) in order, with a bounded number of images in memory."""
    if workers == 1:
        yield from ((name, _decode(name, source, recipe)) for name in names)
        return
    with ProcessPoolExecutor(workers, get_context('spawn'), cv2.setNumThreads, (1,)) as pool:
        waiting: deque[tuple[str, Future[Any]]] = deque()
        for name in names:
            waiting.append((name, pool.submit(_decode, name, source, recipe)))
            if len(waiting) > 4 * workers:
                name, future = waiting.popleft()
                yield name, _result(future, name)
        for name, future in waiting:
            yield name, _result(future, name)


def _result(future: Future[Any], name: str) -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        raise StoreError(
            f'{name}: a worker died at or near this image, perhaps for lack of memory; run again with fewer '
            'workers: packing resumes where it stopped'
        ) from None


def _decode(name: str, source: str | Path, recipe: Recipe) -> tuple[bytes, tuple[int, ...], np.ndarray] | str:
    """Return SHA-256, source shape and pixels of an image, or the reason why it cannot be read."""
    path = _path(source, name)
    try:
        data = read_bytes(path) if is_url(path) else Path(path).read_bytes()
        radiograph = read(data, name=path)
        pixels = prepare(radiograph, recipe.window, recipe.dtype.name, recipe.size)
    except RemoteError:
        raise  # the server fails, not this image, which must not be left out
    except ImagingError as error:
        return str(error)
    except OSError as error:
        return f'{path}: {error.strerror}'
    return hashlib.sha256(data).digest(), radiograph.pixels.shape, pixels


def verify(
    store: Store,
    source: str | Path | None = None,
    workers: int = 1,
    progress: Progress = lambda results, total: results,
) -> list[str]:
    """Compare every image of a store with its checksum, and the source files with their SHA-256.

    Args:
        store: the store to check.
        source: image folder or URL; None leaves the source files out.
        workers: threads that read source files.
        progress: wraps the iterator over the images; also gets their number.

    Returns:
        One line per fault; empty if all is well.
    """

    def check(index: int) -> list[str]:
        faults = []
        try:
            store.read(index)
            name = store.name(index)
        except (StoreError, UnicodeDecodeError) as error:
            return [str(error)]
        if source is not None:
            path = _path(source, name)
            try:
                if bytes.fromhex(_sha256(path)) != store[index].source_sha256:
                    faults.append(f'{path}: differs from the file that was packed; {again(store.folder)}')
            except RemoteError as error:
                faults.append(str(error))
            except OSError as error:
                faults.append(
                    f'{path}: {error.strerror}, but it was packed; put it back, or {again(store.folder)}'
                )
        return faults

    with ThreadPoolExecutor(workers) as pool:
        faults = [
            line for lines in progress(pool.map(check, range(len(store))), len(store)) for line in lines
        ]
    if source is not None:
        known = set(store.left_out)
        for name in _list(source)[0]:
            if name not in known and store.find(name) is None:
                faults.append(f'{_path(source, name)}: not in the store; {again(store.folder)}')
    return faults
