"""The radiograph that every reader returns, the bounds on its size, and the checks that all readers share."""

import io
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from projects.errors import MMXrayError

MAX_PIXELS = 100_000_000
"""Largest radiograph accepted, in pixels; a digitised 35 cm x 43 cm film at 50 um has 60 million.
Together with `MAX_FRAME_BYTES` it keeps the process that reads any file, however hostile, below 1 GiB."""
MAX_FRAME_BYTES = 256 * 2**20
"""Largest decoded frame, in bytes, and the largest PNG, JPEG or BMP file."""

Admit = Callable[[int], None]
"""Called with the bytes of a frame before it is decoded; may wait for memory."""


class ImagingError(MMXrayError, ValueError):
    """A radiograph cannot be read or windowed: one line with the file, what was expected, and the remedy."""


@dataclass
class Radiograph:
    """One radiograph in its file's own depth.

    Attributes:
        pixels: (H, W) uint8, uint16, uint32, int8, int16, int32, float16, float32 or float64. DICOM's
            rescale slope and intercept (or modality LUT) are applied, so windows are stated in those units.
        bits: significant bits that the file states, else the bits of its sample type.
        low: smallest value that `bits` can hold, in the units of `pixels`.
        high: largest such value. `low` and `high` are nan for floating-point files, which state no range.
        invert: whether the file shows its smallest value as white (DICOM MONOCHROME1, TIFF WhiteIsZero).
            `pixels` keep the file's values; `apply_window` inverts after windowing, as DICOM prescribes.
        voi: the window that the file states (DICOM VOI): ('linear', low, high), ('sigmoid', center, width),
            ('table', first input, values in 0..1), or ('wrong', the reason); None without a window.
        meta: 'file' (name used in errors), 'format', 'frame' and 'frames' (how many the file holds); where
            the file states the pixel pitch, 'spacing' (mm per px along x and along y) and 'spacing_from'
            (the attribute that states it).
    """

    pixels: np.ndarray
    bits: int
    low: float
    high: float
    invert: bool = False
    voi: tuple[Any, ...] | None = None
    meta: dict[str, Any] = field(default_factory=dict)


def of_container(pixels: np.ndarray, name: str, fmt: str) -> Radiograph:
    """Return a radiograph whose file states no range: the range of its type counts.

    Args:
        pixels: (H, W), integers.
        name: name of the file in errors.
        fmt: 'PNG', 'JPEG' or 'BMP'.
    """
    info = np.iinfo(pixels.dtype)
    meta = dict(file=name, format=fmt, frame=0, frames=1)
    return Radiograph(pixels, info.bits, float(info.min), float(info.max), meta=meta)


def range_of(bits: int, signed: bool) -> tuple[float, float]:
    """Return the smallest and the largest integer of a number of bits."""
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)


def check_size(height: int, width: int, frame_bytes: int, name: str, admit: Admit | None = None) -> None:
    """Refuse absurd dimensions before anything is allocated; wait for memory for other images.

    Raises:
        ImagingError: no pixel, or more pixels or bytes than the bounds.
    """
    if not (height > 0 and width > 0 and height * width <= MAX_PIXELS and frame_bytes <= MAX_FRAME_BYTES):
        raise ImagingError(
            f'{name}: expected 1 to {MAX_PIXELS} pixels and at most {MAX_FRAME_BYTES >> 20} MiB, found '
            f'{width} x {height}; digitise it at a coarser pitch, or cut it up in the program that wrote it'
        )
    if admit:
        admit(frame_bytes)


def check_frame(frame: int, frames: int, name: str) -> None:
    """Refuse a frame number that the file does not hold.

    Raises:
        ImagingError: the number is not in 0..frames - 1.
    """
    if not 0 <= frame < frames:
        raise ImagingError(f'{name}: expected a frame in 0..{frames - 1}, asked for {frame}; change `frame`')


