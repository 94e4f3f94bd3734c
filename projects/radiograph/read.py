"""Reading a radiograph of any format in its own depth: the content decides which reader is used.

This package imports no framework, so that training, tests, checks and the deployed runtime share it.
"""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from projects.errors import one_line

from . import bmp, dicom, jpeg, png, tiff
from .image import Admit, ImagingError, Radiograph

Reader = Callable[[BinaryIO, int, str, Admit], Radiograph]


def read(
    source: str | Path | bytes,
    frame: int | None = None,
    name: str | None = None,
    admit: Admit | None = None,
) -> Radiograph:
    """Read one frame of a radiograph in the file's own depth.

    PNG of 1 to 16 bit; TIFF of any integer depth up to 32 bit and float, in strips or tiles, any byte order,
    BigTIFF, every compression that imagecodecs knows; DICOM and DICONDE, native, RLE, JPEG, JPEG lossless,
    JPEG-LS, JPEG 2000; 8-bit JPEG and BMP. Colour files are accepted where R = G = B everywhere.

    Args:
        source: file path, or the file's whole content.
        frame: number of the page (TIFF) or frame (DICOM), from 0. None reads the first, with a warning if the
            file holds more.
        name: name of the file in errors; the path by default.
        admit: called once with the size of the frame in bytes, before decoding; may wait for memory.

    Returns:
        The radiograph. Its pixels may be read-only.

    Raises:
        ImagingError: the file is missing, damaged, in colour, too large, has an orientation tag, or is of an
            unknown format.
    """
    if isinstance(source, bytes):
        name = name or f'<{len(source)} bytes>'
        stream: BinaryIO = io.BytesIO(source)
    else:
        name = name or str(source)
        try:
            stream = Path(source).open('rb')  # noqa: SIM115 - closed below
        except (OSError, ValueError) as error:
            raise ImagingError(
                f'{name}: expected a readable file ({getattr(error, "strerror", None) or error}); '
                'check the path and its permissions'
            ) from None
    with stream:
        try:
            head = stream.read(132)
            stream.seek(0)
            reader = _reader_of(head, name)
            radiograph = reader(stream, frame or 0, name, admit or (lambda size: None))
        except ImagingError:
            raise
        # Decoders may raise any type on damaged data (struct.error, KeyError, RecursionError, …).
        except Exception as error:
            raise ImagingError(
                f'{name}: expected an intact radiograph ({one_line(error)}); export it again or leave it out'
            ) from None
    frames = radiograph.meta['frames']
    if frame is None and frames > 1:
        warnings.warn(
            f'{name}: holds {frames} frames, only the first is read; name one with `frame`', stacklevel=2
        )
    return radiograph


def _reader_of(head: bytes, name: str) -> Reader:
    """Return the reader for a file that begins with `head` (up to 132 bytes)."""
    if not head:
        raise ImagingError(f'{name}: expected a radiograph, found an empty file; copy or export it again')
    # DICOM first: its preamble may hold another format's header (PS3.10, 7.1); scanners put TIFF's there.
    if head[128:132] == b'DICM':
        return dicom.read_dicom
    if head.startswith(png.SIGNATURE):
        return png.read_png
    # Classic and BigTIFF, little and big endian.
    if head[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
        return tiff.read_tiff
    if head.startswith(b'\xff\xd8\xff'):
        return jpeg.read_jpeg
    if head.startswith(b'BM'):
        return bmp.read_bmp
    raise ImagingError(
        f'{name}: expected PNG, TIFF, DICOM (with preamble), JPEG or BMP content, found none of them; '
        'check that the file is a radiograph and export it again'
    )
