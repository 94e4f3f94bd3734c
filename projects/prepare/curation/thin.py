"""Near duplicates within one set, thinned: what goes resembles one that stays; no two that stay do."""

import numpy as np

from ..resemblance import NEAR_BITS, NEAR_CORRELATION, Looks, near_matches

_SMALL = 1024  # images that are compared all with all


def near_groups(looks: Looks, workers: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Divide images into groups around one of each, of which all others are near duplicates.

    Halves are thinned and then compared with each other by `near_matches`, n log² n in all. Frames that drift
    slowly make several groups: nothing goes that does not itself resemble what stays.

    Returns:
        (n,) place of the image that stands for each, its own where it is that one, and (n,) correlation.
    """
    stays = _thin(looks, np.arange(len(looks)), workers)
    stands, correlation = np.arange(len(looks)), np.ones(len(looks), np.float32)
    rest = np.setdiff1d(stands, stays)
    while len(rest):
        found = near_matches(_some(looks, stays), _some(looks, rest), workers)
        near = found.index >= 0
        stands[rest[near]], correlation[rest[near]] = stays[found.index[near]], found.correlation[near]
        # One whose like went later, for the sake of a third: it stays after all.
        rest = rest[~near]
        back = _thin(looks, rest, workers)
        stays, rest = np.sort(np.concatenate([stays, back])), np.setdiff1d(rest, back)
    return stands, correlation


def _some(looks: Looks, rows: np.ndarray) -> Looks:
    return Looks.of(looks.small[rows], looks.hashes[rows])


def _thin(looks: Looks, rows: np.ndarray, workers: int) -> np.ndarray:
    """Return those of some rows, sorted, of which no two resemble each other; the first ones stay."""
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
