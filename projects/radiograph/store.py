"""Packed image store: radiographs decoded, windowed and shrunk once, in memory-mappable files.

A store is a folder that stands in for an image folder: `data_prefix` names it, and `LoadXray` takes
`<store>/<path of the image>` from it. No framework is imported here.

Layout, all little-endian:
    xray_store.json  what the pixels are (`Recipe`), how many, and whether packing has ended
    index.bin        one `Record` per image, in the order of the names' UTF-8 bytes
    names.bin        the text of the index: name of each image, then its part, without separators
    shard-NNNNN.bin  pixels, row-major, one image after the other

Records, names and pixels are appended in that order of trust: an image counts once its record is written, so
a killed run is taken up after the last whole record. Each record carries a checksum over itself, its text and
its pixels, compared at every read.

There is no pyramid, since it does not pay. In a store of 512 px a half-size level would save at most 0.03 ms
(0.07 instead of 0.10 ms for 460 px to 224 px) of the third of a millisecond that a view takes, in a store of
1024 px 0.15 ms, and change views by up to 9 gray levels from those resized from full size: measured on
generated radiographs, one thread of an Intel Xeon, fastest fifth of 150. A store shrunk to about twice the
view has the same effect on all of them.
"""

import fcntl
import hashlib
import json
import mmap
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import imagecodecs
import numpy as np
from PIL import Image

from .listing import list_radiographs
from .parts import PartError, part_of
from .read import SUFFIXES, ImagingError, Radiograph, apply_window, check_window, read

HEAD = 'xray_store.json'


FORMAT = 'xray-store-1'


SHARD_BYTES = 2**30


"""A shard is closed by the first image that ends beyond this."""


OPEN_SHARDS = 256


"""Shards kept mapped per process: each holds a file descriptor, of which 1,024 are usual."""


class Record(NamedTuple):
    """One line of the index."""

    text: int  # where name and part begin in names.bin
    name_bytes: int
    part_bytes: int
    shard: int
    offset: int  # of the pixels in their shard
    height: int
    width: int
    source_height: int
    source_width: int
    source_sha256: bytes
    checksum: int  # CRC-32 of all fields before, name, part and pixels


_RECORD = struct.Struct('<QHHIQIIII32sI')


_TEXT = struct.Struct('<QHH')  # its first three fields


class StoreError(ImagingError):
    """A store cannot be written or read: one line with the file, what was expected, and the remedy."""


@dataclass(frozen=True)
class Recipe:
    """What happened to the pixels of a store between file and array.

    Attributes:
        size: px of the shorter side of larger images after shrinking; 0 keeps the native size.
        bits: 8 (uint8, white at 255) or 16 (uint16, white at 65535).
        window: see `imaging.apply_window`.
    """

    size: int = 512
    bits: int = 8
    window: dict = field(default_factory=lambda: dict(type='full'))

    def __post_init__(self):
        """Check the values.

        Raises:
            ImagingError: One of them is out of range.
        """
        check_window(self.window)
        # Plain, so that windows from a config, a command line and a store compare equal.
        window = {key: value for key, value in self.window.items() if (key, value) != ('log', False)}
        object.__setattr__(self, 'window', window)
        if self.bits not in (8, 16) or self.size < 0:
            raise StoreError(
                f'size {self.size}, bits {self.bits}: expected a size of at least 0 and 8 or 16 bits'
            )

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)


def prepare(radiograph: Radiograph, window: dict, dtype: str, size: int = 0) -> np.ndarray:
    """Window a radiograph and shrink it, which is what a store holds and what `LoadXray` does without one.

    Args:
        radiograph: what `imaging.read` returned.
        window: see `imaging.apply_window`.
        dtype: 'uint8' (white at 255), 'uint16' (white at 65535) or 'float32' (white at 255).
        size: px of the shorter side afterwards, antialiased; smaller images stay, 0 keeps all.

    Returns:
        (H, W) of `dtype`, rounded once.

    Raises:
        ImagingError: a wrong window or type, or a window that this file cannot have.
    """
    if dtype not in ('uint8', 'uint16', 'float32'):
        raise ImagingError(f'dtype {dtype!r}: expected uint8, uint16 or float32')
    height, width = radiograph.pixels.shape
    shrink = 0 < size < min(height, width)
    if dtype != 'uint16' and not shrink:
        return apply_window(radiograph, window, dtype)
    image = apply_window(radiograph, window, 'float32')
    if shrink:
        scale = size / min(height, width)
        # Pillow's bilinear filter widens with the scale: that is the antialiasing.
        image = np.asarray(
            Image.fromarray(image).resize((round(width * scale), round(height * scale)), Image.BILINEAR)
        )
    if dtype == 'float32':
        return image
    # 65535 / 257 = 255
    return np.round(image if dtype == 'uint8' else image * 257).astype(dtype)


