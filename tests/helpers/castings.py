"""A radiograph of a plate, drawn for tests of flaws drawn into radiographs."""

import cv2
import numpy as np

NOISE = 2.0
DEPTHS = {'uint8': 1.0, 'uint16': 257.0, 'float32': 1.0}


def casting(seed=0, size=(256, 320), dtype='uint8', noise=NOISE, blur=1.2):
    """A stepped plate with two holes: air at 230, metal from 60 to 140 of 255."""
    rng = np.random.default_rng(seed)
    levels = np.full(size, 230, np.float32)
    levels[20:-20, 30:] = 140
    levels[20:-20, 160:] = 90
    levels[150:-20, 60:] *= 0.67
    cv2.circle(levels, (100, 90), 30, 230, -1)
    cv2.circle(levels, (240, 90), 22, 230, -1)
    levels = cv2.GaussianBlur(levels, (0, 0), blur) + rng.normal(0, noise, size).astype(np.float32)
    levels *= DEPTHS[dtype]
    return levels.astype(np.float32) if dtype == 'float32' else np.rint(levels).astype(dtype)
