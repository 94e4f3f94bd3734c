"""JPEG, JPEG-LS and JPEG 2000 codestreams: header, end, and strict decoding.

Decoders are lenient on damaged JPEG: libjpeg fills missing data with one gray and only warns. OpenCV, Pillow
and imagecodecs do not pass the warning on. simplejpeg raises it, for 8 bits, baseline and progressive.
"""

import re
import struct
from collections import defaultdict
from typing import NamedTuple

import imagecodecs
import numpy as np
import simplejpeg

from projects.errors import MMXrayError

MAX_SCANS = 64
"""Maximum number of scans of a JPEG; a file with thousands takes minutes to decode."""
JPEG_LS, JPEG_2000 = 0xF7, 0x51
_END = b'\xff\xd9'
_EXIF, _XMP = b'Exif\0\0', b'http://ns.adobe.com/xap/1.0/\0'
# In entropy-coded data FF 00 to FF 7F is a stuffed FF, FF D0 to FF D7 a restart (T.81, B.1.1.5; T.87, D.1).
_MARKER = re.compile(rb'\xff[\x80-\xcf\xd8-\xfe]')


class CodestreamError(MMXrayError, ValueError):
    """A codestream is truncated, damaged or of an unsupported kind; the text has no file name."""


class Codestream(NamedTuple):
    """The content of a codestream's marker segments.

    Attributes:
        process: code of the frame header, such as 0xC0 for baseline JPEG; 0x51 for JPEG 2000.
        bits: precision of a sample.
        shape: height, width and components.
        end: position in the data behind the end marker.
        exif: content of the first EXIF segment, without its name.
        xmp: content of the first XMP segment, without its name.
    """

    process: int
    bits: int
    shape: tuple[int, int, int]
    end: int
    exif: bytes | None = None
    xmp: bytes | None = None

    @property
    def is_strict(self) -> bool:
        """Whether `decode` notices missing data in a JPEG."""
        return self.process in (0xC0, 0xC1, 0xC2) and self.bits == 8


def parse(data: bytes) -> Codestream:
    """Read the marker segments of a codestream up to its end marker.

    Args:
        data: the codestream; other data may follow it.

    Raises:
        CodestreamError: there is no frame header or no end marker, a progressive JPEG lacks scans, or there
            are more than `MAX_SCANS`.
    """
    try:
        return _parse_jpeg_2000(data) if data[:4] == b'\xff\x4f\xff\x51' else _parse_jpeg(data)
    except struct.error:
        raise CodestreamError('the compressed data is truncated') from None


def _parse_jpeg_2000(data: bytes) -> Codestream:
    """ISO/IEC 15444-1, A.4 and A.5.1: SIZ, then tile parts that state their length, then the end marker."""
    # Xsiz, Ysiz, XOsiz, YOsiz, four fields of the tiles, Csiz, depth and sign of the first component.
    width, height, x0, y0 = struct.unpack_from('>IIII', data, 8)
    components, depth = struct.unpack_from('>HB', data, 40)
    at = 2
    while (marker := struct.unpack_from('>H', data, at)[0]) != 0xFFD9:
        (length,) = struct.unpack_from('>H', data, at + 2)
        if marker == 0xFF90:  # SOT: a tile part that states no length is the last
            (part,) = struct.unpack_from('>I', data, at + 6)
            following = at + part if part else data.rfind(_END)
        else:
            following = at + 2 + length
        if following <= at or marker < 0xFF00:
            raise CodestreamError('the compressed data is damaged or truncated')
        at = following
    return Codestream(JPEG_2000, (depth & 0x7F) + 1, (height - y0, width - x0, components), at + 2)


def _parse_jpeg(data: bytes) -> Codestream:
    """ITU-T T.81, annex B, and T.87, annex C: segments, scans of entropy-coded data, the end marker."""
    at, frame = 2, None
    scans: list[bytes] = []
    named: dict[bytes, bytes] = {}
    while True:
        found = _MARKER.search(data, at)
        if found is None:
            raise CodestreamError('the compressed data is truncated')
        if found.start() != at and not (scans or set(data[at : found.start()]) <= {0xFF}):
            raise CodestreamError('no frame header in the compressed data')
        at, marker = found.end(), data[found.end() - 1]
        if marker == 0xD9:
            break
        if marker == 0xD8:
            raise CodestreamError('another image begins within the compressed data')
        (length,) = struct.unpack_from('>H', data, at)
        body = data[at + 2 : at + length]
        at += length
        # SOF0 to SOF15 without DHT, JPG and DAC, and JPEG-LS's SOF55.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) or marker == JPEG_LS:
            frame = (marker, *struct.unpack_from('>BHHB', body))
        elif marker == 0xDA:
            scans.append(body)
            if len(scans) > MAX_SCANS:
                raise CodestreamError(f'more than {MAX_SCANS} scans; save it as baseline JPEG or PNG')
        elif marker == 0xE1:
            for name in (_EXIF, _XMP):
                if body.startswith(name):
                    named.setdefault(name, body[len(name) :])
    if frame is None or not scans:
        raise CodestreamError('no frame header or no scan in the compressed data')
    process, bits, height, width, components = frame
    if process in (0xC0, 0xC1, 0xC2):
        _check_scans(scans, components, progressive=process == 0xC2)
    shape = height, width, components
    return Codestream(process, bits, shape, at, named.get(_EXIF), named.get(_XMP))


