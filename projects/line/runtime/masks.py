"""Masks of detected flaws: from the network's raster in each box to pixels of the radiograph."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from projects.radiograph.rle import Bools, compress

THRESHOLD = 0.5
"""Least probability of a pixel of the flaw: mmdet's `mask_thr_binary`."""


@dataclass
class Mask:
    """The pixels of one flaw.

    Attributes:
        left: First column of `pixels` in the radiograph.
        top: First row of `pixels` in the radiograph.
        pixels: (h, w) bool.
    """

    left: int
    top: int
    pixels: Bools

    @property
    def area(self) -> int:
        """Number of the flaw's pixels."""
        return int(self.pixels.sum())

    def rle(self, size: Sequence[int]) -> dict[str, Any]:
        """Return COCO's compressed run lengths over a radiograph of (height, width) px.

        A film may have 50 million pixels: only the columns of the mask are processed.
        """
        height, width = (int(side) for side in size)
        strip = np.zeros((height, self.pixels.shape[1]), bool)
        strip[self.top : self.top + self.pixels.shape[0]] = self.pixels
        flat = np.concatenate([[False], strip.ravel(order='F'), [False]])
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + self.left * height
        counts = np.diff([0, *edges.tolist(), height * width]).tolist()
        if len(counts) > 1 and not counts[-1]:
            counts.pop()
        return dict(size=[height, width], counts=compress(counts))

    def outlines(self) -> list[list[list[float]]]:
        """Return the closed outlines of the mask's components and holes, [[x, y], …] in px of the radiograph.

        The outlines lie a quarter of a pixel inside the flaw's border.
        """
        doubled = self.pixels.astype(np.uint8).repeat(2, 0).repeat(2, 1)
        if not doubled.size:
            return []
        lines = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]
        corner = np.array([self.left, self.top])
        return [((line.reshape(-1, 2) + 0.5) / 2 + corner).tolist() for line in lines]


def paste(raster: npt.NDArray[np.float32], box: npt.NDArray[np.float32], size: Sequence[int]) -> Mask:
    """Stretch the network's raster over its box, as mmdet does: bilinear, at the centres of the pixels.

    Args:
        raster: (r, r) float32, probabilities.
        box: (4) x1, y1, x2, y2 in px of the radiograph.
        size: Height and width of the radiograph, px.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    left, top = max(math.floor(x1), 0), max(math.floor(y1), 0)
    right, bottom = min(math.ceil(x2), size[1]), min(math.ceil(y2), size[0])
    if right <= left or bottom <= top:
        return Mask(left, top, np.zeros((0, 0), bool))
    rows = _weights(top, bottom, y1, y2, raster.shape[0])
    columns = _weights(left, right, x1, x2, raster.shape[1])
    return Mask(left, top, rows @ raster @ columns.T >= THRESHOLD)


def _weights(first: int, last: int, low: float, high: float, bins: int) -> npt.NDArray[np.float32]:
    """Return weights (pixels, bins) of linear interpolation between bins over [low, high]; 0 beyond it."""
    at = (np.arange(first, last) + 0.5 - low) / max(high - low, 1e-6) * bins - 0.5
    weights: npt.NDArray[np.float64] = np.clip(1 - np.abs(at[:, None] - np.arange(bins)), 0, None)
    return weights.astype(np.float32)


def join(masks: Sequence[Mask]) -> Mask:
    """Return the union of masks, such as the masks of one flaw in neighbouring tiles."""
    masks = [mask for mask in masks if mask.pixels.size] or list(masks[:1])
    if len(masks) == 1:
        return masks[0]
    left, top = min(mask.left for mask in masks), min(mask.top for mask in masks)
    right = max(mask.left + mask.pixels.shape[1] for mask in masks)
    bottom = max(mask.top + mask.pixels.shape[0] for mask in masks)
    whole = np.zeros((bottom - top, right - left), bool)
    for mask in masks:
        height, width = mask.pixels.shape
        y, x = mask.top - top, mask.left - left
        whole[y : y + height, x : x + width] |= mask.pixels
    return Mask(left, top, whole)
