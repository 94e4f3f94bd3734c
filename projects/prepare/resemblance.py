"""Search for near duplicates among many images, without comparing all with all.

Two small copies of mean 0 and norm 1 with correlation r have the distance sqrt(2 - 2r). A projection onto
orthonormal axes does not increase this distance. So all near duplicates of an image lie within one radius in
the first principal components too. A k-d tree finds them there, and each is then verified in full. Nothing is
missed, unlike with the approximate indices of FAISS and usearch (docs/data.md gives the reasons).
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.spatial import KDTree

NEAR_BITS, NEAR_CORRELATION = 6, 0.995
"""Near duplicates: at most 6 of 64 bits of the difference hash differ, and 32 x 32 px copies correlate by at
least this. For GDXray's pixel copies both are exact; frames five degrees apart correlate by 0.95 to 0.999."""

_RADIUS = 1.001 * math.sqrt(2 - 2 * NEAR_CORRELATION)  # with a margin for float32
_AXES, _TREE_AXES = 64, 12
"""Principal components in which candidates are compared, and components that the tree divides."""
_LEAF = 40  # images in a leaf of the tree
_NEAREST = 16
"""Neighbours that are verified first: a copy is usually among them."""
_FIT = 8192  # maximum number of images in the fit of the axes
_FEW = 2**22  # largest number of pairs that are compared all with all
_STEP = 1024  # images per block
_CROWDED = 1 / 16  # share of all images within the radius above which the tree saves no time


