"""Decoding every image of a conversion once, in bounded memory."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from projects.radiograph.image import MAX_FRAME_BYTES, ImagingError
from projects.radiograph.read import read
from projects.radiograph.safe_parse import is_printable

THREADS = 8
"""Threads that decode; together they take no more memory than the largest image alone."""
LARGE_FILE = 16 * 2**20
"""Files of at least this size are decoded one at a time, since some formats are read whole."""


class MemoryBudget:
    """A budget of bytes that threads share.

    A request for more than the whole budget waits until the whole budget is free, and then runs alone.
    """

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until `size` bytes are free, and take them."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= min(size, self._size))
            self._free -= size

    def give(self, size: int) -> None:
        """Return `size` bytes to the budget."""
        with self._changed:
            self._free += size
            self._changed.notify_all()


def measure(paths: dict[str, Path]) -> dict[str, tuple[int, int, int] | ImagingError]:
    """Decode images once, so that damaged images are found now and not in the first epoch.

    Args:
        paths: paths of the images, by name.

    Returns:
        Height and width in px and number of frames of each image, or its error.
    """
    budget = MemoryBudget(MAX_FRAME_BYTES)

    def look(name: str) -> tuple[int, int, int] | ImagingError:
        taken = 0

        def admit(size: int) -> None:
            nonlocal taken
            budget.take(size)
            taken = size

        if not is_printable(name):
            return ImagingError('expected a file name of one line in UTF-8; rename it')
        try:
            radiograph = read(paths[name], frame=0, admit=admit)
        except ImagingError as error:
            return error
        finally:
            budget.give(taken)
        return *radiograph.pixels.shape, radiograph.meta['frames']

    large = [name for name, path in paths.items() if path.stat().st_size >= LARGE_FILE]
    small = [name for name in paths if name not in set(large)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(zip(small, pool.map(look, small)))
    return found | {name: look(name) for name in large}
