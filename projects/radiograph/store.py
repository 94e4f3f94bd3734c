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

import json
import mmap
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np

from .recipe import Recipe, StoreError

HEAD = 'xray_store.json'
FORMAT = 'xray-store-1'
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


RECORD = struct.Struct('<QHHIQIIII32sI')
TEXT = struct.Struct('<QHH')  # its first three fields


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
        head = read_head(self.folder)
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
                raise StoreError(f'{path}: expected {head[name]} bytes; {again(self.folder)}')
        self._index = map_file(self.folder / 'index.bin')
        self._names = map_file(self.folder / 'names.bin')
        self._shard = lru_cache(OPEN_SHARDS)(self._map_shard)

    def __reduce__(self):
        """Pickle as the path: each process maps the files itself."""
        return Store, (self.folder,)

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
            StoreError: it is not in the store.
        """
        index = self.find(name)
        if index is None:
            raise StoreError(f'{self.folder}: expected an image {name} in this store; {again(self.folder)}')
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
        pixels = pixels_of(record, self._shard(record.shard), self.recipe.dtype)
        if checksum_of(record, self._text(index), pixels) != record.checksum:
            raise StoreError(
                f'{self.folder / shard_name(record.shard)}: image {index} is damaged, its checksum differs; '
                f'{again(self.folder)}'
            )
        return pixels.view(self.recipe.dtype).reshape(record.height, record.width)

    def _text(self, index: int) -> tuple[bytes, bytes]:
        return text_of(TEXT.unpack_from(self._index, index * RECORD.size), self._names)

    def _map_shard(self, number: int) -> mmap.mmap:
        path = self.folder / shard_name(number)
        try:
            return map_file(path)
        except (OSError, ValueError) as error:
            raise StoreError(f'{path}: expected a shard ({error}); {again(self.folder)}') from None


def again(folder: Path) -> str:
    """Remedy for a store that is not what it should be: packing over it mends nothing that is there."""
    return f'remove {folder} and pack again'


def read_head(folder: Path) -> dict[str, Any]:
    """Return what the head of a store says, finished or not.

    Raises:
        StoreError: there is none, or it is damaged or of another format.
    """
    path = folder / HEAD
    try:
        head = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StoreError(f'{path}: not readable ({error}); {again(folder)}') from None
    if not isinstance(head, dict) or head.get('format') != FORMAT or not {'finished', 'recipe'} <= set(head):
        raise StoreError(f'{path}: expected a store of the format {FORMAT}; {again(folder)}')
    return head


def map_file(path: Path) -> mmap.mmap:
    """Map a file that is not empty for reading."""
    with path.open('rb') as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def shard_name(number: int) -> str:
    """Return the name of a shard's file."""
    return f'shard-{number:05d}.bin'


def text_of(fields: tuple, names: mmap.mmap | bytes) -> tuple[bytes, bytes]:
    """Name and part of a record, of which the first three fields are needed."""
    start, name_bytes, part_bytes = fields[:3]
    middle = start + name_bytes
    return names[start:middle], names[middle : middle + part_bytes]


def pixels_of(record: Record, shard: mmap.mmap | bytes, dtype: np.dtype) -> np.ndarray:
    """Bytes of a record's pixels; none where the shard ends early."""
    count = record.height * record.width * dtype.itemsize
    count = count if record.offset + count <= len(shard) else 0
    return np.frombuffer(shard, np.uint8, count, min(record.offset, len(shard)))


def checksum_of(record: Record, text: tuple[bytes, bytes], pixels: np.ndarray) -> int:
    """Return the CRC-32 of a record but its checksum, its text and its pixels."""
    head = RECORD.pack(*record[:-1], 0) + b''.join(text)
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
