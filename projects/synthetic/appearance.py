"""What a radiograph itself shows of how it was taken: the gray levels of its part, noise, unsharpness."""

import cv2
import numpy as np

_BINS = 128
# Of the range of gray levels: how wide the peak of air or of unexposed pixels may be.
_PEAK = 0.03
# Of the pixels: how many a peak must hold, and how many must lie between both peaks to be the part.
_SHARE, _LEAST_PART = 0.01, 0.1
# Of the scale: below it pixels may be unexposed; darker metal than that shows nothing.
_BLACK = 0.1
# Squares in which edges are looked at, px; how many points of edges they must hold; and what Sobel's
# differences over two pixels, a box of variance 4/12, add to the blur, px².
_SQUARE, _EDGES, _SOBEL = 160, 8, 1 / 3
SHARPEST, BLUNTEST, UNKNOWN = 0.4, 3.0, 0.8
"""Bounds of the unsharpness that is believed, and what is taken where no edge shows it: sigma in px."""


def part_levels(image: np.ndarray, white: float = 255.0) -> tuple[float, float]:
    """Gray levels between which pixels show the part; brighter is air, darker is unexposed.

    Air is flat: it makes a narrow peak at the bright end of the histogram, at saturation or below. Pixels
    that no quanta reach make one at the dark end, in the lowest tenth of the scale. Where next to nothing
    lies between the two, the bright peak is a flat part that fills the picture.

    Args:
        image: (H, W) uint8, uint16 or float32, brighter where there is less metal.
        white: Largest gray level of the scale.

    Returns:
        Levels (dark, air), both outside of the part's; infinite where the image has no such pixels.
    """
    step = max(1, min(image.shape) // 128)
    small = image[::step, ::step].astype(np.float32)
    low, high = float(small.min()), float(small.max())
    if high <= low:
        return -np.inf, np.inf
    counts = np.histogram(small, _BINS, (low, high))[0] / small.size
    width, span = max(2, round(_PEAK * _BINS)), high - low
    dark, air = -np.inf, np.inf
    if (
        low <= _BLACK * white
        and counts[:width].sum() >= _SHARE
        and counts[:width].sum() > 2 * counts[width : 2 * width].sum()
    ):
        dark = low + width * span / _BINS
    top = _BINS * 3 // 4 + int(np.argmax(counts[_BINS * 3 // 4 :]))
    peak = counts[max(top - width, 0) : top + width + 1].sum()
    below = counts[top - 3 * width : top - width].sum()
    if peak >= _SHARE and peak > 2 * below:
        air = low + (top - width) * span / _BINS
        if np.mean((small > dark) & (small < air)) < _LEAST_PART:
            air = np.inf
    return dark, air


def noise(patch: np.ndarray) -> float:
    """Standard deviation of the noise in gray levels, from what is finer than 2 px; robust to edges.

    Args:
        patch: (H, W) float32.
    """
    fine = patch - cv2.GaussianBlur(patch, (0, 0), 2, borderType=cv2.BORDER_REFLECT_101)
    return float(1.4826 * np.median(np.abs(fine)))


def unsharpness(image: np.ndarray) -> float:
    """Blur of the sharpest edges as the sigma of a Gaussian, px.

    A step blurred by sigma has the gradient 1 / sigma at its middle, and 1 / sqrt(sigma² + s²) when it is
    blurred again by s: their ratio gives sigma (Zhuo & Sim, Pattern Recognition 44, 2011). Rounded edges of
    castings are less steep than the system is sharp, so the sharpest of the strong edges count. Looked at are
    the places of the steepest edges alone.

    Args:
        image: (H, W) uint8, uint16 or float32.

    Returns:
        Sigma from `SHARPEST` to `BLUNTEST`; `UNKNOWN` where no edge stands out from the noise.
    """
    squares = [_edge_blur(image[part]) for part in _steepest(image)]
    squares = np.concatenate(squares) if squares else np.empty(0)
    if squares.size < _EDGES:
        return UNKNOWN
    return float(np.clip(np.sqrt(max(np.percentile(squares, 20), 0)), SHARPEST, BLUNTEST))


def _steepest(image: np.ndarray) -> list[tuple[slice, slice]]:
    """Up to three squares of `_SQUARE` px around the steepest edges of an image."""
    step = max(1, min(image.shape) // 128)
    size = tuple(max(1, extent // step) for extent in image.shape[::-1])
    steep = _steepness(cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32))
    squares = []
    for _ in range(3):
        if steep.max() <= 0:
            break
        row, column = np.unravel_index(np.argmax(steep), steep.shape)
        y, x = (
            min(max(0, int(place) * step - _SQUARE // 2), max(0, extent - _SQUARE))
            for place, extent in zip((row, column), image.shape)
        )
        squares.append(np.s_[y : y + _SQUARE, x : x + _SQUARE])
        steep[y // step : (y + _SQUARE) // step + 1, x // step : (x + _SQUARE) // step + 1] = 0
    return squares


def _edge_blur(patch: np.ndarray) -> np.ndarray:
    """Squared sigma, px², at the crests of the strong edges of a patch."""
    first, second = 1.0, 2.0
    smooth = cv2.GaussianBlur(patch.astype(np.float32), (0, 0), first)
    steep, less = _steepness(smooth), _steepness(cv2.GaussianBlur(smooth, (0, 0), second))
    strong = max(float(np.percentile(steep[::2, ::2], 97)), 5 * float(np.median(steep[::2, ::2])), 1e-3)
    # The crest of an edge: beside it the ratio says nothing.
    crest = (steep >= strong) & (steep == cv2.dilate(steep, np.ones((3, 3), np.uint8)))
    crest[:4], crest[-4:], crest[:, :4], crest[:, -4:] = False, False, False, False
    ratio = np.maximum(steep[crest] / np.maximum(less[crest], 1e-9), 1.001)
    return second**2 / (ratio**2 - 1) - first**2 - _SOBEL


def _steepness(image: np.ndarray) -> np.ndarray:
    return cv2.magnitude(cv2.Sobel(image, -1, 1, 0), cv2.Sobel(image, -1, 0, 1))