def check_finite(pixels: np.ndarray, name: str) -> None:
    """Refuse floating-point pixels that are not finite.

    Raises:
        ImagingError: nan or infinite pixels.
    """
    bad = pixels.size - int(np.isfinite(pixels).sum())
    if bad:
        raise ImagingError(
            f'{name}: expected finite values, found {bad} nan or infinite pixels; interpolate the dead pixels'
        )


def read_all(stream: BinaryIO, name: str) -> bytes:
    """Return the whole content of a single-image file.

    Raises:
        ImagingError: the file is larger than `MAX_FRAME_BYTES`.
    """
    # `read(MAX_FRAME_BYTES)` would allocate all of these bytes, so the size is checked instead.
    size = stream.seek(0, os.SEEK_END)
    if size > MAX_FRAME_BYTES:
        raise ImagingError(
            f'{name}: expected at most {MAX_FRAME_BYTES >> 20} MiB; cut it up in the program that wrote it'
        )
    stream.seek(0, io.SEEK_SET)
    return stream.read()


def to_gray(image: np.ndarray | None, name: str) -> np.ndarray:
    """Return the one gray plane of an image.

    Args:
        image: (H, W) or (H, W, 1 to 4) in any byte order; of 2 or 4 channels, the last is the opacity. None
            where a decoder gave up.
        name: name of the file in errors.

    Returns:
        (H, W) in native byte order.

    Raises:
        ImagingError: colour channels that differ, transparency, or another shape.
    """
    if image is None:
        raise ImagingError(f'{name}: expected an intact image, the decoder gave up; export it again')
    image = image.astype(image.dtype.newbyteorder('='), copy=False)
    if image.ndim == 2:
        return image
    if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4):
        raise ImagingError(
            f'{name}: expected one plane of pixels, found shape {image.shape}; export single images'
        )
    channels = image.shape[2]
    if channels in (2, 4) and not (image[..., -1] == _largest(image.dtype)).all():
        raise ImagingError(f'{name}: expected no transparency; export it without an alpha channel')
    gray = np.ascontiguousarray(image[..., 0])
    if channels > 2 and not all(np.array_equal(gray, image[..., c]) for c in (1, 2)):
        raise ImagingError(
            f'{name}: expected a gray radiograph, found a colour image; export the detector image, not a '
            'screenshot or an overlay'
        )
    return gray


def to_one_channel(image: np.ndarray, name: str) -> np.ndarray:
    """Return the one plane of an image whose channels each hold gray levels, such as two energies.

    Args:
        image: (H, W, C) in any byte order.
        name: name of the file in errors.

    Returns:
        (H, W) in native byte order.

    Raises:
        ImagingError: a channel that neither equals the first nor is at its largest value everywhere.
    """
    image = image.astype(image.dtype.newbyteorder('='), copy=False)
    gray = np.ascontiguousarray(image[..., 0])
    for channel in np.moveaxis(image, -1, 0)[1:]:
        if not (np.array_equal(channel, gray) or (channel == _largest(image.dtype)).all()):
            raise ImagingError(
                f'{name}: expected one gray channel, found {image.shape[-1]} that differ, perhaps of several '
                'energies; export each as a file of its own'
            )
    return gray


def _largest(dtype: np.dtype) -> int:
    return int(np.iinfo(dtype).max) if dtype.kind in 'iu' else 1


def stated(pixels: np.ndarray, bits: int, invert: bool, meta: dict[str, Any]) -> Radiograph:
    """Return a radiograph whose file states its bits; floating-point pixels are checked and have no range.

    Raises:
        ImagingError: nan or infinite pixels.
    """
    if pixels.dtype.kind == 'f':
        check_finite(pixels, meta['file'])
        return Radiograph(pixels, pixels.dtype.itemsize * 8, math.nan, math.nan, invert, meta=meta)
    low, high = range_of(bits, pixels.dtype.kind == 'i')
    return Radiograph(pixels, bits, low, high, invert, meta=meta)
