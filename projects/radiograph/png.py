"""PNG: checksums first, then gray through kornia-rs, which is faster, and other kinds through OpenCV."""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import cv2
import imagecodecs
import numpy as np
from kornia_rs.io import decode_image_png_u8, decode_image_png_u16

from .image import Admit, ImagingError, Radiograph, check_frame, check_size, of_container, read_all, to_gray
from .orientation import check_exif

SIGNATURE = b'\x89PNG\r\n\x1a\n'
_EXIF_AS_TEXT = b'Raw profile type exif\0'  # ImageMagick's, before PNG had a chunk for EXIF
_XMP = b'XML:com.adobe.xmp\0'
_MAX_TEXT = 2**20  # bytes of an inflated text chunk


def read_png(stream: BinaryIO, frame: int, name: str, admit: Admit) -> Radiograph:
    """Read a PNG of 1 to 16 bits.

    The CRC of every chunk is checked first. OpenCV's decoder accepts a wrong CRC. kornia-rs's decoder ignores
    the Adler-32 within the compressed stream, which the CRCs cover. A PNG with fewer significant bits than
    its 8 or 16 (chunk sBIT) holds them left-justified (PNG specification, section 12.4). So its range is the
    container's, and `bits` stays 8 or 16.

    Animated PNG is refused: OpenCV returns only its first frame, and crashes on damaged files. Transparency
    by a chunk (tRNS) is refused too, since OpenCV drops it from gray images.

    Raises:
        ImagingError: a damaged or truncated file, colour, transparency, animation or an orientation.
    """
    check_frame(frame, 1, name)
    data = read_all(stream, name)
    chunks = list(_chunks(data, name))
    kinds = [kind for kind, _ in chunks]
    if kinds[0] != b'IHDR' or b'IDAT' not in kinds:
        raise ImagingError(f'{name}: expected a PNG with header and image data; export it again')
    if not {b'acTL', b'fcTL', b'fdAT'}.isdisjoint(kinds):
        raise ImagingError(f'{name}: expected one image, found an animated PNG; export single images')
    if b'tRNS' in kinds:
        raise ImagingError(f'{name}: expected no transparency; export it without transparent values')
    _check_upright(chunks, name)
    width, height, depth, colour, _, _, interlaced = struct.unpack_from('>IIBBBBB', data, 16)
    channels = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}.get(colour, 4)
    check_size(height, width, height * width * channels * (2 if depth == 16 else 1), name, admit)
    image: np.ndarray | None
    if colour == 0 and depth >= 8 and not interlaced:
        decode = decode_image_png_u8 if depth == 8 else decode_image_png_u16
        image = np.asarray(decode(data, (height, width), 'mono'))
    else:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return of_container(to_gray(image, name), name, 'PNG')


def _chunks(data: bytes, name: str) -> Iterator[tuple[bytes, memoryview]]:
    """Yield kind and body of each chunk up to IEND, after comparing its checksum."""
    view, at, kind = memoryview(data), len(SIGNATURE), b''
    while kind != b'IEND':
        length = struct.unpack_from('>I', data, at)[0] if at + 12 <= len(data) else len(data)
        end = at + 8 + length
        if end + 4 > len(data):
            raise ImagingError(
                f'{name}: expected a complete PNG, found a truncated one; copy or export it again'
            )
        checksum = imagecodecs.zlibng_crc32(view[at + 4 : end])  # type: ignore[arg-type]  # any buffer
        if checksum != struct.unpack_from('>I', data, end)[0]:
            raise ImagingError(
                f'{name}: expected an intact PNG, found a wrong checksum at byte {at}; copy it again'
            )
        kind = data[at + 4 : at + 8]
        yield kind, view[at + 8 : end]
        at = end + 4


def _check_upright(chunks: list[tuple[bytes, memoryview]], name: str) -> None:
    """Refuse an orientation in the eXIf chunk, or in EXIF or XMP within text chunks."""
    exif = xmp = None
    for kind, body in chunks:
        if kind == b'eXIf':
            exif = bytes(body)
        elif kind in (b'tEXt', b'zTXt') and bytes(body[: len(_EXIF_AS_TEXT)]) == _EXIF_AS_TEXT and not exif:
            exif = _exif_of_text(bytes(body[len(_EXIF_AS_TEXT) :]), kind == b'zTXt')
        elif kind == b'iTXt' and bytes(body[: len(_XMP)]) == _XMP:
            packed, text = body[len(_XMP)], bytes(body[len(_XMP) + 2 :]).split(b'\0', 2)[-1]
            xmp = _inflate(text) if packed else text
    check_exif(exif, xmp, name)


def _exif_of_text(text: bytes, packed: bool) -> bytes | None:
    """Return the EXIF block of a raw profile (name, length, hexadecimal digits); None for another profile."""
    words = (_inflate(text[1:]) if packed else text).split()
    try:
        return bytes.fromhex(b''.join(words[2:]).decode('ascii')) if words[:1] == [b'exif'] else None
    except ValueError:
        return None


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MAX_TEXT)
    except zlib.error:
        return b''
