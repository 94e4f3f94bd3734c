"""Pixels as a browser takes them: 16 bits, nothing lost, with what they stand for."""

import math
from typing import Any

import cv2
import numpy as np

from projects.radiograph.image import ImagingError, Radiograph
from projects.radiograph.window import window_ends

THUMBNAIL = 80  # px of the longer side


def as_16_bit(pixels: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return pixels as a browser takes them, losing nothing of files up to 16 bits.

    Args:
        pixels: (H, W) in the file's own depth.

    Returns:
        (H, W) uint16, little endian, and the file's values that 0 and 65535 stand for.
    """
    if pixels.dtype.kind in 'iu' and pixels.dtype.itemsize <= 2:
        low = float(np.iinfo(pixels.dtype).min)
        return (pixels.astype(np.int32) - int(low)).astype('<u2'), low, low + 65535
    finite = pixels[np.isfinite(pixels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    scaled = (np.nan_to_num(pixels.astype(np.float64)) - low) / ((high - low) or 1.0)
    return (scaled.clip(0, 1) * 65535).round().astype('<u2'), low, high


def packed(radiograph: Radiograph, window: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """Return a radiograph for the page.

    Args:
        radiograph: What `read_one` returned.
        window: That of the detector.

    Returns:
        Its pixels, uint16, little endian, by lines, and headers: `X-Height`, `X-Width`, `X-Low` and `X-High`
        (the file's values that 0 and 65535 stand for), `X-Invert`; where they are known `X-Window` and
        `X-Stated` (ends of the detector's window and of the range that the file states, in steps of these
        65536), and `X-Spacing` (mm per px along x and y) with `X-Spacing-From`.
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
    except ImagingError:  # the detector cannot see it: it is shown all the same
        seen = None
    stated = None if math.isnan(radiograph.low) else (radiograph.low, radiograph.high)
    for name, ends in (('X-Window', seen), ('X-Stated', stated)):
        if ends is not None and high > low:
            headers[name] = ','.join(repr(float((end - low) / (high - low) * 65535)) for end in ends)
    if 'spacing' in radiograph.meta:
        headers['X-Spacing'] = ','.join(map(repr, radiograph.meta['spacing']))
        headers['X-Spacing-From'] = radiograph.meta['spacing_from']
    return values.tobytes(), headers


def thumbnail(pixels: np.ndarray) -> bytes:
    """Return a small PNG of what the detector saw.

    Args:
        pixels: (H, W) windowed, in [0, 255], or uint16 in [0, 65535].
    """
    gray = (pixels // 257 if pixels.dtype == np.uint16 else np.clip(pixels, 0, 255)).astype(np.uint8)
    scale = THUMBNAIL / max(gray.shape)
    size = tuple(max(round(side * scale), 1) for side in reversed(gray.shape))
    return cv2.imencode('.png', cv2.resize(gray, size, interpolation=cv2.INTER_AREA))[1].tobytes()