# ---------------------------------------------------------------------------------------------- reading


class Store:
    """A finished store, read through memory maps; memory does not grow with the number of images.

    Args:
        folder: the store.

    Raises:
        StoreError: no store, an unfinished or another format's one, or files of the wrong length.
    """

    def __init__(self, folder: str | Path):
        """Open the index."""
        self.folder = Path(folder)
        head = _read_head(self.folder)
        if not head['finished']:
            raise StoreError(
                f'{self.folder}: packing was interrupted; run tools/pack_images.py again with the same '
                'arguments'
            )
        self.recipe = Recipe(**head['recipe'])
        self.left_out = head['left_out']
        for name in ('index.bin', 'names.bin'):
            path = self.folder / name
            if not path.is_file() or path.stat().st_size != head[name]:
                raise StoreError(f'{path}: expected {head[name]} bytes; {_again(self.folder)}')
        self._index = _map(self.folder / 'index.bin')
        self._names = _map(self.folder / 'names.bin')
        self._shard = lru_cache(OPEN_SHARDS)(self._map_shard)

    def __reduce__(self):
        """Pickle as the path: each process maps the files itself."""
        return Store, (self.folder,)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._index) // _RECORD.size

    def __getitem__(self, index: int) -> Record:
        """Return the line of the index for an image."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Record._make(_RECORD.unpack_from(self._index, index * _RECORD.size))

    def name(self, index: int) -> str:
        """Path of an image relative to its source folder, with forward slashes."""
        return self._text(index)[0].decode()

    def part(self, index: int) -> str:
        """Physical part of an image."""
        return self._text(index)[1].decode()

    def find(self, name: str) -> int | None:
        """Return the index of an image, or None."""
        index = self._bound(name)
        return index if index < len(self) and self._text(index)[0] == name.encode() else None

    def position(self, name: str) -> int:
        """Return the index of an image.

        Raises:
            StoreError: it is not in the store.
        """
        index = self.find(name)
        if index is None:
            raise StoreError(f'{self.folder}: expected an image {name} in this store; {_again(self.folder)}')
        return index

    def below(self, folder: str) -> range:
        """Return the indices of all images below a folder of the store; '' is the whole store."""
        # '0' is the character after '/'.
        return range(self._bound(f'{folder}/'), self._bound(f'{folder}0')) if folder else range(len(self))

    def _bound(self, name: str) -> int:
        """Index of the first image whose name is not before another, by bisection."""
        key, low, high = name.encode(), 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._text(middle)[0] < key:
                low = middle + 1
            else:
                high = middle
        return low

    def read(self, index: int) -> np.ndarray:
        """Return an image, after comparing its checksum.

        Returns:
            (H, W) of `recipe.dtype`, read-only, mapped from the shard.

        Raises:
            StoreError: the shard is missing or damaged, or the index is.
        """
        record = self[index]
        pixels = _pixels(record, self._shard(record.shard), self.recipe.dtype)
        if _checksum(record, self._text(index), pixels) != record.checksum:
            raise StoreError(
                f'{self.folder / _shard_name(record.shard)}: image {index} is damaged, its checksum differs; '
                f'{_again(self.folder)}'
            )
        return pixels.view(self.recipe.dtype).reshape(record.height, record.width)

    def _text(self, index: int) -> tuple[bytes, bytes]:
        return _text(_TEXT.unpack_from(self._index, index * _RECORD.size), self._names)

    def _map_shard(self, number: int) -> mmap.mmap:
        path = self.folder / _shard_name(number)
        try:
            return _map(path)
        except (OSError, ValueError) as error:
            raise StoreError(f'{path}: expected a shard ({error}); {_again(self.folder)}') from None


def _again(folder: Path) -> str:
    """Remedy for a store that is not what it should be: packing over it mends nothing that is there."""
    return f'remove {folder} and pack again'


def _read_head(folder: Path) -> dict:
    path = folder / HEAD
    try:
        head = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StoreError(f'{path}: not readable ({error}); {_again(folder)}') from None
    if not isinstance(head, dict) or head.get('format') != FORMAT or not {'finished', 'recipe'} <= set(head):
        raise StoreError(f'{path}: expected a store of the format {FORMAT}; {_again(folder)}')
    return head


def _map(path: Path) -> mmap.mmap:
    with path.open('rb') as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _shard_name(number: int) -> str:
    return f'shard-{number:05d}.bin'


def _text(fields: tuple, names: mmap.mmap | bytes) -> tuple[bytes, bytes]:
    """Name and part of a record, of which the first three fields are needed."""
    start, name_bytes, part_bytes = fields[:3]
    middle = start + name_bytes
    return names[start:middle], names[middle : middle + part_bytes]


def _pixels(record: Record, shard: mmap.mmap | bytes, dtype: np.dtype) -> np.ndarray:
    """Bytes of a record's pixels; none where the shard ends early."""
    count = record.height * record.width * dtype.itemsize
    count = count if record.offset + count <= len(shard) else 0
    return np.frombuffer(shard, np.uint8, count, min(record.offset, len(shard)))


