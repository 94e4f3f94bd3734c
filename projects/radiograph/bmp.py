"""Uncompressed BMP of 8 bits per channel, through OpenCV."""

import struct
from typing import BinaryIO

import cv2
import numpy as np

from .image import Admit, ImagingError, Radiograph, check_frame, check_size, of_container, read_all, to_gray

_COMPRESSIONS = {1: '8-bit run lengths', 2: '4-bit run lengths', 3: 'bit fields', 4: 'JPEG', 5: 'PNG'}


def read_bmp(stream: BinaryIO, frame: int, name: str, admit: Admit) -> Radiograph:
    """Read an uncompressed Windows bitmap: 8 bits with a palette of grays, or 24 or 32 bits per pixel.

    An uncompressed bitmap does not use the fourth byte of 32-bit pixels, whatever its value.

    Raises:
        ImagingError: another kind of bitmap, a truncated bitmap, or colour.
    """
    check_frame(frame, 1, name)
    data = read_all(stream, name)
    offset, header = struct.unpack_from('<II', data, 10)
    if header < 40:
        raise ImagingError(f'{name}: expected a Windows bitmap, found an OS/2 bitmap; save it as PNG')
    width, height, _, depth, compression = struct.unpack_from('<iiHHI', data, 18)
    height = abs(height)
    if compression or depth not in (8, 24, 32):
        kind = f'{depth} bits per pixel'
        if compression:
            kind += f' in {_COMPRESSIONS.get(compression, f"compression {compression}")}'
        raise ImagingError(f'{name}: expected an uncompressed 8-bit BMP, found {kind}; save it as PNG')
    check_size(height, width, 4 * height * width, name, admit)
    row = (width * depth + 31) // 32 * 4
    if offset + row * height > len(data):
        raise ImagingError(f'{name}: expected a complete BMP, found a truncated one; copy or export it again')
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is not None and depth == 32:
        image = image[..., :3]
    return of_container(to_gray(image, name), name, 'BMP')
