"""Windows: map a radiograph in its own depth to the input of a model, in one step."""

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .image import ImagingError, Radiograph
from .quantiles import GraySketch, sample_pixels
from .read import read

_SAMPLED = 65_536  # maximum number of pixels of an image that enter a data set's window
_WINDOW_KEYS = {
    'full': set(),
    'absolute': {'low', 'high'},
    'percentile': {'low', 'high'},
    'voi': set(),
}


def check_window(window: dict[str, Any]) -> None:
    """Check a window's keys and bounds.

    Raises:
        ImagingError: an unknown type or key, a missing bound, or `low` not below `high`.
    """
    kind = window.get('type') if isinstance(window, dict) else None
    if kind not in _WINDOW_KEYS:
        raise ImagingError(f'window {window}: expected a dict with type full, absolute, percentile or voi')
    keys = _WINDOW_KEYS[kind]
    allowed = keys | {'type'} | (set() if kind == 'voi' else {'log'})
    if not keys <= set(window) <= allowed:
        raise ImagingError(
            f'window {window}: expected the keys {sorted(keys)} and optionally {sorted(allowed - keys)}'
        )
    if keys:
        low, high = window['low'], window['high']
        if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in (low, high)) or low >= high:
            raise ImagingError(f'window {window}: expected two finite numbers, low below high')
        if kind == 'percentile' and not (low >= 0 and high <= 100):
            raise ImagingError(f'window {window}: expected percentiles in 0..100')
        if kind == 'absolute' and window.get('log') and low <= 0:
            raise ImagingError(f'window {window}: expected low above 0 in the log domain')


def apply_window(radiograph: Radiograph, window: dict[str, Any], dtype: str = 'uint8') -> np.ndarray:
    """Map a radiograph to the input of a model, in one step from the file's own depth.

    Windows:
        dict(type='full'): the range the file states (`Radiograph.low` to `high`): BitsStored of a DICOM file,
            BitsPerSample of a TIFF, the container of a PNG. A 12-bit image in a 16-bit PNG or TIFF does not
            state its 12 bits; use dict(type='absolute', low=0, high=4095).
        dict(type='absolute', low=, high=): in the file's units (after DICOM rescale). One window for the
            whole data set keeps gray levels comparable: `dataset_window` computes it.
        dict(type='percentile', low=, high=): of this image's pixels, so each image gets its own window.
        dict(type='voi'): the window or LUT that the DICOM file states.
    All except `voi` accept log=True: the window is linear in ln(value), which is minus the attenuation
    ln(I0/I) up to a constant (Beer-Lambert). Equal path differences then get equal contrast, and polarity
    stays. Values are raised to at least 1 (integers) or high/65535 (floats).

    Args:
        radiograph: the result of `read`.
        window: see above; values outside the window saturate.
        dtype: 'uint8' (0..255, rounded) or 'float32' (0..255, not rounded), so that one mean and standard
            deviation serve both.

    Returns:
        (H, W) of `dtype`. The full window of an 8-bit file returns its pixels themselves, not a copy.

    Raises:
        ImagingError: a wrong window, or a window that does not apply to this file.
    """
    check_window(window)
    if dtype not in ('uint8', 'float32'):
        raise ImagingError(f'window dtype {dtype!r}: expected uint8 or float32')
    pixels = radiograph.pixels
    curve = _curve(radiograph, window)
    if (
        pixels.dtype == np.uint8
        and dtype == 'uint8'
        and curve == ('linear', 0, 255)
        and not radiograph.invert
    ):
        return pixels
    if pixels.dtype.itemsize <= 2 and pixels.dtype.kind in 'iu':
        table = _table(pixels.dtype.str, curve, radiograph.invert, dtype)
        if pixels.dtype == np.uint8:
            return np.asarray(cv2.LUT(pixels, table))
        codes = pixels.view(f'u{pixels.dtype.itemsize}')
        return by_rows(codes, dtype, lambda rows: table[rows])  # NumPy's indices take 8 bytes each
    return by_rows(pixels, dtype, lambda rows: _evaluate(rows, curve, radiograph.invert, dtype))


