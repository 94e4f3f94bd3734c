"""Radiographs to pack, and the files of a store."""

import cv2
import numpy as np

DEPTH = {8: (np.uint8, 255), 16: (np.uint16, 65535)}


def draw(path, shape=(96, 120), bits=8, seed=0):
    """Write a radiograph with structure at every scale."""
    rng = np.random.default_rng(seed)
    dtype, white = DEPTH[bits]
    image = sum(
        cv2.resize(rng.random((n, n)).astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
        for n in (3, 9, 40)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.round(np.clip(image / 3, 0, 1) * white).astype(dtype))


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name != 'lock'}
