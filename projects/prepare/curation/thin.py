"""Thinning of near duplicates: each dropped image resembles a kept one, and no two kept images resemble."""

import numpy as np

from ..resemblance import NEAR_BITS, NEAR_CORRELATION, Looks, near_matches

_SMALL = 1024  # largest number of images that are compared all with all


def near_groups(looks: Looks, workers: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Divide images into groups, each around one kept image of which the others are near duplicates.

    Halves are thinned and then compared with each other by `near_matches`, n log² n in all. Slowly drifting
    frames make several groups, since each dropped image must itself resemble its kept image.

    Returns:
        (n,) position of the kept image of each group member (its own for a kept image), and (n,) correlation.
    """
    stays = _thin(looks, np.arange(len(looks)), workers)
    stands, correlation = np.arange(len(looks)), np.ones(len(looks), np.float32)
    rest = np.setdiff1d(stands, stays)
    while len(rest):
        found = near_matches(_some(looks, stays), _some(looks, rest), workers)
        near = found.index >= 0
        stands[rest[near]], correlation[rest[near]] = stays[found.index[near]], found.correlation[near]
        # The kept image of this one was dropped later in favour of a third: this one stays after all.
        rest = rest[~near]
        back = _thin(looks, rest, workers)
        stays, rest = np.sort(np.concatenate([stays, back])), np.setdiff1d(rest, back)
    return stands, correlation


def _some(looks: Looks, rows: np.ndarray) -> Looks:
    return Looks.of(looks.small[rows], looks.hashes[rows])


def _thin(looks: Looks, rows: np.ndarray, workers: int) -> np.ndarray:
    """Return a subset of sorted rows in which no two images resemble each other; earlier rows win."""
    if len(rows) <= _SMALL:
        return _thin_few(looks, rows)
    left, right = (_thin(looks, half, workers) for half in np.array_split(rows, 2))
    near = near_matches(_some(looks, left), _some(looks, right), workers).index >= 0
    return np.concatenate([left, right[~near]])


def _thin_few(looks: Looks, rows: np.ndarray) -> np.ndarray:
    whole, hashes = looks.standardised(rows), looks.hashes[rows]
    near = whole @ whole.T >= NEAR_CORRELATION
    near &= np.bitwise_count(hashes[:, None] ^ hashes) <= NEAR_BITS
    stays = np.ones(len(rows), bool)
    for k in range(len(rows)):
        if stays[k]:
            stays[k + 1 :] &= ~near[k, k + 1 :]
    return rows[stays]
