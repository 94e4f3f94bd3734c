"""The recipe of a store: the window and size of its pixels, applied between file and array."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from .image import ImagingError, Radiograph
from .window import apply_window, check_window


class StoreError(ImagingError):
    """A store cannot be written or read: one line with the file, what was expected, and the remedy."""


@dataclass(frozen=True)
class Recipe:
    """Window, size and depth of the pixels of a store.

    Attributes:
        size: px of the shorter side after shrinking; smaller images stay, 0 keeps the native size.
        bits: 8 (uint8, white at 255) or 16 (uint16, white at 65535).
        window: see `window.apply_window`.
    """

    size: int = 512
    bits: int = 8
    window: dict[str, Any] = field(default_factory=lambda: dict(type='full'))

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ImagingError: A value is out of range.
        """
        check_window(self.window)
        # A plain dict without defaults, so that windows from config, command line and store compare equal.
        window = {key: value for key, value in self.window.items() if (key, value) != ('log', False)}
        object.__setattr__(self, 'window', window)
        if self.bits not in (8, 16) or self.size < 0:
            raise StoreError(
                f'size {self.size}, bits {self.bits}: expected a size of at least 0 and 8 or 16 bits'
            )

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)


def prepare(radiograph: Radiograph, window: dict[str, Any], dtype: str, size: int = 0) -> np.ndarray:
    """Window a radiograph and shrink it, for a store, and for `LoadXray` without a store.

    Args:
        radiograph: the result of `read.read`.
        window: see `window.apply_window`.
        dtype: 'uint8' (white at 255), 'uint16' (white at 65535) or 'float32' (white at 255).
        size: px of the shorter side afterwards, antialiased; smaller images stay, 0 keeps all.

    Returns:
        (H, W) of `dtype`, rounded once.

    Raises:
        ImagingError: a wrong window or type, or a window that does not apply to this file.
    """
    if dtype not in ('uint8', 'uint16', 'float32'):
        raise ImagingError(f'dtype {dtype!r}: expected uint8, uint16 or float32')
    height, width = radiograph.pixels.shape
    shrink = 0 < size < min(height, width)
    if dtype != 'uint16' and not shrink:
        return apply_window(radiograph, window, dtype)
    image = apply_window(radiograph, window, 'float32')
    if shrink:
        scale = size / min(height, width)
        # Pillow's bilinear filter widens with the scale: that is the antialiasing.
        image = np.asarray(
            Image.fromarray(image).resize(
                (round(width * scale), round(height * scale)), Image.Resampling.BILINEAR
            )
        )
    if dtype == 'float32':
        return image
    # 65535 / 257 = 255
    return np.round(image if dtype == 'uint8' else image * 257).astype(dtype)
