"""An index for crops: it finds the larger radiograph of a crop without comparing all pairs.

A crop holds the exact pixels of its original, grain included, up to brightness and contrast. Points that
stand out from their surroundings are the same in both. The order of gray levels around a point gives a code
of 64 bits. Sorted tables find codes with an equal half. They also find equal whole codes, which are still
distinctive in an archive of one design, where each half occurs many times. Points with one common offset name
a candidate, which is then compared pixel by pixel. FAISS (MIT) would find the same codes; sorting takes n log
n without a further package, and the pixel comparison decides in either case.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

RADIUS = 12
"""Radius in px within which a point stands out: some 1,200 points in 1024 x 1024 px, 40 bytes each."""
MARGIN = 12
"""Distance in px between a point and the pixels of its code."""
_BITS = 64
_BANDS = 2
_COMMON = 64
"""A half or whole code of more points is ignored, since every radiograph of a design has it."""
_VOTES = 2  # points that must agree on an offset
_CANDIDATES = 3  # candidates that are compared pixel by pixel

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
    """Find the points of a radiograph that stand out, and encode their surroundings.

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
        """Return the images of which `crop` may be a crop, the likeliest first.

        Returns:
            (number of the image, x, y): position of the crop's upper left corner in this image, in px.
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
        """Yield points of the crop and of the index with a common half code, or a common whole code."""
        start = np.searchsorted(self.keys[table], wanted, 'left')
        count = np.searchsorted(self.keys[table], wanted, 'right') - start
        own = np.flatnonzero((count > 0) & (count <= _COMMON))
        if len(own):
            each = count[own]
            place = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
            yield np.repeat(own, each), self.orders[table][np.repeat(start[own], each) + place]


def _columns(codes: np.ndarray) -> list[np.ndarray]:
    """Return halves and whole of codes (n, 2) uint32: (n,) uint32 twice, and (n,) uint64."""
    halves = np.ascontiguousarray(codes)
    return [*halves.T, halves.view(np.uint64)[:, 0]]


def correlation_at(crop: np.ndarray, host: np.ndarray, x: int, y: int) -> float:
    """Return the correlation of a crop with a place in a larger image; 0 if it reaches out of the image."""
    part = host[y : y + crop.shape[0], x : x + crop.shape[1]]
    if part.shape != crop.shape:
        return 0.0
    a, b = (image.astype(np.float64).ravel() for image in (crop, part))
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else 0.0
