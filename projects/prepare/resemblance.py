"""Near duplicates among many images: whether any of them resembles one, without comparing all with all.

Two small copies of mean 0 and norm 1 that correlate by r lie sqrt(2 - 2r) apart. A projection onto
orthonormal axes brings them no further apart, so that all near duplicates of an image lie within one radius
of it in the first principal components too, where a k-d tree finds them; each is then verified in full.
Nothing is missed, unlike with the approximate indices of FAISS and usearch (docs/data.md says why not).
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.spatial import KDTree

NEAR_BITS, NEAR_CORRELATION = 6, 0.995
"""Near duplicates: up to 6 of the 64 bits of the difference hash differ, and 32 x 32 px copies correlate so.
On GDXray's pixel copies both are exact; frames five degrees apart correlate by 0.95 to 0.999."""

_RADIUS = 1.001 * math.sqrt(2 - 2 * NEAR_CORRELATION)  # and a little, for float32
_AXES, _TREE_AXES = 64, 12
"""Principal components that candidates are compared in, and how many of them the tree divides."""
_LEAF = 40  # images in a leaf of the tree
_NEAREST = 16
"""Neighbours that are verified first: among copies one is soon found."""
_FIT = 8192  # images that the axes are fitted to
_FEW = 2**22  # pairs that are compared all with all
_STEP = 1024  # images at a time
_CROWDED = 1 / 16  # share of all images within the radius from which on the tree saves nothing


class Looks:
    """What is compared of images: 32 x 32 px copies and difference hashes.

    Args:
        small: (32, 32) uint8 of each image, not constant.
        hashes: 64 bits of each.
    """

    def __init__(self, small: Sequence[np.ndarray], hashes: Sequence[int]):
        self.small = np.stack([image.ravel() for image in small])
        self.hashes = np.array(hashes, np.uint64)

    @classmethod
    def of(cls, small: np.ndarray, hashes: np.ndarray) -> 'Looks':
        """Take (n, 1024) uint8 copies and (n,) uint64 hashes as they are."""
        looks = cls.__new__(cls)
        looks.small, looks.hashes = small, hashes
        return looks

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.small)

    def standardised(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return (n, 1024) float32 of mean 0 and norm 1."""
        flat = self.small[rows].astype(np.float32)
        flat -= flat.mean(1, keepdims=True)
        flat /= np.maximum(np.sqrt(np.einsum('np,np->n', flat, flat)), 1e-6)[:, None]
        return flat


class Matches:
    """For each image of the right side its near duplicate on the left.

    Attributes:
        index: (N,) int64, place on the left; -1 where there is none.
        correlation: (N,) float32, of the small copies.
    """

    def __init__(self, count: int):
        self.index = np.full(count, -1, np.int64)
        self.correlation = np.full(count, -1, np.float32)

    def offer(self, right: np.ndarray, left: np.ndarray, correlation: np.ndarray) -> None:
        """Take near duplicates that are better than what is known; of equal ones the first on the left."""
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

    It is the most alike where few are near; where many are, the most alike of the 16 nearest.

    Args:
        left: the images searched.
        right: the images searched for.
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
        """Coordinates (n, 13) in the tree and (n, 65) of candidates, of (n, 1024) standardised copies.

        The last one is the length of what the axes leave out; it, too, brings no two images further apart.
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
            Those that so many of the left crowd around that the tree saves nothing.
        """
        coarse, fine = self.place(right.standardised(rows))

        def verify(of: np.ndarray, near: np.ndarray) -> None:
            """Compare hashes, then more components, then the whole copies of what is left."""
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