def _checksum(record: Record, text: tuple[bytes, bytes], pixels: np.ndarray) -> int:
    head = _RECORD.pack(*record[:-1], 0) + b''.join(text)
    # zlib's CRC-32 by zlib-ng's vector instructions: 262 kB in 10 us instead of 420.
    return imagecodecs.zlibng_crc32(pixels, imagecodecs.zlibng_crc32(head))


open_store = lru_cache(maxsize=None)(Store)


"""`Store`, once per process and folder."""


@lru_cache(maxsize=4096)
def _store_above(folder: str) -> tuple[Path, int] | None:
    """Return the nearest store at or above a folder, and how many levels above."""
    places = enumerate((Path(folder), *Path(folder).parents))
    return next(((place, levels) for levels, place in places if (place / HEAD).is_file()), None)


def locate(path: str) -> tuple[Store, str] | None:
    """Split the path of an image in a store.

    Args:
        path: `<store>/<name>`, or any other path, with forward slashes.

    Returns:
        The store and the name of the image there; None for a path outside of stores.
    """
    found = _store_above(path.rpartition('/')[0] or '.')
    if found is None:
        return None
    folder, levels = found
    return open_store(folder), '/'.join(path.rsplit('/', levels + 1)[1:])


def pack(
    source: str | Path,
    out: str | Path,
    recipe: Recipe,
    group: str | None = None,
    workers: int = 1,
    progress: Callable[[Iterator, int], Iterator] = lambda results, total: results,
) -> tuple[Store, dict[str, str]]:
    """Pack a folder of radiographs, or go on with a run that was killed.

    Args:
        source: image folder.
        out: the store: a new folder, or one that the same arguments began.
        recipe: what to do to the pixels.
        group: regular expression searched in each name; its first group, or else the match, is the part.
            None: no part is known, and '' is written.
        workers: processes that decode.
        progress: wraps the iterator over the images; also gets their number.

    Returns:
        The store, and the reason for each file that is no readable radiograph and was left out.

    Raises:
        StoreError: nothing to pack, a name without a part, a folder that other arguments began or another
            process is writing, images that came, went or changed in between, or a full disk.
    """
    source, out = Path(source), Path(out)
    names, _ = list_radiographs(source)
    if not names:
        raise StoreError(f'{source}: expected a folder with files of {", ".join(SUFFIXES)}; correct SRC')
    parts = {name: _part(source, name, group) for name in names}
    head = dict(format=FORMAT, source=str(source.resolve()), group=group, recipe=asdict(recipe))
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
            late, left_out = _pack_rest(source, out, recipe, parts, same, workers, progress)
        if late:
            raise StoreError(f'{out}: packing had passed {source / late[0]} when it came; {_again(out)}')
        if not written['finished'] or not same:
            sizes = {name: (out / name).stat().st_size for name in ('index.bin', 'names.bin')}
            _write_head(out, head | dict(finished=True, files=files, left_out=left_out) | sizes)
    return Store(out), left_out


def _fingerprint(source: Path, names: list[str]) -> str:
    """Return the SHA-256 of names, sizes and times of files: equal, and none has come, gone or changed."""
    hashed = hashlib.sha256()
    for name in names:
        try:
            stat = (source / name).stat()
        except OSError:  # gone since it was listed: decoding says so
            continue
        hashed.update(f'{name} {stat.st_size} {stat.st_mtime_ns}\n'.encode())
    return hashed.hexdigest()


