"""An exported folder around a graph that finds the brightest pixel; both engines read it."""

import numpy as np

from projects.benchmark.stand_in import SIDE, bright_spot_graph, export_to

__all__ = ['SIDE', 'bright_spot_graph', 'export_to', 'spot']


def spot(x, y, level=255, side=SIDE, dtype=np.uint8):
    image = np.full((side, side), 100, dtype)
    image[y, x] = level
    return image
