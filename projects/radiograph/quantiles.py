"""Quantiles of the gray levels of any number of radiographs, in one pass and bounded memory.

Values are counted by the upper 28 bits of their 32-bit floating-point number: sign, exponent and 19 bits of
the mantissa. Integers up to 20 bits keep all their bits, so their quantiles are exact. Other values have a
relative error of a millionth, a small part of a gray level of a window. Bins between two bounds would need
both bounds before the pass, and a dead pixel would widen them; these counts have neither fault.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_PENDING = 2**22  # values that wait before they are counted, 16 MB
_DROPPED = 4  # bits of the mantissa
_STEPS = 0.7548776662466927, 0.5698402909980532  # 1/g and 1/g**2, of g**3 = g + 1


def sample_pixels(pixels: np.ndarray, count: int) -> np.ndarray:
    """Return some pixels of an image, spread evenly over its area.

    Every k-th pixel is no even sample: where the width is a multiple of k, these pixels lie in a few columns,
    and in a large image in the first column alone. The places here follow the R2 sequence (Roberts 2018). Any
    number of its points is spread evenly in rows and in columns.

    Args:
        pixels: (H, W).
        count: pixels wanted; a smaller image returns all of its pixels.

    Returns:
        (min(count, H * W),) of the same type.
    """
    if pixels.size <= count:
        return pixels.ravel()
    rows, columns = _places(count)
    height, width = pixels.shape
    chosen: np.ndarray = pixels[(rows * height).astype(np.intp), (columns * width).astype(np.intp)]
    return chosen


@lru_cache(8)
def _places(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (count,) rows and columns of the R2 sequence, in 0..1."""
    rows, columns = ((0.5 + step * np.arange(1, count + 1)) % 1 for step in _STEPS)
    return rows, columns


class GraySketch:
    """Counts of gray levels: at most 6 MB for the range from a value to its double, for any number of pixels.

    `merge` adds sketches of parts of a data set to the sketch of the whole.
    """

    def __init__(self) -> None:
        self._values = np.empty(0, np.float32)  # ascending
        self._counts = np.empty(0, np.int64)
        self._pending: list[np.ndarray] = []
        self._waiting = 0

    def add(self, values: np.ndarray) -> None:
        """Count gray levels.

        Args:
            values: of any shape and type, finite.
        """
        flat = np.array(values, np.float32).ravel()  # a copy: the caller's array may change
        self._pending.append(flat)
        self._waiting += flat.size
        if self._waiting >= _PENDING:
            self._count()

    def merge(self, other: 'GraySketch') -> None:
        """Add the counts of another sketch."""
        other._count()
        self._count()
        self._join(other._values, other._counts)

    def __len__(self) -> int:
        """Return how many values were added."""
        self._count()
        return int(self._counts.sum())

    def percentiles(self, shares: Sequence[float]) -> list[float]:
        """Return percentiles of the counted values, as `numpy.percentile` defines them.

        Args:
            shares: 0 to 100 each.

        Raises:
            ValueError: nothing was added.
        """
        total = len(self)
        if not total:
            raise ValueError('percentiles of no values')
        reached = np.cumsum(self._counts)
        found = []
        for share in shares:
            place = share / 100 * (total - 1)
            below, above = (
                float(self._values[np.searchsorted(reached, int(rank), side='right')])
                for rank in (np.floor(place), np.ceil(place))
            )
            found.append(below + (above - below) * (place - np.floor(place)))
        return found

    def _count(self) -> None:
        """Count the pending values."""
        if not self._waiting:
            return
        flat = np.concatenate(self._pending)
        self._pending, self._waiting = [], 0
        bits = flat.view(np.uint32)
        # Round to 19 bits of mantissa; a carry out of the mantissa rightly raises the exponent.
        rounded = (bits + np.uint32(1 << _DROPPED - 1)) >> np.uint32(_DROPPED) << np.uint32(_DROPPED)
        self._join(*np.unique(rounded.view(np.float32), return_counts=True))

    def _join(self, values: np.ndarray, counts: np.ndarray) -> None:
        both = np.concatenate([self._values, values])
        self._values, place = np.unique(both, return_inverse=True)
        joined = np.zeros(len(self._values), np.int64)
        np.add.at(joined, place, np.concatenate([self._counts, counts]))
        self._counts = joined