def _compare(source: Path, out: Path, parts: dict, packed: dict[str, bytes], same: bool) -> None:
    """Make sure that images in a store are still what the source folder holds.

    Args:
        source: image folder.
        out: the store.
        parts: by name of each image in the source folder.
        packed: SHA-256 of the source file, by name of each image in the store.
        same: whether the source files have the sizes and times of before; else their contents are compared.

    Raises:
        StoreError: an image is gone or another.
    """
    for name, sha256 in packed.items():
        if name not in parts:
            raise StoreError(
                f'{source / name}: no such file, but it was packed; put it back, or {_again(out)}'
            )
        try:
            changed = not same and _sha256(source / name) != sha256
        except OSError as error:
            raise StoreError(f'{source / name}: {error.strerror}; make the file readable') from None
        if changed:
            raise StoreError(f'{source / name}: differs from the file that was packed; {_again(out)}')


def _sha256(path: Path) -> bytes:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').digest()


def _pack_rest(source, out, recipe, parts, same, workers, progress) -> tuple[list[str], dict[str, str]]:
    """Append what is not in the store yet.

    Returns:
        The names that came too late for their place in the order, and why each unreadable file is that.
    """
    late, left_out = [], {}
    with _Writer(out, recipe) as writer:
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


def _part(source: Path, name: str, group: str | None) -> str:
    """Return the physical part that an image shows, empty where none is known."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise StoreError(f'{source}: file name {name!r} is not UTF-8; rename the file') from None
    try:
        return part_of(name, group) or ''
    except PartError as error:
        raise StoreError(f'{source / name}: {error}') from None


@contextmanager
def _lock(out: Path):
    """Create a folder and keep other packing processes out of it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f'{out}: expected a folder to write to ({error.strerror}); correct OUT') from None
    with locked(out, StoreError(f'{out}: another process is packing into it; wait for it')):
        yield


