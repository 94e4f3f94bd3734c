"""The physics of a generated radiograph: spectrum, attenuation, scatter, unsharpness, noise.

A part is a stack of outlines (plates, ribs, bosses, holes) in millimetres; a view projects it along a tilted,
slightly diverging beam into a map of path lengths; Beer-Lambert, scatter, unsharpness and noise make the
radiograph. Defects change the path length, so that their boxes come from what they change.
Only NumPy and OpenCV are used. The same seed gives the same bytes on the same machine, whatever the order
in which images are drawn.

Lengths are mm in the part, thickness maps are float32 mm, signals are quanta per pixel. `PITCH`, the size of
a pixel in the part, is constant: a smaller `size` looks at a smaller part, and defects keep their size in
pixels. Material data: NIST XCOM (mass attenuation times density).
"""

from typing import NamedTuple

import cv2
import numpy as np

PITCH = 0.125


class Spectrum(NamedTuple):
    """Energy bins of one exposure: attenuation (1/mm) and the share of the detected quanta without a part."""

    mu: tuple
    weight: tuple


def _spectrum(mu_per_cm, emitted, detected):
    weight = np.multiply(emitted, detected)
    return Spectrum(tuple(np.divide(mu_per_cm, 10)), tuple(weight / weight.sum()))


# Emitted: a filtered tube spectrum (Kramers) in a few bins. Detected: the absorbed share in 1 mm of CsI.
SPECTRA = {
    # 40, 50, 60, 80 keV: a 90 kV tube on aluminium
    'aluminium': _spectrum((1.534, 0.994, 0.750, 0.545), (0.14, 0.28, 0.34, 0.24), (1.0, 0.99, 0.97, 0.81)),
    # 100, 150, 200 keV: a 225 kV tube with a copper filter on iron
    'iron': _spectrum((2.927, 1.546, 1.150), (0.25, 0.45, 0.30), (0.60, 0.30, 0.18)),
}


def transmission(thickness: np.ndarray, spectrum: Spectrum) -> np.ndarray:
    """Share of the detected quanta that pass unscattered: sum over bins of w·exp(-mu·t) (Beer-Lambert).

    One bin of weight 1 is the mono-energetic case; several harden the beam: -log T grows slower than t.

    Args:
        thickness: Path length in mm, any shape.
        spectrum: Bins; the weights include the detector's response and sum to 1.

    Returns:
        float32, same shape, in (0, 1].
    """
    thickness = np.asarray(thickness, np.float32)
    total = np.zeros_like(thickness)
    for mu, weight in zip(*spectrum):
        total += np.float32(weight) * np.exp(np.float32(-mu) * thickness)
    return total


def ellipsoid_chord(shape: tuple, centre: tuple, axes: tuple, angle: float = 0.0) -> np.ndarray:
    """Path of parallel rays through an ellipsoid: d = 2c·sqrt(1 - x²/a² - y²/b²), 0 outside.

    Args:
        shape: Rows, columns of the map.
        centre: x, y in pixels.
        axes: Half axes a, b in pixels (in the plane) and c along the beam, in the unit wanted back.
        angle: Rotation of a against x, radians.

    Returns:
        float32 (H, W), in the unit of c.
    """
    x = np.arange(shape[1], dtype=np.float32)[None] - centre[0]
    y = np.arange(shape[0], dtype=np.float32)[:, None] - centre[1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    inside = 1 - (along / axes[0]) ** 2 - (across / axes[1]) ** 2
    return (2 * axes[2] * np.sqrt(np.maximum(inside, 0))).astype(np.float32)


def geometric_blur(signal, sigma):
    """Geometric unsharpness, focal·(M - 1), as a Gaussian of `sigma` pixels."""
    return cv2.GaussianBlur(signal, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def add_scatter(signal: np.ndarray, spr: float, sigma: float) -> np.ndarray:
    """Scattered quanta: N + SPR·(G * N), the Gaussian taken at an eighth of the resolution.

    Args:
        signal: Unscattered quanta, float32 (H, W).
        spr: Scatter-to-primary ratio, 0.2-2 for castings.
        sigma: Width of the scatter kernel in pixels, 30-150.

    Returns:
        float32 (H, W); contrast falls by 1 / (1 + SPR) where the signal is flat.
    """
    height, width = signal.shape
    small = cv2.resize(signal, (max(1, width // 8), max(1, height // 8)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / 8, borderType=cv2.BORDER_REPLICATE)
    return cv2.scaleAdd(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), spr, signal)


def add_noise(
    signal: np.ndarray, rng: np.random.Generator, blur: float = 0.0, electronic: float = 0.0
) -> np.ndarray:
    """Quantum noise, the scintillator's blur of it, and the electronics' noise.

    Quanta are Poisson. Above 50 a pixel's Poisson law is drawn as the normal of the same mean and variance
    (skewness below 0.15), which is an order of magnitude faster; below, as itself.

    Args:
        signal: Expected quanta per pixel, float32 (H, W).
        rng: Source of the draw.
        blur: Sigma of the scintillator's light spread in pixels; 0 leaves the noise white.
        electronic: Standard deviation of the read-out noise in quanta.

    Returns:
        float32 (H, W), not negative before the read-out noise.
    """
    noisy = rng.standard_normal(signal.shape, np.float32)
    noisy *= cv2.sqrt(signal)
    noisy += signal
    few = signal < 50
    if few.any():
        noisy[few] = rng.poisson(signal[few])
    if blur:
        noisy = cv2.GaussianBlur(noisy, (0, 0), blur, borderType=cv2.BORDER_REFLECT_101)
    if electronic:
        noisy += np.float32(electronic) * rng.standard_normal(signal.shape, np.float32)
    return noisy


def digitise(signal, gain, offset, bits):
    """round(clip(gain·n + offset, 0, 2^bits - 1)): uint8 for 8 bits, uint16 for 12, 14 and 16."""
    levels = cv2.addWeighted(signal, gain, signal, 0, offset)
    np.rint(np.clip(levels, 0, 2**bits - 1, out=levels), out=levels)
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


def _clouds(rng, size, octaves=(4, 8, 16, 32), fall=0.6):
    """Smooth noise (size, size) of zero mean and unit deviation, each octave `fall` times the coarser one."""
    total = np.zeros((size, size), np.float32)
    for k, cells in enumerate(octaves):
        grid = rng.standard_normal((cells, cells), np.float32)
        total += np.float32(fall**k) * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    return (total - total.mean()) / (total.std() + 1e-6)
