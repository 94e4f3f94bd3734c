"""Packed image store: radiographs decoded, windowed and shrunk once, in memory-mappable files.

A store is a folder, or its URL, that replaces an image folder: `data_prefix` names the store, and `LoadXray`
reads `<store>/<path of the image>` from it. This module imports no framework. Behind a URL the same files are
objects: the index is fetched once, the shards in blocks (`blocks.py`).

Layout, all little-endian:
    xray_store.json  the recipe of the pixels (`Recipe`), sizes, and whether packing has ended
    index.bin        one `Record` per image, in the order of the names' UTF-8 bytes
    names.bin        the text of the index: name of each image, then its part, without separators
    shard-NNNNN.bin  pixels, row-major, one image after the other

Pixels are appended first, names second, records last: an image counts once its record is written, so a killed
run resumes after the last whole record. Each record carries a checksum over itself, its text and its pixels,
which every read compares.

There is no pyramid, since it saves too little. A view takes a third of a millisecond. In a store of 512 px a
half-size level would save at most 0.03 ms of it (0.07 instead of 0.10 ms for 460 px to 224 px), in a store of
1024 px 0.15 ms. It would also change views by up to 9 gray levels from those resized from full size: measured
on generated radiographs, one thread of an Intel Xeon, fastest fifth of 150. A store shrunk to about twice the
view has the same effect on all views.
"""

import hashlib
import json
import mmap
import struct
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np

from .blocks import BLOCK, BlockCache
from .recipe import Recipe, StoreError
from .remote import RemoteError, exists, is_url, join, name_in, read_text

HEAD = 'xray_store.json'
FORMAT = 'xray-store-1'
OPEN_SHARDS = 256
"""Shards kept mapped per process: each takes a file descriptor, and the usual limit is 1,024."""


class Record(NamedTuple):
    """One line of the index."""

    text: int  # start of name and part in names.bin
    name_bytes: int
    part_bytes: int
    shard: int
    offset: int  # of the pixels in their shard
    height: int
    width: int
    source_height: int
    source_width: int
    source_sha256: bytes
    checksum: int  # CRC-32 of the fields above, name, part and pixels


RECORD = struct.Struct('<QHHIQIIII32sI')
TEXT = struct.Struct('<QHH')  # its first three fields
LINES = np.dtype(
    list(zip(Record._fields, ('<u8', '<u2', '<u2', '<u4', '<u8', '<u4', '<u4', '<u4', '<u4', 'V32', '<u4')))
)
"""A `Record` for NumPy."""