class Looks:
    """The features of images that are compared: 32 x 32 px copies and difference hashes.

    Args:
        small: (32, 32) uint8 copy of each image, not constant.
        hashes: 64-bit hash of each image.
    """

    def __init__(self, small: Sequence[np.ndarray], hashes: Sequence[int]):
        self.small = np.stack([image.ravel() for image in small])
        self.hashes = np.array(hashes, np.uint64)

    @classmethod
    def of(cls, small: np.ndarray, hashes: np.ndarray) -> 'Looks':
        """Make an object of (n, 1024) uint8 copies and (n,) uint64 hashes."""
        looks = cls.__new__(cls)
        looks.small, looks.hashes = small, hashes
        return looks

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.small)

    def standardised(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return copies as (n, 1024) float32 of mean 0 and norm 1."""
        flat = self.small[rows].astype(np.float32)
        flat -= flat.mean(1, keepdims=True)
        flat /= np.maximum(np.sqrt(np.einsum('np,np->n', flat, flat)), 1e-6)[:, None]
        return flat


class Matches:
    """The near duplicate on the left of each image on the right.

    Attributes:
        index: (N,) int64, position on the left; -1 without a near duplicate.
        correlation: (N,) float32, correlation of the small copies.
    """

    def __init__(self, count: int):
        self.index = np.full(count, -1, np.int64)
        self.correlation = np.full(count, -1, np.float32)

    def offer(self, right: np.ndarray, left: np.ndarray, correlation: np.ndarray) -> None:
        """Take near duplicates with a higher correlation than before; among equals the first on the left."""
        good = correlation >= NEAR_CORRELATION
        right, left, correlation = right[good], left[good], correlation[good]
        order = np.lexsort((left, -correlation, right))
        right, left, correlation = right[order], left[order], correlation[order]
        first = np.ones(len(right), bool)
        first[1:] = right[1:] != right[:-1]
        right, left, correlation = right[first], left[first], correlation[first]
        better = correlation > self.correlation[right]
        self.index[right[better]] = left[better]
        self.correlation[right[better]] = correlation[better]


def near_matches(left: Looks, right: Looks, workers: int = 1) -> Matches:
    """Find a near duplicate on the left of each image on the right.

    If few images are near, the result has the highest correlation of all; if many are, of the 16 nearest.

    Args:
        left: images to search in.
        right: images to search for.
        workers: threads of the tree.
    """
    found = Matches(len(right))
    rest = np.arange(len(right))
    if len(left) * len(right) > _FEW:
        tree = _Tree(left)
        blocks = (rest[start : start + _STEP] for start in range(0, len(rest), _STEP))
        rest = np.concatenate([tree.search(right, rows, found, workers) for rows in blocks])
    _all_with_all(left, right, rest, found)
    return found


class _Tree:
    """The left side in a k-d tree of its principal components."""

    def __init__(self, left: Looks):
        self.left = left
        sample = left.standardised(slice(None, None, -(-len(left) // _FIT)))
        self.centre = sample.mean(0)
        sample -= self.centre
        self.axes = np.ascontiguousarray(np.linalg.eigh(sample.T @ sample)[1][:, : -_AXES - 1 : -1])
        coarse, self.fine = (np.concatenate(parts) for parts in zip(*map(self.place, _blocks(left))))
        self.tree = KDTree(coarse, _LEAF)

    def place(self, block: np.ndarray) -> list[np.ndarray]:
        """Return coordinates of (n, 1024) standardised copies: (n, 13) for the tree, (n, 65) for candidates.

        The last coordinate is the norm of the residual; it does not increase distances either.
        """
        block = block - self.centre
        inside = block @ self.axes
        square = np.einsum('np,np->n', block, block)
        return [
            np.c_[part, np.sqrt(np.maximum(square - np.einsum('na,na->n', part, part), 0))]
            for part in (inside[:, :_TREE_AXES], inside)
        ]

    def search(self, right: Looks, rows: np.ndarray, found: Matches, workers: int) -> np.ndarray:
        """Search for some images of the right side.

        Returns:
            The images with so many neighbours on the left that the tree saves no time.
        """
        coarse, fine = self.place(right.standardised(rows))

        def verify(of: np.ndarray, near: np.ndarray) -> None:
            """Compare hashes, then more components, then the whole copies of the remaining pairs."""
            close = np.bitwise_count(self.left.hashes[near] ^ right.hashes[rows[of]]) <= NEAR_BITS
            of, near = of[close], near[close]
            apart = self.fine[near] - fine[of]
            close = np.einsum('na,na->n', apart, apart) <= _RADIUS**2
            _verify(self.left, right, near[close], rows[of[close]], found)

        near = self.tree.query(coarse, _NEAREST, distance_upper_bound=_RADIUS, workers=workers)[1]
        of, place = np.nonzero(near < len(self.left))
        verify(of, near[of, place])
        more = np.flatnonzero((near[:, -1] < len(self.left)) & (found.index[rows] < 0))
        around = self.tree.query_ball_point(coarse[more], _RADIUS, workers=workers, return_length=True)
        crowded = around > _CROWDED * len(self.left)
        few = more[~crowded]
        if len(few):
            lists = self.tree.query_ball_point(coarse[few], _RADIUS, workers=workers)
            verify(np.repeat(few, around[~crowded]), np.concatenate(lists).astype(np.int64))
        return rows[more[crowded]]


def _blocks(looks: Looks):
    return (looks.standardised(slice(start, start + _STEP)) for start in range(0, len(looks), _STEP))


def _verify(left: Looks, right: Looks, i: np.ndarray, j: np.ndarray, found: Matches) -> None:
    """Compare the copies of pairs of left and right images in full."""
    for start in range(0, len(i), 4 * _STEP):
        a, b = i[start : start + 4 * _STEP], j[start : start + 4 * _STEP]
        found.offer(b, a, np.einsum('np,np->n', left.standardised(a), right.standardised(b)))


def _all_with_all(left: Looks, right: Looks, rows: np.ndarray, found: Matches) -> None:
    """Compare every image of the left with some of the right, in blocks."""
    for part in (rows[start : start + _STEP] for start in range(0, len(rows), _STEP)):
        searched = right.standardised(part)
        for start, block in zip(range(0, len(left), _STEP), _blocks(left)):
            hashes = left.hashes[start : start + _STEP, None]
            near = np.bitwise_count(hashes ^ right.hashes[part]) <= NEAR_BITS
            if near.any():
                correlation = np.where(near, block @ searched.T, -1)
                best = correlation.argmax(0)
                found.offer(part, start + best, correlation[best, np.arange(len(part))])
