"""Pixels as a browser takes them: 16 bits, nothing lost."""

import numpy as np


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