@contextmanager
def locked(folder: Path, busy: Exception):
    """Keep other processes out of a folder that is written to; raises `busy` where one is in it."""
    with (folder / 'lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield


def _begin(out: Path, head: dict, files: str) -> dict:
    """Return what is known of a store, after starting it if it is new."""
    if not (out / HEAD).exists():
        strangers = sorted(path.name for path in out.iterdir() if path.name != 'lock')
        if strangers:
            raise StoreError(f'{out}: expected a new folder, found {strangers[0]}; give another OUT')
        _write_head(out, head | dict(finished=False, files=files))
    written = _read_head(out)
    for key, value in head.items():
        if written.get(key) != value:
            raise StoreError(
                f'{out}: begun with {key} {written.get(key)}, now {value}; give the same arguments or '
                'another OUT'
            )
    return written


def _write_head(out: Path, head: dict) -> None:
    """Write the head so that it is there whole or not at all."""
    new = out / f'{HEAD}.new'
    with new.open('w', encoding='utf-8') as file:
        file.write(json.dumps(head, indent=1) + '\n')
        file.flush()
        os.fsync(file.fileno())
    new.replace(out / HEAD)


class _Writer:
    """Appends images to an unfinished store.

    Args:
        out: the store.
        recipe: what its pixels are.
    """

    def __init__(self, out: Path, recipe: Recipe):
        """Keep what a killed run left whole, cut off the rest."""
        self.out, self.dtype = out, recipe.dtype
        for name in ('index.bin', 'names.bin'):
            (out / name).touch()
        index, names = (out / 'index.bin').read_bytes(), (out / 'names.bin').read_bytes()
        whole = len(index) // _RECORD.size * _RECORD.size
        records = self._whole([Record._make(row) for row in _RECORD.iter_unpack(index[:whole])], names)
        # SHA-256 of the source files by name, in the order written.
        self.done = {_text(record, names)[0].decode(): record.source_sha256 for record in records}
        last = records[-1] if records else Record(0, 0, 0, 0, 0, 0, 0, 0, 0, b'', 0)
        self.number = last.shard
        self.index = self._open('index.bin', len(records) * _RECORD.size)
        self.names = self._open('names.bin', last.text + last.name_bytes + last.part_bytes)
        end = last.offset + last.height * last.width * self.dtype.itemsize
        self.shard = self._open(_shard_name(self.number), end)
        for path in out.glob('shard-*.bin'):
            if path.name > _shard_name(self.number):
                path.unlink()

    def _whole(self, records: list[Record], names: bytes) -> list[Record]:
        """Return the records before the first torn one. Shards before the last were synced when closed."""
        # A torn record may name any shard: what is the last one shows when no torn record follows.
        torn = 0
        while records and torn is not None:
            number = records[-1].shard
            path = self.out / _shard_name(number)
            shard = _map(path) if path.is_file() and path.stat().st_size else b''
            torn = next(
                (i for i, r in enumerate(records) if r.shard == number and self._torn(r, names, shard)), None
            )
            records = records[:torn]
        return records

    def _torn(self, record: Record, names: bytes, shard: mmap.mmap | bytes) -> bool:
        pixels = _pixels(record, shard, self.dtype)
        return _checksum(record, _text(record, names), pixels) != record.checksum

    def _open(self, name: str, size: int):
        file = (self.out / name).open('ab')
        file.truncate(size)
        file.seek(size)  # else tell() goes on at the old end
        return file

    def append(self, name: str, part: str, sha256: bytes, source_shape: tuple, pixels: np.ndarray) -> None:
        """Add an image behind the others; its name must come behind theirs.

        Args:
            name: path relative to the source folder.
            part: physical part.
            sha256: of the source file, 32 bytes.
            source_shape: height and width of the source image, in px.
            pixels: (H, W) of the store's type.
        """
        if self.shard.tell() >= SHARD_BYTES:
            self._sync()
            self.shard.close()
            self.number += 1
            self.shard = self._open(_shard_name(self.number), 0)
        text = name.encode(), part.encode()
        pixels = np.ascontiguousarray(pixels)
        place = self.names.tell(), *map(len, text), self.number, self.shard.tell()
        record = Record(*place, *pixels.shape, *source_shape, sha256, 0)
        record = record._replace(checksum=_checksum(record, text, pixels))
        # In the order of trust: an image counts once its record is there.
        writes = (
            (self.shard, pixels.data),
            (self.names, b''.join(text)),
            (self.index, _RECORD.pack(*record)),
        )
        try:
            for file, data in writes:
                file.write(data)
                file.flush()
        except OSError as error:
            raise StoreError(
                f'{self.out}: {error.strerror}; make room and run again, it goes on here'
            ) from None
        self.done[name] = sha256

    def _sync(self) -> None:
        for file in (self.shard, self.names, self.index):
            os.fsync(file.fileno())

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if kind is None:
            self._sync()
        for file in (self.shard, self.names, self.index):
            file.close()


def _decode_all(names: list[str], source: Path, recipe: Recipe, workers: int) -> Iterator[tuple]:
    """Yield (name, what `_decode` returned) in order, with a bounded number of images in memory."""
    if workers == 1:
        yield from ((name, _decode(name, source, recipe)) for name in names)
        return
    with ProcessPoolExecutor(workers, get_context('spawn'), cv2.setNumThreads, (1,)) as pool:
        waiting = deque()
        for name in names:
            waiting.append((name, pool.submit(_decode, name, source, recipe)))
            if len(waiting) > 4 * workers:
                name, future = waiting.popleft()
                yield name, _result(future, name)
        for name, future in waiting:
            yield name, _result(future, name)


def _result(future: Future, name: str):
    try:
        return future.result()
    except BrokenProcessPool:
        raise StoreError(
            f'{name}: a worker died at or near this image, perhaps for want of memory; run again with fewer '
            'workers, it goes on where it stopped'
        ) from None


def _decode(name: str, source: Path, recipe: Recipe) -> tuple[bytes, tuple, np.ndarray] | str:
    """Return SHA-256, source shape and pixels of an image, or why it cannot be read."""
    try:
        data = (source / name).read_bytes()
        radiograph = read(data, name=str(source / name))
        pixels = prepare(radiograph, recipe.window, recipe.dtype.name, recipe.size)
    except ImagingError as error:
        return str(error)
    except OSError as error:
        return f'{source / name}: {error.strerror}'
    return hashlib.sha256(data).digest(), radiograph.pixels.shape, pixels


def verify(
    store: Store,
    source: str | Path | None = None,
    workers: int = 1,
    progress: Callable[[Iterator, int], Iterator] = lambda results, total: results,
) -> list[str]:
    """Compare every image of a store with its checksum, and the source files with theirs.

    Args:
        store: what to check.
        source: image folder; None leaves the sources out.
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
            path = Path(source, name)
            try:
                if _sha256(path) != store[index].source_sha256:
                    faults.append(f'{path}: differs from the file that was packed; {_again(store.folder)}')
            except OSError as error:
                faults.append(
                    f'{path}: {error.strerror}, but it was packed; put it back, or {_again(store.folder)}'
                )
        return faults

    with ThreadPoolExecutor(workers) as pool:
        faults = [
            line for lines in progress(pool.map(check, range(len(store))), len(store)) for line in lines
        ]
    if source is not None:
        known = set(store.left_out)
        for name in list_radiographs(source)[0]:
            if name not in known and store.find(name) is None:
                faults.append(f'{Path(source, name)}: not in the store; {_again(store.folder)}')
    return faults