class Store:
    """A finished store, read through memory maps; memory does not grow with the number of images.

    Args:
        folder: the store.

    Raises:
        StoreError: no store, an unfinished store, another format, or files of the wrong length.
    """

    def __init__(self, folder: str | Path):
        """Open the index."""
        self.folder: Any = Path(folder)  # a URL in RemoteStore
        head = self._open(read_head(self.folder))
        self._index, self._names = (self._map_whole(name, head[name]) for name in ('index.bin', 'names.bin'))
        self._shard = lru_cache(OPEN_SHARDS)(self._map_shard)

    def _open(self, head: dict[str, Any]) -> dict[str, Any]:
        """Take recipe and left-out files from the head of a finished store."""
        if not head['finished']:
            raise StoreError(
                f'{self.folder}: packing was interrupted; run tools/pack_images.py again with the same '
                'arguments'
            )
        self.recipe = Recipe(**head['recipe'])
        self.left_out = head['left_out']
        return head

    def _map_whole(self, name: str, size: int) -> mmap.mmap | bytes:
        path = self.folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise StoreError(f'{path}: expected {size} bytes; {again(self.folder)}')
        return map_file(path)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the path: each process maps the files itself."""
        return open_store, (str(self.folder),)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._index) // RECORD.size

    def __getitem__(self, index: int) -> Record:
        """Return the line of the index for an image."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Record._make(RECORD.unpack_from(self._index, index * RECORD.size))

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
            StoreError: the image is not in the store.
        """
        index = self.find(name)
        if index is None:
            raise StoreError(f'{self.folder}: expected an image {name} in this store; {again(self.folder)}')
        return index

    def below(self, folder: str) -> range:
        """Return the indices of all images below a folder of the store; '' stands for the whole store."""
        # '0' is the character after '/'.
        return range(self._bound(f'{folder}/'), self._bound(f'{folder}0')) if folder else range(len(self))

    def _bound(self, name: str) -> int:
        """Return, by bisection, the index of the first image whose name does not sort before `name`."""
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
            StoreError: the shard or the index is missing or damaged.
        """
        record = self[index]
        pixels = self._pixels(record)
        if checksum_of(record, self._text(index), pixels) != record.checksum:
            raise StoreError(
                f'{join(str(self.folder), shard_name(record.shard))}: image {index} is damaged, its checksum '
                f'differs; {again(self.folder)}'
            )
        return pixels.view(self.recipe.dtype).reshape(record.height, record.width)

    def block_starts(self, indices: range | np.ndarray) -> np.ndarray:
        """Return the positions in `indices` at which a new block of a shard begins, the first included.

        Images between two such positions lie in one block: behind a URL one request reads them all.

        Args:
            indices: range of images, or (n,) indices, in the store's order; else blocks repeat.
        """
        rows = slice(indices.start, indices.stop) if isinstance(indices, range) else indices
        lines = np.frombuffer(self._index, LINES)[rows]
        block = (lines['shard'].astype(np.uint64) << np.uint64(40)) + lines['offset'] // np.uint64(BLOCK)
        return np.flatnonzero(np.r_[True, block[1:] != block[:-1]])

    def _pixels(self, record: Record) -> np.ndarray:
        return pixels_of(record, self._shard(record.shard), self.recipe.dtype)

    def _text(self, index: int) -> tuple[bytes, bytes]:
        return text_of(TEXT.unpack_from(self._index, index * RECORD.size), self._names)

    def _map_shard(self, number: int) -> mmap.mmap:
        path = self.folder / shard_name(number)
        try:
            return map_file(path)
        except (OSError, ValueError) as error:
            raise StoreError(f'{path}: expected a shard ({error}); {again(self.folder)}') from None


class RemoteStore(Store):
    """A finished store behind a URL; blocks of its shards are kept in a local folder (`blocks.py`).

    Args:
        folder: URL of the store.

    Raises:
        StoreError: see `Store`.
        RemoteError: the store cannot be read.
    """

    def __init__(self, folder: str):
        """Fetch the index, unless a local copy exists."""
        self.folder = folder.rstrip('/')
        head = self._open(read_head(self.folder))
        # A store that was packed again has another head, so blocks of the former store are not read.
        key = hashlib.sha256(f'{self.folder}\n{json.dumps(head)}'.encode()).hexdigest()[:32]
        self._blocks = BlockCache(self.folder, key)
        self._index, self._names = (self._map_whole(name, head[name]) for name in ('index.bin', 'names.bin'))

    def _map_whole(self, name: str, size: int) -> mmap.mmap | bytes:
        content = self._blocks.whole(name, size + 1)  # one more byte shows an object that is too long
        if len(content) != size:
            self._blocks.drop(name)
            raise StoreError(
                f'{join(self.folder, name)}: expected {size} bytes, found another size; {again(self.folder)}'
            )
        return content

    def _pixels(self, record: Record) -> np.ndarray:
        count = record.height * record.width * self.recipe.dtype.itemsize
        pixels = self._blocks.read(shard_name(record.shard), record.offset, count)
        return pixels if len(pixels) == count else pixels[:0]

    def read(self, index: int) -> np.ndarray:
        """Return an image, after comparing its checksum; see `Store.read`.

        The local blocks of a damaged image are fetched once more: perhaps only the local copy is damaged.
        """
        try:
            return super().read(index)
        except StoreError:
            record = self[index]
            count = record.height * record.width * self.recipe.dtype.itemsize
            self._blocks.forget(shard_name(record.shard), record.offset, count)
            return super().read(index)


def again(folder: str | Path) -> str:
    """Return the remedy for a damaged store: packing into it again does not repair images that it holds."""
    return f'remove {folder} and pack again'


