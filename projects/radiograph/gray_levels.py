"""Gray-level statistics of radiographs, and their band over the radiographs of a detector's proof.

A frame without a picture (tube off, panel saturated, shutter half closed) or with shifted bits still has
pixels that differ. A detector finds nothing on such a frame, so the part would pass. Its gray levels show it.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from .window import count_codes

PERCENTILES = (1, 25, 50, 75, 99)
GRID, CELL = 8, 16
"""Cells per side of the coarse grid, and px per side of a cell in the shrunk copy."""
STRUCTURE = 2.0
"""Standard deviation in gray levels below which a cell of the shrunk copy counts as blank."""
MIN_FRAMES = 10
"""Fewer radiographs give no band: they say too little about other radiographs."""
MARGIN_GRAY, MARGIN_SHARE, MARGIN_SPREAD, FACTOR_NOISE = 16.0, 0.2, 0.25, 2.0
"""How far a band reaches beyond the values seen: at least these gray levels or shares, or this part of the
spread if larger; noise by a factor."""

_NOISE_SIDE = 2048  # px of the square in the middle on which noise is measured
# The response to a plane is 0; to white noise of standard deviation 1 it is 6 (Immerkaer 1996).
_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_NAMES = {f'p{share}': f'percentile {share}' for share in PERCENTILES} | {
    'contrast': 'contrast (percentile 99 - 1)',
    'noise': 'noise',
    'black': 'share of black pixels',
    'white': 'share of white pixels',
    'blank_dark': 'share of dark cells without structure',
    'blank_mid': 'share of gray cells without structure',
    'blank_bright': 'share of bright cells without structure',
    'shut': 'share of dark lines from a border on',
}

Levels = dict[str, float]
Band = dict[str, list[float]]


def measure(image: np.ndarray) -> Levels:
    """Measure a windowed radiograph.

    Args:
        image: (H, W) uint8, uint16 (white at 65535) or float32 (white at 255).

    Returns:
        'p1' to 'p99' and 'contrast' in gray levels of 0..255, 'noise' as their standard deviation between
        neighbours, 'black' and 'white' as shares of the pixels, 'blank_dark', 'blank_mid' and 'blank_bright'
        as shares of the cells (blank cells of that brightness), 'shut' as share of the lines, counted from a
        border, that are dark from end to end.
    """
    if image.dtype != np.uint8:
        image = cv2.convertScaleAbs(image, alpha=1 / 257 if image.dtype == np.uint16 else 1)
    counts = count_codes(image)
    reached = np.cumsum(counts) / image.size
    found = np.searchsorted(reached, np.array(PERCENTILES) / 100)
    levels = {f'p{share}': float(gray) for share, gray in zip(PERCENTILES, found)}
    levels['contrast'] = levels['p99'] - levels['p1']
    levels['noise'] = _noise(image)
    levels['black'], levels['white'] = float(counts[0] / image.size), float(counts[255] / image.size)
    small = cv2.resize(image, (GRID * CELL, GRID * CELL), interpolation=cv2.INTER_AREA)
    cells = small.reshape(GRID, CELL, GRID, CELL).astype(np.float32)
    third = (cells.mean((1, 3)) / (256 / 3)).astype(int)
    blank = cells.std((1, 3)) < STRUCTURE
    for k, name in enumerate(('dark', 'mid', 'bright')):
        levels[f'blank_{name}'] = float((blank & (third == k)).mean())
    levels['shut'] = max(_shut(lines) for side in (small, small.T) for lines in (side, side[::-1]))
    return levels


def _shut(lines: np.ndarray) -> float:
    """Return the share of lines, from the first on, that are dark from end to end, as behind a shutter."""
    dark = (lines.std(1) < STRUCTURE) & (lines.mean(1) < 256 / 3)
    return float(np.append(dark, False).argmin() / len(lines))


def _noise(image: np.ndarray) -> float:
    """Return, in gray levels, the standard deviation of white noise with the same local differences."""
    top, left = (max(side - _NOISE_SIDE, 0) // 2 for side in image.shape)
    middle = image[top : top + _NOISE_SIDE, left : left + _NOISE_SIDE]
    response = cv2.filter2D(middle, cv2.CV_32F, _LAPLACIAN)
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(response).mean())


def band_of(frames: Sequence[Levels]) -> Band:
    """Return the band that radiographs span, with a margin.

    Args:
        frames: the result of `measure` for each radiograph.

    Returns:
        Lowest and highest value of each statistic; empty for fewer than `MIN_FRAMES` radiographs.
    """
    if len(frames) < MIN_FRAMES:
        return {}
    band = {}
    for key in frames[0]:
        values = [levels[key] for levels in frames]
        low, high = min(values), max(values)
        if key == 'noise':
            low, high = low / FACTOR_NOISE, high * FACTOR_NOISE
        else:
            least = MARGIN_GRAY if key.startswith(('p', 'contrast')) else MARGIN_SHARE
            margin = max(least, MARGIN_SPREAD * (high - low))
            low, high = low - margin, high + margin
        band[key] = [round(low, 4), round(high, 4)]
    return band


def outside(levels: Levels, band: Band) -> list[str]:
    """Return one phrase per statistic outside its band; an empty band has no limits."""
    return [
        f'{_NAMES[key]} is {levels[key]:.3g}, expected {max(low, 0):.3g} to {high:.3g}'
        for key, (low, high) in band.items()
        if not low <= levels[key] <= high
    ]
