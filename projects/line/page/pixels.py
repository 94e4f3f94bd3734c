"""Pixels for a browser: 16 bits without loss, and the file's values that they represent."""

import math
from typing import Any

import cv2
import numpy as np

from projects.radiograph.image import ImagingError, Radiograph
from projects.radiograph.window import by_rows, window_ends

THUMBNAIL = 80  # px of the longer side


def as_16_bit(pixels: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return pixels for a browser, without loss for files of up to 16 bits.

    Args:
        pixels: (H, W) in the file's own depth.

    Returns:
        (H, W) uint16, little endian, and the file's values at 0 and 65535.
    """
    if pixels.dtype.kind in 'iu' and pixels.dtype.itemsize <= 2:
        low = float(np.iinfo(pixels.dtype).min)
        if pixels.dtype.kind == 'u':
            return pixels.astype('<u2', copy=False), low, low + 65535
        return by_rows(pixels, '<u2', lambda rows: rows.astype(np.int32) - int(low)), low, low + 65535
    low, high = _range_of(pixels)
    unit = (high - low) or 1.0

    def scaled(rows: np.ndarray) -> np.ndarray:
        shares = (np.nan_to_num(rows.astype(np.float64)) - low) / unit
        return (shares.clip(0, 1) * 65535).round()

    return by_rows(pixels, '<u2', scaled), low, high


def _range_of(pixels: np.ndarray) -> tuple[float, float]:
    """Return the smallest and the largest finite value; 0 and 1 if there is no finite value."""
    low, high = math.inf, -math.inf
    for row in pixels:
        finite = row[np.isfinite(row)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if low <= high else (0.0, 1.0)


def packed(radiograph: Radiograph, window: dict[str, Any]) -> tuple[memoryview, dict[str, str]]:
    """Return a radiograph for the page.

    Args:
        radiograph: Result of `read_one`.
        window: The detector's window.

    Returns:
        The pixels, uint16, little endian, row by row, and headers: `X-Height`, `X-Width`, `X-Low` and
        `X-High` (the file's values at 0 and 65535), `X-Invert`. If known, also `X-Window` and `X-Stated`
        (ends of the detector's window and of the file's stated range, on the scale of these 16 bits), and
        `X-Spacing` (mm per px along x and y) with `X-Spacing-From`.
    """
    values, low, high = as_16_bit(radiograph.pixels)
    headers = {
        'X-Height': str(values.shape[0]),
        'X-Width': str(values.shape[1]),
        'X-Low': repr(low),
        'X-High': repr(high),
        'X-Invert': str(int(radiograph.invert)),
    }
    try:
        seen = window_ends(radiograph, window)
    except ImagingError:  # the page shows a radiograph that the detector cannot window
        seen = None
    stated = None if math.isnan(radiograph.low) else (radiograph.low, radiograph.high)
    for name, ends in (('X-Window', seen), ('X-Stated', stated)):
        if ends is not None and high > low:
            headers[name] = ','.join(repr(float((end - low) / (high - low) * 65535)) for end in ends)
    if 'spacing' in radiograph.meta:
        headers['X-Spacing'] = ','.join(map(repr, radiograph.meta['spacing']))
        headers['X-Spacing-From'] = radiograph.meta['spacing_from']
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, headers  # not a copy


def thumbnail(pixels: np.ndarray) -> bytes:
    """Return a small PNG of the windowed radiograph.

    Args:
        pixels: (H, W) windowed, in [0, 255], or uint16 in [0, 65535].
    """
    scale = THUMBNAIL / max(pixels.shape)
    size = tuple(max(round(side * scale), 1) for side in reversed(pixels.shape))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    gray = (small // 257 if small.dtype == np.uint16 else np.clip(small, 0, 255)).astype(np.uint8)
    return cv2.imencode('.png', gray)[1].tobytes()