def by_rows(pixels: np.ndarray, dtype: Any, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Change an image about a million pixels at a time: copies of a whole film in a wide type are large.

    Args:
        pixels: (H, W).
        dtype: Of the result.
        change: (h, W) -> (h, W), for each pixel independently.

    Returns:
        (H, W) of `dtype`.
    """
    out = np.empty(pixels.shape, dtype)
    step = max(1, 2**20 // pixels.shape[1])
    for top in range(0, len(pixels), step):
        out[top : top + step] = change(pixels[top : top + step])
    return out


def window_ends(radiograph: Radiograph, window: dict[str, Any]) -> tuple[float, float] | None:
    """Return the values that a window shows as black and white, in the file's units; None for a table.

    Raises:
        ImagingError: As `apply_window`.
    """
    check_window(window)
    kind, *numbers = _curve(radiograph, window)
    if kind == 'sigmoid':
        center, width = numbers
        return center - width / 2, center + width / 2
    return None if kind == 'table' else (numbers[0], numbers[1])


def _curve(radiograph: Radiograph, window: dict[str, Any]) -> tuple[Any, ...]:
    """Return the window as a hashable curve, of the kinds of `Radiograph.voi` and ('log', low, high)."""
    name = radiograph.meta.get('file', 'radiograph')
    kind = window['type']
    if kind == 'voi':
        if radiograph.voi is None:
            raise ImagingError(
                f'{name}: expected a VOI window in the file, found none; state an absolute window'
            )
        if radiograph.voi[0] == 'wrong':
            raise ImagingError(
                f'{name}: expected a sound VOI window in the file, found {radiograph.voi[1]}; correct the '
                'header, or state an absolute window'
            )
        return radiograph.voi
    if kind == 'full':
        low, high = radiograph.low, radiograph.high
        if math.isnan(low):
            raise ImagingError(
                f'{name}: expected a stated range for the full window, but floating-point files have none; '
                'state an absolute or percentile window'
            )
    elif kind == 'absolute':
        low, high = float(window['low']), float(window['high'])
    else:
        low, high = _percentiles(radiograph.pixels, window, name)
    if not window.get('log'):
        return 'linear', low, high
    floor = high / 65535 if radiograph.pixels.dtype.kind == 'f' else max(1.0, high / 65535)
    if high <= floor:
        raise ImagingError(
            f'{name}: expected positive values for the log domain, found a window up to {high}'
        )
    return 'log', max(low, floor), high


def _percentiles(pixels: np.ndarray, window: dict[str, Any], name: str) -> tuple[float, float]:
    """Return two percentiles of the pixels (the smallest value with at least that share at or below it).

    Raises:
        ImagingError: no pixel lies between the percentiles, though the image has more than two values. The
            result would be black and white without a gray, as for a small part before a constant background.
    """
    shares = [window['low'], window['high']]
    if pixels.dtype in (np.uint8, np.uint16):
        counts = count_codes(pixels)
        # Rounded to a millionth of a pixel: 99.5 / 100 * 200 is a little more than 199.
        wanted = [max(math.ceil(round(share / 100 * pixels.size, 6)), 1) for share in shares]
        low, high = (int(v) for v in np.searchsorted(np.cumsum(counts), wanted))
        between, values = bool(counts[low + 1 : high].any()), int(np.count_nonzero(counts))
    else:
        # At most 16 million pixels: a full sort of a large float film would copy it twice.
        flat = pixels.ravel()[:: max(1, pixels.size >> 24)]
        low, high = np.percentile(flat, shares, method='inverted_cdf')
        between = bool(((flat > low) & (flat < high)).any())
        values = 3 if between else min(len(np.unique(flat)), 3)
    if values > 2 and not between:
        raise ImagingError(
            f'{name}: expected grays between the percentiles {shares[0]:g} and {shares[1]:g}, which are '
            f'{low:g} and {high:g} with none between; state an absolute window'
        )
    return float(low), float(high)


def count_codes(pixels: np.ndarray) -> np.ndarray:
    """Count each code of (H, W) uint8 or uint16 pixels: (256,) or (65536,) int64."""
    codes = 2 ** (8 * pixels.dtype.itemsize)
    flat, counts = pixels.reshape(1, -1), np.zeros(codes, np.int64)
    # OpenCV counts in float32, which is exact up to 2**24.
    for start in range(0, flat.size, 2**24):
        part = flat[:, start : start + 2**24]
        counts += cv2.calcHist([part], [0], None, [codes], [0, codes])[:, 0].astype(np.int64)
    return counts


@lru_cache(maxsize=64)
def _table(pixel_dtype: str, curve: tuple[Any, ...], invert: bool, dtype: str) -> np.ndarray:
    """Return the curve at every code of an 8- or 16-bit type, in the order of the unsigned code."""
    code = np.dtype(pixel_dtype)
    codes = np.arange(2 ** (8 * code.itemsize), dtype=f'u{code.itemsize}').view(code)
    table = _evaluate(codes, curve, invert, dtype)
    table.flags.writeable = False
    return table


def _evaluate(values: np.ndarray, curve: tuple[Any, ...], invert: bool, dtype: str) -> np.ndarray:
    """Map values to 0..255 along a curve."""
    kind, first, second = curve
    x: np.ndarray = values.astype(np.float64)
    if kind == 'table':
        table = np.asarray(second)
        x = table[np.clip(x - first, 0, len(table) - 1).astype(np.int64)]
    elif kind == 'sigmoid':
        with np.errstate(over='ignore'):
            x = 1 / (1 + np.exp(-4 * (x - first) / second))
    else:
        if kind == 'log':
            x, first, second = np.log(np.maximum(x, first)), math.log(first), math.log(second)
        # Without width the curve is a step: a constant image is all black under its percentile window.
        x = (
            np.clip((x - first) / (second - first), 0, 1)
            if second > first
            else (x > first).astype(np.float64)
        )
    x *= 255
    if invert:
        x = 255 - x
    return (np.rint(x) if dtype == 'uint8' else x).astype(dtype)


def dataset_window(paths: Iterable[str | Path], low: float = 0.5, high: float = 99.5) -> dict[str, Any]:
    """Return one absolute window for a data set: percentiles over an even sample of all its pixels.

    Args:
        paths: radiographs; at most 65,536 pixels of each are used. Memory does not grow with their number.
        low: lower percentile, 0..100.
        high: upper percentile.

    Returns:
        dict(type='absolute', low=float, high=float), ready for `apply_window` and `LoadXray`.

    Raises:
        ImagingError: no path, an unreadable file, or pixels that are all equal.
    """
    sketch = GraySketch()
    for path in paths:
        sketch.add(sample_pixels(read(path, frame=0).pixels, _SAMPLED))
    if not len(sketch):
        raise ImagingError('dataset window: expected at least one radiograph; check the folder')
    first, last = sketch.percentiles([low, high])
    window = dict(type='absolute', low=first, high=last)
    check_window(window)
    return window
