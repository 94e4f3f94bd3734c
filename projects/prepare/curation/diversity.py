"""A sample of images with diverse features: farthest points, or k-means that starts from them."""

import numpy as np

CLUSTERS = 1024
"""Maximum number of centres; for a larger sample, each cluster gives its share."""
_ROUNDS = 20  # maximum rounds of k-means
_BLOCK = 8192  # images at a time


def choose(features: np.ndarray, count: int, by: str, seed: int, clusters: int = CLUSTERS) -> np.ndarray:
    """Choose a diverse sample, deterministic by seed.

    Args:
        features: (n, d) features of the images at any scale: only their directions are compared.
        count: Size of the sample.
        by: 'farthest': greedy k-centre (Gonzalez 1985): each centre is the image farthest from all centres
            before, so rare images are chosen too. 'kmeans': Lloyd's rounds move these centres to where many
            images are.
        seed: Seed of the first centre.
        clusters: Maximum number of centres. The clusters take turns, each with the image nearest to its
            centre, until they are used up.

    Returns:
        (min(count, n),) positions of the images, sorted.
    """
    features = features.astype(np.float32)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    if count >= len(features):
        return np.arange(len(features))
    chosen = _farthest(features, min(count, clusters), seed)
    centres = features[chosen]
    if by == 'kmeans':
        centres = _lloyd(features, centres)
    elif count <= clusters:
        return np.sort(chosen)
    nearest, distance = _assign(features, centres)
    order = np.lexsort((np.arange(len(features)), distance, nearest))
    size = np.bincount(nearest, minlength=len(centres))
    # Rank of each image within its cluster: sorting by rank gives every cluster its turn.
    rank = np.empty(len(features), np.int64)
    rank[order] = np.arange(len(features)) - np.repeat(np.cumsum(size) - size, size)
    return np.sort(np.lexsort((distance, rank))[:count])


def _farthest(features: np.ndarray, count: int, seed: int) -> np.ndarray:
    chosen = np.empty(count, np.int64)
    chosen[0] = np.random.default_rng(seed).integers(len(features))
    closest = np.full(len(features), np.inf, np.float32)
    for k in range(count):
        if k:
            chosen[k] = closest.argmax()
        np.minimum(closest, 2 - 2 * (features @ features[chosen[k]]), out=closest)
        closest[chosen[k]] = -1  # never twice, copies included
    return chosen


def _lloyd(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    before = None
    for _ in range(_ROUNDS):
        nearest, _ = _assign(features, centres)
        if before is not None and (nearest == before).all():
            break
        before = nearest
        order = np.argsort(nearest, kind='stable')
        present, first = np.unique(nearest[order], return_index=True)
        centres = centres.copy()
        centres[present] = np.add.reduceat(features[order], first, dtype=np.float64)
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    return centres


def _assign(features: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) nearest centre of each image and its squared distance."""
    nearest, distance = np.empty(len(features), np.int64), np.empty(len(features), np.float32)
    for start in range(0, len(features), _BLOCK):
        likeness = features[start : start + _BLOCK] @ centres.T
        nearest[start : start + _BLOCK] = likeness.argmax(1)
        distance[start : start + _BLOCK] = 2 - 2 * likeness.max(1)
    return nearest, distance