def _check_scans(scans: list[bytes], components: int, progressive: bool) -> None:
    """Make sure that the scans hold every coefficient of every component to its last bit (T.81, G.1.1.1).

    A decoder does not warn of missing scans: without the last scans, the image is only less sharp.
    """
    left: dict[tuple[int, int], int] = defaultdict(lambda: 16)
    seen = set()
    for body in scans:
        count = body[0] if body else 0
        if len(body) < 4 + 2 * count:
            raise CodestreamError('the header of a scan is truncated')
        # Some encoders leave these three at 0 in a sequential JPEG, where each has only one legal value.
        first, last, approximation = body[1 + 2 * count : 4 + 2 * count] if progressive else (0, 63, 0)
        for component in body[1 : 1 + 2 * count : 2]:
            seen.add(component)
            for k in range(first, min(last, 63) + 1):
                left[component, k] = min(left[component, k], approximation & 15)
    if len(seen) != components or any(left[component, k] for component in seen for k in range(64)):
        raise CodestreamError('the compressed data is truncated: scans are missing')


def unwrap(data: bytes) -> bytes:
    """Return the codestream of a JP2 file (ISO/IEC 15444-1, annex I), as some scanners put it into DICOM.

    Args:
        data: a JP2 file, or any codestream; a codestream is returned unchanged.

    Raises:
        CodestreamError: a JP2 file without a codestream, or with a palette.
    """
    if data[4:8] != b'jP  ':
        return data
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from('>I4s', data, at)
        if kind == b'jp2c':
            return data[at + 8 :]
        if kind == b'jp2h' and b'pclr' in data[at : at + length]:
            raise CodestreamError('a palette in the compressed data')
        if length < 8:  # up to the end of the file, or a 64-bit length, which only a codestream can need
            break
        at += length
    raise CodestreamError('no codestream in the compressed data')


def check_padding(data: bytes, stream: Codestream) -> None:
    """Refuse data other than padding behind an end marker.

    Encoders pad frames to even length by 00, FF or a blank. Behind an end marker in the middle of an image, a
    lenient decoder ignores the rest. For such a decoder, only one repeated value and then zeros may follow.

    Raises:
        CodestreamError: another image follows, or other data where the decoder is lenient.
    """
    rest = data[stream.end :]
    lenient = not stream.is_strict and stream.process not in (JPEG_LS, JPEG_2000)
    if lenient and len(set(rest.rstrip(b'\0'))) > 1 or b'\xff\xd8\xff' in rest or b'\xff\x4f\xff\x51' in rest:
        raise CodestreamError(f'{len(rest)} bytes follow the end marker of the compressed data')


def decode(data: bytes, stream: Codestream) -> np.ndarray:
    """Decode a codestream as strictly as its decoder allows.

    Args:
        data: the codestream; data behind the end marker is ignored.
        stream: the result of `parse`.

    Returns:
        (H, W) or (H, W, 3) uint8, uint16 or the type that JPEG 2000 states.

    Raises:
        CodestreamError: four components of 8-bit JPEG, which are colours for print.
        ValueError, RuntimeError: the decoder finds damaged data.
    """
    if stream.is_strict:
        components = stream.shape[2]
        if components not in (1, 3):
            raise CodestreamError(f'{components} components, expected gray or RGB')
        image = simplejpeg.decode_jpeg(data, 'GRAY' if components == 1 else 'RGB', strict=True)
        gray: np.ndarray = image[..., 0] if components == 1 else image
        return gray
    if stream.process == JPEG_2000:
        return imagecodecs.jpeg2k_decode(data)
    if stream.process == JPEG_LS:
        return imagecodecs.jpegls_decode(data)
    return imagecodecs.jpeg8_decode(data)
