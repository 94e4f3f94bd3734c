"""Crops found by an index: which larger radiograph an image is cut out of, without comparing all pairs.

A crop holds the very pixels of its original, grain included, whatever its brightness and contrast. Points
that stand out from their surroundings are the same in both; the order of gray levels around each is its code
of 64 bits. Codes of which one half is equal are looked up in sorted tables, and whole ones, which still tell
where an archive of one design has each half many times; points that agree on one offset name a candidate,
which is then compared pixel by pixel. FAISS (MIT) would look up the same codes;
sorting does so in n log n without a further package, and what decides is the comparison after it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

RADIUS = 12
"""A point stands out from all within so many px: some 1,200 points in 1024 x 1024 px, 40 bytes each."""
MARGIN = 12
"""A code looks at pixels within so many px of its point."""
_BITS = 64
_BANDS = 2
_COMMON = 64
"""Points with an equal half, or whole, beyond which it tells nothing: every radiograph of a design has it."""
_VOTES = 2  # points that must agree on an offset
_CANDIDATES = 3  # that are compared pixel by pixel

_PAIRS = np.clip(
    np.random.default_rng(64).normal(0, MARGIN / 2.5, (_BITS, 4)).round(), -MARGIN, MARGIN
).astype(int)


@dataclass
class Points:
    """The points of an image.

    Attributes:
        places: (n, 2) int32, x and y in px.
        codes: (n, 2) uint32.
    """

    places: np.ndarray
    codes: np.ndarray


def find_points(pixels: np.ndarray, radius: int = RADIUS) -> Points:
    """Find the points of a radiograph that stand out, and code their surroundings.

    Args:
        pixels: (H, W) of any type.
        radius: See `RADIUS`.
    """
    image = cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), 1.5)
    response = np.abs(image - cv2.GaussianBlur(image, (0, 0), 3))
    peak = cv2.dilate(response, np.ones((2 * radius + 1,) * 2, np.uint8))
    standing = (response >= peak) & (response > 1e-6 * max(float(np.ptp(image)), 1e-9))
    inside = np.zeros_like(standing)
    inside[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    y, x = np.nonzero(standing & inside)
    first = image[y[:, None] + _PAIRS[:, 1], x[:, None] + _PAIRS[:, 0]]
    second = image[y[:, None] + _PAIRS[:, 3], x[:, None] + _PAIRS[:, 2]]
    codes = np.packbits(first < second, axis=1).view(np.uint32)
    return Points(np.stack([x, y], 1).astype(np.int32), codes.reshape(len(x), _BANDS))


class CropIndex:
    """The points of many images in sorted tables.

    Args:
        hosts: The points of each image.
    """

    def __init__(self, hosts: Iterable[Points]):
        hosts = list(hosts)
        self.owner = np.repeat(np.arange(len(hosts), dtype=np.int32), [len(h.places) for h in hosts])
        self.places = np.concatenate([np.empty((0, 2), np.int32), *(h.places for h in hosts)])
        codes = np.concatenate([np.empty((0, _BANDS), np.uint32), *(h.codes for h in hosts)])
        columns = _columns(codes)
        self.orders = [np.argsort(column, kind='stable').astype(np.int32) for column in columns]
        self.keys = [column[order] for column, order in zip(columns, self.orders, strict=True)]

    def candidates(self, crop: Points) -> list[tuple[int, int, int]]:
        """Return images that an image may be cut out of, the likeliest first.

        Returns:
            (number of the image, x, y): where the upper left corner of the crop lies in it, in px.
        """
        found = [row for k, wanted in enumerate(_columns(crop.codes)) for row in self._equal(k, wanted)]
        if not found:
            return []
        own, other = (np.concatenate(part) for part in zip(*found, strict=True))
        offset = self.places[other] - crop.places[own]
        rows = np.unique(np.stack([self.owner[other], *offset.T, own], 1), axis=0)  # a point votes once
        rows, votes = np.unique(rows[:, :3], axis=0, return_counts=True)
        likely = np.flatnonzero((votes >= _VOTES) & (rows[:, 1:] >= 0).all(1))
        likely = likely[np.lexsort((likely, -votes[likely]))][:_CANDIDATES]
        return [tuple(map(int, rows[k])) for k in likely]

    def _equal(self, table: int, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield points of the crop and of the index that have a half of their codes, or all, in common."""
        start = np.searchsorted(self.keys[table], wanted, 'left')
        count = np.searchsorted(self.keys[table], wanted, 'right') - start
        own = np.flatnonzero((count > 0) & (count <= _COMMON))
        if len(own):
            each = count[own]
            place = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
            yield np.repeat(own, each), self.orders[table][np.repeat(start[own], each) + place]


def _columns(codes: np.ndarray) -> list[np.ndarray]:
    """Halves and whole of codes (n, 2) uint32: (n,) uint32 twice, and (n,) uint64."""
    halves = np.ascontiguousarray(codes)
    return [*halves.T, halves.view(np.uint64)[:, 0]]


def correlation_at(crop: np.ndarray, host: np.ndarray, x: int, y: int) -> float:
    """Return how a crop correlates with a place of a larger image; 0 where it reaches out of it."""
    part = host[y : y + crop.shape[0], x : x + crop.shape[1]]
    if part.shape != crop.shape:
        return 0.0
    a, b = (image.astype(np.float64).ravel() for image in (crop, part))
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else 0.0
