"""COCO's run-length encoding of masks."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .safe_parse import FormatError

Bools = npt.NDArray[np.bool_]


def uncompress(text: str) -> list[int]:
    """Return run lengths of COCO's compressed RLE: 5 bits a character, differences from the third on."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise FormatError('compressed run lengths')
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def compress(counts: Sequence[int]) -> str:
    """Return COCO's compressed RLE of run lengths; see `uncompress`."""
    text = []
    for number, count in enumerate(counts):
        value = count - counts[number - 2] if number > 2 else count
        while True:
            code, value = value & 31, value >> 5
            more = value != (-1 if code & 16 else 0)
            text.append(chr(48 + code + 32 * more))
            if not more:
                break
    return ''.join(text)


def encode_rle(mask: Bools) -> dict[str, Any]:
    """Return COCO's uncompressed RLE of a boolean mask (H, W): run lengths down the columns, zeros first."""
    flat = mask.ravel(order='F')
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return dict(size=list(mask.shape), counts=[0, *counts] if flat[0] else counts)


def decode_rle(rle: Mapping[str, Any]) -> Bools:
    """Return the boolean mask (H, W) of COCO's uncompressed RLE."""
    values = np.arange(len(rle['counts'])) % 2 == 1
    return np.repeat(values, rle['counts']).reshape(rle['size'], order='F')


def area_of(rle: Mapping[str, Any]) -> int:
    """Return the number of pixels that COCO's RLE marks, compressed or not."""
    counts = rle['counts']
    return sum((uncompress(counts) if isinstance(counts, str) else counts)[1::2])


def extent(mask: Bools) -> list[int]:
    """Return the bounding box x1, y1, x2, y2 at pixel edges of a mask (H, W) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def outline(mask: Bools) -> list[list[float]]:
    """Return polygons x1 y1 x2 y2 … around the regions of a boolean mask (H, W); holes are filled.

    The outlines pass a quarter of a pixel within the edges, so the pixels of the mask are exactly those whose
    centres lie in a polygon.
    """
    doubled = mask.astype(np.uint8).repeat(2, 0).repeat(2, 1)
    found = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    return [((points.reshape(-1) + 0.5) / 2).tolist() for points in found]


def count_regions(mask: Bools) -> int:
    """Return the number of connected regions of a mask (H, W); pixels with a common corner are connected."""
    if not mask.any():
        return 0
    x1, y1, x2, y2 = extent(mask)
    return cv2.connectedComponents(mask[y1:y2, x1:x2].astype(np.uint8), connectivity=8)[0] - 1