def read_head(folder: str | Path) -> dict[str, Any]:
    """Return the head of a store, finished or not.

    Raises:
        StoreError: the head is missing, damaged or of another format.
        RemoteError: its URL cannot be read.
    """
    path = join(str(folder), HEAD)
    try:
        head = json.loads(read_text(path))
    except RemoteError:
        raise
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StoreError(f'{path}: not readable ({error}); {again(folder)}') from None
    if not isinstance(head, dict) or head.get('format') != FORMAT or not {'finished', 'recipe'} <= set(head):
        raise StoreError(f'{path}: expected a store of the format {FORMAT}; {again(folder)}')
    return head


def map_file(path: Path) -> mmap.mmap:
    """Map a file for reading; it must not be empty."""
    with path.open('rb') as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def shard_name(number: int) -> str:
    """Return the name of a shard's file."""
    return f'shard-{number:05d}.bin'


def text_of(fields: tuple[Any, ...], names: mmap.mmap | bytes) -> tuple[bytes, bytes]:
    """Return name and part of a record from its first three fields."""
    start, name_bytes, part_bytes = fields[:3]
    middle = start + name_bytes
    return names[start:middle], names[middle : middle + part_bytes]


def pixels_of(record: Record, shard: mmap.mmap | bytes, dtype: np.dtype) -> np.ndarray:
    """Return the bytes of a record's pixels; empty where the shard ends early."""
    count = record.height * record.width * dtype.itemsize
    count = count if record.offset + count <= len(shard) else 0
    return np.frombuffer(shard, np.uint8, count, min(record.offset, len(shard)))


def checksum_of(record: Record, text: tuple[bytes, bytes], pixels: np.ndarray) -> int:
    """Return the CRC-32 of a record without its checksum field, of its text and of its pixels."""
    head = RECORD.pack(*record[:-1], 0) + b''.join(text)
    # zlib-ng computes the CRC-32 of zlib with vector instructions: 262 kB in 10 us instead of 420.
    checksum: int = imagecodecs.zlibng_crc32(
        pixels,  # type: ignore[arg-type]  # any buffer
        imagecodecs.zlibng_crc32(head),
    )
    return checksum


@cache
def open_store(folder: str | Path) -> Store:
    """Open a store in a folder or behind a URL, once per process and folder."""
    if not is_url(folder):
        return Store(folder)
    store = RemoteStore(str(folder))
    _REMOTE[store.folder] = store
    return store


_REMOTE: dict[str, RemoteStore] = {}
"""Stores behind URLs that this process, or its parent before a fork, has opened."""


@lru_cache(maxsize=4096)
def _store_above(folder: str) -> tuple[Path, int] | None:
    """Return the nearest store at or above a folder, and the number of levels above."""
    places = enumerate((Path(folder), *Path(folder).parents))
    return next(((place, levels) for levels, place in places if (place / HEAD).is_file()), None)


def find_store(folder: str) -> tuple[Store, str] | None:
    """Open the store at or above a folder or a URL; a URL is queried level by level.

    Args:
        folder: folder of images, or a store.

    Returns:
        The store and the folder within it, '' for the whole store; None where there is no store.

    Raises:
        StoreError: see `Store`.
    """
    folder = folder.rstrip('/')
    if not is_url(folder):
        found = locate(f'{folder}/')
        return found and (found[0], found[1].rstrip('/'))
    protocol, _, rest = folder.partition('://')
    parts = rest.split('/')
    for depth in range(len(parts), 0, -1):
        place = f'{protocol}://{"/".join(parts[:depth])}'
        try:
            there = exists(join(place, HEAD))
        except RemoteError:  # some servers refuse to answer for missing objects; reading the images raises
            return None
        if there:
            return open_store(place), '/'.join(parts[depth:])
    return None


def locate(path: str) -> tuple[Store, str] | None:
    """Split the path of an image in a store.

    Args:
        path: `<store>/<name>`, or any other path, with forward slashes. A store behind a URL must have been
            opened before: this function sends no request.

    Returns:
        The store and the name of the image in it; None for a path outside of stores.
    """
    if is_url(path):
        return next(
            ((s, name_in(url, path)) for url, s in _REMOTE.items() if path.startswith(f'{url}/')), None
        )
    found = _store_above(path.rpartition('/')[0] or '.')
    if found is None:
        return None
    folder, levels = found
    return open_store(folder), '/'.join(path.rsplit('/', levels + 1)[1:])
