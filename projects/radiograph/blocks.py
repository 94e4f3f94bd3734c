"""Objects behind a URL read in blocks, which a local folder of limited size keeps for all processes.

One ranged request fetches a block, and a memory map reads it. Where several processes want a block, one
fetches it and the others wait. Beyond the limit the least recently used blocks are removed; a process that
still maps a removed block can keep reading it.

    MMXRAY_CACHE     the folder (~/.cache/mmxray)
    MMXRAY_CACHE_GB  its limit in GB (20)
"""

import fcntl
import mmap
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from .files import write_whole
from .image import ImagingError
from .remote import join, read_range

BLOCK = 16 * 2**20
"""Bytes of a block: 64 images of 512 x 512 px at 8 bits. A request of 50 ms costs under 1 ms per image."""
_MAPPED = 8  # blocks kept mapped per process, whatever the limit
_LOCKS = 64  # lock files that the blocks share


def cache_folder() -> Path:
    """Return the folder of the local copies of objects behind URLs."""
    return Path(os.environ.get('MMXRAY_CACHE') or '~/.cache/mmxray').expanduser()


def cache_limit() -> float:
    """Return the limit of the folder in bytes.

    Raises:
        ImagingError: `MMXRAY_CACHE_GB` is not a positive number.
    """
    stated = os.environ.get('MMXRAY_CACHE_GB') or '20'
    try:
        limit = float(stated) * 1e9
    except ValueError:
        limit = 0
    if not limit > 0:
        raise ImagingError(f'MMXRAY_CACHE_GB={stated}: expected a number of GB above 0; correct it')
    return limit


class BlockCache:
    """Blocks of the objects below a URL.

    Args:
        url: the folder of the objects.
        key: identifies this content; kept blocks of another key are never read.
    """

    def __init__(self, url: str, key: str):
        self.url, self.folder = url, cache_folder() / 'blocks' / key
        self._mapped = lru_cache(_MAPPED)(self._map)

    def read(self, name: str, start: int, count: int) -> np.ndarray:
        """Return bytes of an object, shorter where it ends early.

        Returns:
            (count,) uint8, read-only; a view of the map where the bytes lie in one block.

        Raises:
            ImagingError: see `remote.read_range`; or the folder is not writable.
        """
        end, parts = start + count, []
        for number in range(start // BLOCK, -(-end // BLOCK)):
            block, first = self._mapped(name, number), number * BLOCK
            length = max(min(end - first, len(block)) - max(start - first, 0), 0)
            parts.append(np.frombuffer(block, np.uint8, length, min(max(start - first, 0), len(block))))
        return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, np.uint8)])

    def forget(self, name: str, start: int, count: int) -> None:
        """Remove the kept blocks of a part of an object: perhaps only the local copy is damaged."""
        for number in range(start // BLOCK, -(-(start + count) // BLOCK)):
            self._path(name, number).unlink(missing_ok=True)
        self._mapped.cache_clear()

    def whole(self, name: str, size: int) -> mmap.mmap | bytes:
        """Map a whole object of a known size, fetched at once."""
        return self._keep(self.folder / name, lambda: read_range(join(self.url, name), 0, size))

    def drop(self, name: str) -> None:
        """Remove a whole object that is not the expected one."""
        (self.folder / name).unlink(missing_ok=True)

    def _path(self, name: str, number: int) -> Path:
        return self.folder / f'{name}.{number:06d}'

    def _map(self, name: str, number: int) -> mmap.mmap | bytes:
        url, start = join(self.url, name), number * BLOCK
        return self._keep(self._path(name, number), lambda: read_range(url, start, start + BLOCK))

    def _keep(self, path: Path, fetch: Callable[[], bytes]) -> mmap.mmap | bytes:
        """Map a kept file, or fetch and keep it."""
        with suppress(FileNotFoundError):
            return _map_used(path)
        try:
            with _waiting(path):
                with suppress(FileNotFoundError):  # another process has fetched the file meanwhile
                    return _map_used(path)
                data = fetch()
                if not data:
                    return data
                _make_room(len(data))
                write_whole(path, data)
                return _map_used(path)
        except OSError as error:
            if isinstance(error, ImagingError):  # a RemoteError is an OSError too
                raise
            raise ImagingError(
                f'{path}: expected room for a local copy ({error.strerror}); point MMXRAY_CACHE at '
                'another disk, or lower MMXRAY_CACHE_GB'
            ) from None


def _map_used(path: Path) -> mmap.mmap:
    with path.open('rb') as file:
        os.utime(file.fileno())
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@contextmanager
def _waiting(path: Path) -> Iterator[None]:
    """Let one process of this machine at a time fetch a file."""
    place = cache_folder() / 'locks'
    place.mkdir(parents=True, exist_ok=True)
    with (place / str(zlib.crc32(str(path).encode()) % _LOCKS)).open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_room(size: int) -> None:
    """Remove the least recently used files until a new file fits; drafts of killed processes go first."""
    files = []
    for path in (cache_folder() / 'blocks').glob('*/*'):
        with suppress(FileNotFoundError):
            state = path.stat()
            files.append((state.st_mtime_ns * (path.suffix != '.part'), state.st_size, path))
    total, limit = sum(file[1] for file in files) + size, cache_limit()
    for _, own, path in sorted(files):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= own
