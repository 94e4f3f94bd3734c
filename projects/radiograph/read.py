"""Reading radiographs in their own bit depth, and windowing them.

`read` decodes one frame of a PNG, TIFF, DICOM/DICONDE, JPEG or BMP file without touching its values;
`apply_window` maps them once, in that depth, to the 8-bit or float32 array that a model sees. No framework
is imported here, so that training, tests, checks and the deployed runtime share these lines.
"""

import io
import logging
import math
import os
import struct
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pydicom
import tifffile
from kornia_rs.io import decode_image_png_u8, decode_image_png_u16
from pydicom import uid
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.pixels import apply_modality_lut, get_decoder, pixel_array

SUFFIXES = ('.png', '.tif', '.tiff', '.dcm', '.dicom', '.dic', '.jpg', '.jpeg', '.bmp')
"""File suffixes of radiographs, in lower case. The content decides how a file is read, not its suffix."""

MAX_PIXELS = 100_000_000
"""Largest radiograph accepted, in pixels; a digitised 35 cm x 43 cm film at 50 um has 60 million.
Together with `MAX_FRAME_BYTES` it keeps any file, however hostile, below 1 GB of memory."""
MAX_FRAME_BYTES = 256 * 2**20
"""Largest decoded frame, in bytes, and the largest PNG, JPEG or BMP file."""
MAX_PAGES = 10_000
"""Most pages of a TIFF; what follows a chain of millions, or a circle, takes minutes."""

# Both libraries log what they then raise, with a traceback; here it becomes one `ImagingError`.
logging.getLogger('pydicom').setLevel(logging.CRITICAL)
logging.getLogger('tifffile').setLevel(logging.CRITICAL)


class ImagingError(ValueError):
    """A radiograph cannot be read or windowed: one line with the file, what was expected, and the remedy."""


@dataclass
class Radiograph:
    """One radiograph in its file's own depth.

    Attributes:
        pixels: (H, W) uint8, uint16, uint32, int8, int16, int32, float16, float32 or float64. DICOM's
            rescale slope and intercept (or modality LUT) are applied, so windows are stated in those units.
        bits: significant bits that the file states, else those of its sample type.
        low: smallest value that `bits` can hold, in the units of `pixels`.
        high: largest such value. `low` and `high` are nan for floating-point files, which state no range.
        invert: the file says that its smallest value is shown white (DICOM MONOCHROME1, TIFF WhiteIsZero).
            `pixels` keep the file's values; `apply_window` inverts after windowing, as DICOM prescribes.
        voi: the window that the file states (DICOM VOI): ('linear', low, high), ('sigmoid', center, width),
            ('table', first input, values in 0..1), or ('wrong', what is wrong with it); None without one.
        meta: 'file' (name used in errors), 'format', 'frame' and 'frames' (how many the file holds).
    """

    pixels: np.ndarray
    bits: int
    low: float
    high: float
    invert: bool = False
    voi: tuple | None = None
    meta: dict = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------- listing


def files_below(folder: str | Path, dangling: bool = False) -> list[str]:
    """Files of a folder, recursive and through links; what is neither file nor folder is not there.

    Args:
        folder: where to look.
        dangling: also list links whose target is not there.

    Returns:
        Paths relative to the folder, with forward slashes, sorted; none where there is no such folder.

    Raises:
        ImagingError: a folder below it cannot be listed.
    """
    names, waiting = [], [('', frozenset())]
    while waiting:
        inner, above = waiting.pop()
        place = f'{folder}/{inner}'
        real = os.path.realpath(place)
        if real in above:
            continue  # a link to a folder that holds it would be followed without end
        try:
            entries = list(os.scandir(place))
        except OSError as error:
            if not inner:
                return []
            raise ImagingError(
                f'{place}: expected a readable folder ({error.strerror}); check its permissions'
            ) from None
        for entry in entries:
            name = f'{inner}{entry.name}'
            if entry.is_dir():
                waiting.append((f'{name}/', above | {real}))
            elif entry.is_file() or dangling and entry.is_symlink() and not Path(entry.path).exists():
                names.append(name)
    return sorted(names)


def is_radiograph(path: str | Path) -> bool:
    """Whether a local file passes for a radiograph: by its suffix, or as DICOM without one."""
    if is_companion(path):
        return False
    suffix = Path(path).suffix.lower()
    if suffix in SUFFIXES or not may_be_dicom(suffix):
        return suffix in SUFFIXES
    try:
        with Path(path).open('rb') as stream:
            return stream.read(132)[128:] == b'DICM'
    except OSError:
        return False


def is_companion(path: str | Path) -> bool:
    """Whether a file is none by its name: the index of a DICOM medium, or what macOS keeps beside a file."""
    name = Path(path).name
    return name.upper() == 'DICOMDIR' or name.startswith('._')


def may_be_dicom(suffix: str) -> bool:
    """Whether files with this suffix are looked into: archives name theirs by UID, or by a number."""
    return suffix[1:].isdecimal() or not suffix


# ---------------------------------------------------------------------------------------------- reading


def read(
    source: str | Path | bytes,
    frame: int | None = None,
    name: str | None = None,
    admit: Callable[[int], None] | None = None,
) -> Radiograph:
    """Read one frame of a radiograph in the file's own depth.

    PNG of 1 to 16 bit; TIFF of any integer depth up to 32 bit and float, in strips or tiles, any byte order,
    BigTIFF, every compression that imagecodecs knows; DICOM and DICONDE, native, RLE, JPEG, JPEG lossless,
    JPEG-LS, JPEG 2000; 8-bit JPEG and BMP. Colour files are accepted where R = G = B everywhere.

    Args:
        source: file path, or the file's whole content.
        frame: which page (TIFF) or frame (DICOM), from 0. None reads the first, with a warning if there
            are more.
        name: what errors call the file; the path by default.
        admit: called once, with the bytes of the frame, before it is decoded; may wait for memory.

    Returns:
        The radiograph. Its pixels may be read-only.

    Raises:
        ImagingError: the file is missing, damaged, in colour, too large, or of an unknown format.
    """
    if isinstance(source, bytes):
        name = name or f'<{len(source)} bytes>'
        stream: io.BufferedIOBase = io.BytesIO(source)
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
        # What the decoders raise on damaged data is open-ended (struct.error, KeyError, RecursionError, …).
        except Exception as error:
            reason = ' '.join(str(error).split())[:200] or type(error).__name__
            raise ImagingError(
                f'{name}: expected an intact radiograph ({reason}); export it again or leave it out'
            ) from None
    frames = radiograph.meta['frames']
    if frame is None and frames > 1:
        warnings.warn(
            f'{name}: holds {frames} frames, only the first is read; name one with `frame`', stacklevel=2
        )
    return radiograph


def _reader_of(head: bytes, name: str) -> Callable:
    """Reader for a file that begins with `head` (up to 132 bytes)."""
    if not head:
        raise ImagingError(f'{name}: expected a radiograph, found an empty file; copy or export it again')
    if head.startswith(b'\x89PNG\r\n\x1a\n'):
        return _read_png
    # Classic and BigTIFF, little and big endian.
    if head[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
        return _read_tiff
    if head[128:132] == b'DICM':
        return _read_dicom
    if head.startswith(b'\xff\xd8\xff'):
        return _read_jpeg
    if head.startswith(b'BM'):
        return _read_bmp
    raise ImagingError(
        f'{name}: expected PNG, TIFF, DICOM (with preamble), JPEG or BMP content, found none of them; '
        'check that the file is a radiograph and export it again'
    )


def _check_size(
    height: int, width: int, frame_bytes: int, name: str, admit: Callable[[int], None] | None = None
) -> None:
    """Refuse absurd dimensions before anything is allocated, and wait until there is room for the others."""
    if not (height > 0 and width > 0 and height * width <= MAX_PIXELS and frame_bytes <= MAX_FRAME_BYTES):
        raise ImagingError(
            f'{name}: expected 1 to {MAX_PIXELS} pixels and at most {MAX_FRAME_BYTES >> 20} MiB, found '
            f'{width} x {height}; digitise it at a coarser pitch, or cut it up in the program that wrote it'
        )
    if admit:
        admit(frame_bytes)


def _check_frame(frame: int, frames: int, name: str) -> None:
    if not 0 <= frame < frames:
        raise ImagingError(f'{name}: expected a frame in 0..{frames - 1}, asked for {frame}; change `frame`')


def _to_gray(image: np.ndarray | None, name: str) -> np.ndarray:
    """(H, W), native byte order, of (H, W) or (H, W, 1 to 4) with equal colours and opaque alpha."""
    if image is None:
        raise ImagingError(f'{name}: expected an intact image, the decoder gave up; export it again')
    image = image.astype(image.dtype.newbyteorder('='), copy=False)
    if image.ndim == 2:
        return image
    if image.ndim == 3 and image.shape[2] in (1, 2, 3, 4):
        channels = image.shape[2]
        colours = image[..., : 1 if channels < 3 else 3]
        gray = np.ascontiguousarray(colours[..., 0])
        if channels in (2, 4):
            alpha = image[..., -1]
            opaque = np.iinfo(image.dtype).max if image.dtype.kind in 'iu' else 1
            if not (alpha == opaque).all():
                raise ImagingError(f'{name}: expected no transparency; export it without an alpha channel')
        if all(np.array_equal(gray, colours[..., c]) for c in range(1, colours.shape[2])):
            return gray
        raise ImagingError(
            f'{name}: expected a gray radiograph, found a colour image; export the detector image, not a '
            'screenshot or an overlay'
        )
    raise ImagingError(
        f'{name}: expected one plane of pixels, found shape {image.shape}; export single images'
    )


def _plain(pixels: np.ndarray, name: str, fmt: str, **more) -> Radiograph:
    """A radiograph whose file states no range of its own."""
    info = np.iinfo(pixels.dtype)
    meta = dict(file=name, format=fmt, frame=0, frames=1)
    return Radiograph(pixels, info.bits, float(info.min), float(info.max), meta=meta, **more)


def _read_all(stream, name: str) -> bytes:
    """The whole content of a single-image file."""
    # Asked for up to so many bytes, Python would allocate them all.
    size = stream.seek(0, os.SEEK_END)
    if size > MAX_FRAME_BYTES:
        raise ImagingError(
            f'{name}: expected at most {MAX_FRAME_BYTES >> 20} MiB; cut it up in the program that wrote it'
        )
    stream.seek(0)
    return stream.read()


def _read_png(stream, frame: int, name: str, admit: Callable[[int], None]) -> Radiograph:
    """Gray PNG through kornia-rs, two to three times as fast as OpenCV; other kinds through OpenCV.

    Every chunk's CRC is checked first: OpenCV's decoder does not fail on a wrong one, and kornia-rs's does
    not look at the Adler-32 within the compressed stream, which the CRCs cover. A PNG with fewer significant
    bits than its 8 or 16 (chunk sBIT) holds them left-justified (PNG specification, section 12.4), so its
    range is the container's; bits stay 8 or 16.

    Animated PNG is refused: OpenCV gives its first frame for the whole, and crashes in damaged ones. So is
    transparency by a chunk (tRNS), which OpenCV leaves out of gray.
    """
    _check_frame(frame, 1, name)
    data = _read_all(stream, name)
    view, at, kinds = memoryview(data), 8, []
    while not kinds or kinds[-1] != b'IEND':
        if at + 12 > len(data):
            raise ImagingError(
                f'{name}: expected a complete PNG, found a truncated one; copy or export it again'
            )
        (length,) = struct.unpack_from('>I', data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise ImagingError(
                f'{name}: expected a complete PNG, found a truncated one; copy or export it again'
            )
        if imagecodecs.zlibng_crc32(view[at + 4 : end]) != struct.unpack_from('>I', data, end)[0]:
            raise ImagingError(
                f'{name}: expected an intact PNG, found a wrong checksum at byte {at}; copy it again'
            )
        kinds.append(data[at + 4 : at + 8])
        at = end + 4
    if kinds[0] != b'IHDR' or b'IDAT' not in kinds:
        raise ImagingError(f'{name}: expected a PNG with header and image data; export it again')
    if not {b'acTL', b'fcTL', b'fdAT'}.isdisjoint(kinds):
        raise ImagingError(f'{name}: expected one image, found an animated PNG; export single images')
    if b'tRNS' in kinds:
        raise ImagingError(f'{name}: expected no transparency; export it without transparent values')
    width, height, depth, colour, _, _, interlaced = struct.unpack_from('>IIBBBBB', data, 16)
    channels = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}.get(colour, 4)
    _check_size(height, width, height * width * channels * (2 if depth == 16 else 1), name, admit)
    if colour == 0 and depth >= 8 and not interlaced:
        decode = decode_image_png_u8 if depth == 8 else decode_image_png_u16
        image = np.asarray(decode(data, (height, width), 'mono'))
    else:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return _plain(_to_gray(image, name), name, 'PNG')


def _read_jpeg(stream, frame: int, name: str, admit: Callable[[int], None]) -> Radiograph:
    """8-bit JPEG through OpenCV."""
    _check_frame(frame, 1, name)
    data = _read_all(stream, name)
    height, width, channels = _codestream_size(data)
    _check_size(height, width, height * width * channels, name, admit)
    # libjpeg fills what a truncated file lacks with gray; thousands of scans make a file decode for minutes.
    start = data.find(b'\xff\xda')
    if start < 0 or data.rfind(b'\xff\xd9') < start:
        raise ImagingError(
            f'{name}: expected a complete JPEG, found a truncated one; copy or export it again'
        )
    if data.count(b'\xff\xda') > 64:
        raise ImagingError(f'{name}: expected at most 64 JPEG scans; save it as baseline JPEG or PNG')
    # IGNORE_ORIENTATION: an EXIF rotation would part the pixels from boxes drawn without it.
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    return _plain(_to_gray(cv2.imdecode(np.frombuffer(data, np.uint8), flags), name), name, 'JPEG')


def _read_bmp(stream, frame: int, name: str, admit: Callable[[int], None]) -> Radiograph:
    """Uncompressed BMP of 8 bits per channel through OpenCV."""
    _check_frame(frame, 1, name)
    data = _read_all(stream, name)
    (offset,) = struct.unpack_from('<I', data, 10)
    width, height, _, depth, compression = struct.unpack_from('<iiHHI', data, 18)
    height = abs(height)
    _check_size(height, width, 4 * height * width, name, admit)
    row = (width * depth + 31) // 32 * 4
    if compression != 0 or depth not in (8, 24, 32):
        raise ImagingError(f'{name}: expected an uncompressed 8-bit BMP, found another kind; save it as PNG')
    if offset + row * height > len(data):
        raise ImagingError(f'{name}: expected a complete BMP, found a truncated one; copy or export it again')
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return _plain(_to_gray(image, name), name, 'BMP')


def _read_tiff(stream, page_number: int, name: str, admit: Callable[[int], None]) -> Radiograph:
    """One page of a TIFF through tifffile and imagecodecs.

    `bits` is BitsPerSample (10, 12 and 14 occur in packed files). A 12-bit image in 16-bit samples does not
    say so: its range is the container's. MaxSampleValue does not narrow it, since many writers put each
    image's own maximum there, which would give every file another window.
    """
    frames = _count_pages(stream, name)
    _check_frame(page_number, frames, name)
    stream.seek(0)
    # What microscopes put into theirs, tifffile reads at once: all pages, whatever their number.
    with tifffile.TiffFile(stream, is_lsm=False, is_scanimage=False, is_ndpi=False) as tif:
        page = tif.pages[page_number]
        height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
        _check_size(height, width, height * width * samples * max(page.bitspersample // 8, 1), name, admit)
        if page.is_tiled:
            _check_size(page.tilelength, page.tilewidth, page.tilelength * page.tilewidth * samples, name)
        if (
            page.dtype is None
            or page.dtype.kind not in 'iuf'
            or page.dtype.itemsize > 4
            and page.dtype.kind != 'f'
        ):
            raise ImagingError(
                f'{name}: expected integers of 2 to 32 bits or floats, found '
                f'{page.dtype or "an unknown type"}; export it as 16-bit'
            )
        # tifffile fills missing and short strips with zeros.
        size = tif.filehandle.size
        segments = list(zip(page.dataoffsets, page.databytecounts))
        if len(segments) != math.prod(page.chunked) or any(
            o <= 0 or n <= 0 or o + n > size for o, n in segments
        ):
            raise ImagingError(
                f'{name}: expected a complete TIFF, found a truncated one; copy or export it again'
            )
        image = np.squeeze(page.asarray(maxworkers=1))
        photometric, colormap = page.photometric, page.colormap
        separate = page.planarconfig == 2 and samples > 1
    if image.size != height * width * samples:
        raise ImagingError(
            f'{name}: expected one plane of pixels, found shape {image.shape}; export single images'
        )
    image = image.reshape((samples, height, width) if separate else (height, width, samples))
    if separate:
        image = np.moveaxis(image, 0, -1)
    if photometric == tifffile.PHOTOMETRIC.PALETTE:
        image = np.moveaxis(colormap, 0, -1)[image[..., 0]]
    pixels = _to_gray(image, name)
    invert = photometric == tifffile.PHOTOMETRIC.MINISWHITE
    meta = dict(file=name, format='TIFF', frame=page_number, frames=frames)
    if pixels.dtype.kind == 'f':
        bits = pixels.dtype.itemsize * 8
        _check_finite(pixels, name)
        return Radiograph(pixels, bits, math.nan, math.nan, invert, meta=meta)
    bits = 16 if photometric == tifffile.PHOTOMETRIC.PALETTE else int(page.bitspersample)
    signed = pixels.dtype.kind == 'i'
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return Radiograph(pixels, bits, float(low), float(high), invert, meta=meta)


def _count_pages(stream, name: str) -> int:
    """Number of pages of a TIFF, by the chain of its directories (TIFF 6.0, section 2; BigTIFF)."""
    head = stream.read(16)
    order, big = '<' if head[:2] == b'II' else '>', b'+' in head[:4]
    offset, count = struct.Struct(order + 'IQ'[big]), struct.Struct(order + 'HQ'[big])
    (at,) = offset.unpack_from(head, 8 if big else 4)
    pages = 0
    while at:
        pages += 1
        if pages > MAX_PAGES:
            raise ImagingError(f'{name}: expected at most {MAX_PAGES} pages; export them as single files')
        try:
            stream.seek(at)
            (tags,) = count.unpack(stream.read(count.size))
            stream.seek(tags * (20 if big else 12), io.SEEK_CUR)
            (at,) = offset.unpack(stream.read(offset.size))
        except (struct.error, OSError, ValueError, OverflowError):
            break  # the pages before are whole
    if not pages:
        raise ImagingError(f'{name}: expected a TIFF with an image, found none in it; export it again')
    return pages


def _check_finite(pixels: np.ndarray, name: str) -> None:
    bad = pixels.size - int(np.isfinite(pixels).sum())
    if bad:
        raise ImagingError(
            f'{name}: expected finite values, found {bad} nan or infinite pixels; interpolate the dead pixels'
        )


# ----------------------------------------------------------------------------------------------- DICOM


def _read_dicom(stream, frame: int, name: str, admit: Callable[[int], None]) -> Radiograph:
    """One frame of a DICOM or DICONDE file through pydicom; PS3.3 sections C.7.6.3, C.11.1 and C.11.2.

    `bits` is BitsStored, whose range `full` spans; rescale and modality LUT are applied to both.
    """
    # A deflated data set is inflated whole, without a limit, before anything can be checked. Its name is in
    # the file meta, which is read as pydicom does, or the two could be made to disagree.
    read_preamble(stream, force=False)
    if _read_file_meta_info(stream).get('TransferSyntaxUID') == uid.DeflatedExplicitVRLittleEndian:
        raise ImagingError(
            f'{name}: expected a data set that is not deflated; rewrite it as explicit little endian'
        )
    stream.seek(0)
    ds = pydicom.dcmread(stream, stop_before_pixels=True)
    if ds.get('Rows') is None or ds.get('Columns') is None:
        raise ImagingError(
            f'{name}: expected a DICOM image, found one without Rows and Columns; leave it out'
        )
    height, width = int(ds.Rows), int(ds.Columns)
    samples, allocated = int(ds.get('SamplesPerPixel') or 1), int(ds.BitsAllocated)
    _check_size(height, width, height * width * samples * max(allocated // 8, 1), name, admit)
    frames = int(ds.get('NumberOfFrames') or 1)
    _check_frame(frame, frames, name)
    colours = str(ds.get('PhotometricInterpretation') or 'none')
    if colours not in ('MONOCHROME1', 'MONOCHROME2', 'RGB') and not colours.startswith('YBR'):
        raise ImagingError(
            f'{name}: expected gray levels (MONOCHROME1 or 2) or gray stored as RGB, found '
            f'PhotometricInterpretation {colours[:20]!r}; export the detector image'
        )
    syntax = ds.file_meta.TransferSyntaxUID
    if syntax.is_compressed and syntax not in _CODECS:
        raise ImagingError(
            f'{name}: expected native, RLE, JPEG, JPEG-LS or JPEG 2000 pixels, found {syntax.name}; '
            'rewrite it as explicit little endian'
        )
    plugin = 'imagecodecs' if syntax.is_compressed else ''
    stream.seek(0)
    pixels = _to_gray(pixel_array(stream, index=frame, decoding_plugin=plugin), name)
    invert = colours == 'MONOCHROME1' or ds.get('PresentationLUTShape') == 'INVERSE'
    meta = dict(file=name, format='DICOM', frame=frame, frames=frames)
    if pixels.dtype.kind == 'f':
        bits, low, high = allocated, math.nan, math.nan
    else:
        bits = int(ds.get('BitsStored') or allocated)
        if not 1 <= bits <= allocated:
            raise ImagingError(
                f'{name}: expected BitsStored in 1..{allocated}, found {bits}; correct the header'
            )
        if ds.get('HighBit') not in (None, bits - 1):
            # As the standard now demands; the decoders would cut off the upper bits of such a file.
            raise ImagingError(
                f'{name}: expected HighBit {bits - 1}, one below BitsStored, found {ds.HighBit}; rewrite the '
                'file with its values in the lower bits'
            )
        signed = pixels.dtype.kind == 'i'
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if ds.get('ModalityLUTSequence'):
        pixels = apply_modality_lut(pixels, ds)
        bits = int(ds.ModalityLUTSequence[0].LUTDescriptor[2])
        low, high = 0, 2**bits - 1
    else:
        pixels, low, high = _rescale(
            pixels, low, high, _macro(ds, 'PixelValueTransformationSequence', frame), name
        )
    if pixels.dtype.kind == 'f':
        _check_finite(pixels, name)
    try:
        voi = _voi(_macro(ds, 'FrameVOILUTSequence', frame), ds)
    except Exception as error:  # as `read`: what pydicom raises on damaged values is open-ended
        voi = 'wrong', ' '.join(str(error).split())[:200] or type(error).__name__
    return Radiograph(pixels, bits, float(low), float(high), invert, voi, meta)


def _macro(ds: pydicom.Dataset, sequence: str, frame: int) -> pydicom.Dataset:
    """The data set that holds a macro's attributes: this frame's group, the shared group, or `ds` itself."""
    for groups, index in (('PerFrameFunctionalGroupsSequence', frame), ('SharedFunctionalGroupsSequence', 0)):
        items = ds.get(groups)
        if items and index < len(items) and items[index].get(sequence):
            return items[index].get(sequence)[0]
    return ds


def _rescale(pixels: np.ndarray, low: float, high: float, macro: pydicom.Dataset, name: str) -> tuple:
    """Rescale slope and intercept, in the smallest type that keeps neighbouring codes apart."""
    slope, intercept = float(macro.get('RescaleSlope', 1)), float(macro.get('RescaleIntercept', 0))
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope):
        raise ImagingError(
            f'{name}: expected a finite rescale slope other than 0, found {slope} and {intercept}; '
            'correct the header'
        )
    if slope == 1 and intercept == 0:
        return pixels, low, high
    ends = sorted((slope * low + intercept, slope * high + intercept))
    if pixels.dtype.kind == 'f':
        dtype = pixels.dtype
    elif slope.is_integer() and intercept.is_integer() and max(map(abs, ends)) < 2**31:
        dtype = np.dtype(np.int32)
    else:
        # float32 resolves 24 bits: one code must be wider than that at the far end of the range.
        dtype = np.dtype(np.float32 if abs(slope) > 2**-22 * max(map(abs, ends)) else np.float64)
    out = pixels.astype(dtype)
    out *= dtype.type(slope)
    out += dtype.type(intercept)
    return out, *ends


def _voi(macro: pydicom.Dataset, ds: pydicom.Dataset) -> tuple | None:
    """First VOI LUT or window of a data set (PS3.3 C.11.2.1), as `Radiograph.voi`.

    Raises:
        ValueError: what is wrong with it, without the file's name.
    """
    if macro.get('VOILUTSequence'):
        item = macro.VOILUTSequence[0]
        entries, first, bits = (int(v) for v in item.LUTDescriptor)
        table = _lut_data(item.LUTData, entries or 65536, bits, ds.original_encoding[1])
        return 'table', first, tuple(np.clip(table / (2**bits - 1), 0, 1).tolist())
    if macro.get('WindowCenter') is None or macro.get('WindowWidth') is None:
        return None
    center, width = (
        float(v[0] if isinstance(v, pydicom.multival.MultiValue) else v)
        for v in (macro.WindowCenter, macro.WindowWidth)
    )
    function = macro.get('VOILUTFunction') or 'LINEAR'
    least = 1 if function == 'LINEAR' else 0
    if not (math.isfinite(center) and (width > least or width == least == 1)):
        raise ValueError(f'center {center} and width {width}')
    if function == 'SIGMOID':
        return 'sigmoid', center, width
    if function == 'LINEAR_EXACT':
        return 'linear', center - width / 2, center + width / 2
    # LINEAR: 0 at c - 0.5 - (w-1)/2, full at c - 0.5 + (w-1)/2; of width 1 a step between the two.
    return 'linear', center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2


def _lut_data(values, entries: int, bits: int, little_endian: bool) -> np.ndarray:
    """(entries,) float64 of LUT Data: a word each, or two entries of up to 8 bits in one word.

    Raises:
        ValueError: another number of words.
    """
    if isinstance(values, bytes):
        values = np.frombuffer(values, '<u2' if little_endian else '>u2')
    words = np.atleast_1d(np.asarray(values)).astype('<u2')
    if bits <= 8 and len(words) == (entries + 1) // 2 < entries:
        words = words.view(np.uint8)[:entries]  # the first is in the lower half of its word
    if len(words) != entries:
        raise ValueError(f'a table of {entries} entries in {len(words)} words')
    return words.astype(np.float64)


# pydicom's usual plug-ins are GPL for JPEG lossless, slow or brittle for RLE; imagecodecs, which TIFF needs
# anyway, decodes everything.
_CODECS: dict[str, Callable] = {
    uid.RLELossless: imagecodecs.dicomrle_decode,
    uid.JPEGBaseline8Bit: imagecodecs.jpeg8_decode,
    uid.JPEGExtended12Bit: imagecodecs.jpeg8_decode,
    uid.JPEGLossless: imagecodecs.jpeg8_decode,
    uid.JPEGLosslessSV1: imagecodecs.jpeg8_decode,
    uid.JPEGLSLossless: imagecodecs.jpegls_decode,
    uid.JPEGLSNearLossless: imagecodecs.jpegls_decode,
    uid.JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    uid.JPEG2000: imagecodecs.jpeg2k_decode,
}
DECODER_DEPENDENCIES = {syntax: ('imagecodecs',) for syntax in _CODECS}
"""What pydicom asks of a plug-in module, with `is_available`."""


def is_available(transfer_syntax: str) -> bool:
    """Whether this module decodes a DICOM transfer syntax; asked by pydicom."""
    return transfer_syntax in _CODECS


def _decode_frame(src: bytes, runner) -> bytes:
    """Decode one compressed frame for pydicom; refuses one that is not the size that the header says."""
    codec = _CODECS[runner.transfer_syntax]
    shape = runner.rows, runner.columns, runner.samples_per_pixel
    if runner.transfer_syntax == uid.RLELossless:
        dtype = np.dtype(f'<u{runner.bits_allocated // 8}')
        size = math.prod(shape) * dtype.itemsize
        data = bytes(codec(src, dtype, out=size))
        if len(data) != size:
            raise ValueError('the compressed frame is truncated')
        runner.set_option('planar_configuration', 1)
        return data
    found = _codestream_size(src)
    if found != shape:
        raise ValueError(f'the compressed frame is {found}, the header says {shape} (rows, columns, samples)')
    # libjpeg fills what a truncated frame lacks with gray. Frames are padded to even length by a zero.
    if not src.rstrip(b'\0').endswith(b'\xff\xd9'):
        raise ValueError('the compressed frame is truncated')
    pixels = codec(src)
    runner.set_option('bits_allocated', 8 * pixels.dtype.itemsize)
    # Signed values are two's complements of BitsStored, whatever precision the JPEG-LS encoder wrote.
    runner.set_option('jls_precision', runner.bits_stored)
    if shape[2] > 1:
        runner.set_option('planar_configuration', 0)
        runner.set_option('photometric_interpretation', 'RGB')
    return pixels.tobytes()


def _codestream_size(data: bytes) -> tuple[int, int, int]:
    """Height, width and components of a JPEG, JPEG-LS or JPEG 2000 codestream, without decoding it.

    Raises:
        ValueError: there is no frame header.
    """
    if data[:4] == b'\xff\x4f\xff\x51':
        # SIZ: Lsiz, Rsiz, Xsiz, Ysiz, XOsiz, YOsiz, four tile fields, Csiz (ISO/IEC 15444-1, A.5.1).
        width, height, x0, y0 = struct.unpack_from('>IIII', data, 8)
        return height - y0, width - x0, struct.unpack_from('>H', data, 40)[0]
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        # SOF0..SOF15 without DHT, JPG and DAC, and JPEG-LS's SOF55 (ITU-T T.81, B.2.2; T.87, C.2.2).
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) or marker == 0xF7:
            height, width, channels = struct.unpack_from('>HHB', data, at + 5)
            return height, width, channels
        at += 2 + struct.unpack_from('>H', data, at + 2)[0]
    raise ValueError('no frame header in the compressed data')


for _syntax in _CODECS:
    if 'imagecodecs' not in get_decoder(_syntax).available_plugins:
        get_decoder(_syntax).add_plugin('imagecodecs', (__name__, '_decode_frame'))


# ------------------------------------------------------------------------------------------- windowing

_WINDOW_KEYS = {
    'full': set(),
    'absolute': {'low', 'high'},
    'percentile': {'low', 'high'},
    'voi': set(),
}


def check_window(window: dict) -> None:
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


def apply_window(radiograph: Radiograph, window: dict, dtype: str = 'uint8') -> np.ndarray:
    """Map a radiograph to what a model sees, in one step from the file's own depth.

    Windows:
        dict(type='full'): the range the file states (`Radiograph.low` to `high`): BitsStored of a DICOM file,
            BitsPerSample of a TIFF, the container of a PNG. A 12-bit image in a 16-bit PNG or TIFF does not
            say so; use dict(type='absolute', low=0, high=4095).
        dict(type='absolute', low=, high=): in the file's units (after DICOM rescale). One window for the
            whole data set, which keeps gray levels comparable: `dataset_window` finds one.
        dict(type='percentile', low=, high=): of this image's pixels, so each image gets its own window.
        dict(type='voi'): the window or LUT that the DICOM file states.
    Each but `voi` takes log=True: linear in ln(value), which is minus the attenuation ln(I0/I) up to a
    constant (Beer-Lambert), so that equal path differences get equal contrast while polarity stays. Values
    below 1 (integers) or high/65535 (floats) count as that.

    Args:
        radiograph: what `read` returned.
        window: see above; values outside the window saturate.
        dtype: 'uint8' (0..255, rounded) or 'float32' (0..255, not rounded), so that one mean and standard
            deviation serve both.

    Returns:
        (H, W) of `dtype`. The full window of an 8-bit file returns its pixels themselves, not a copy.

    Raises:
        ImagingError: a wrong window, or one that this file cannot have.
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
            return cv2.LUT(pixels, table)
        return table[pixels.view(f'u{pixels.dtype.itemsize}')]
    out = np.empty(pixels.shape, dtype)
    step = max(1, 2**20 // pixels.shape[1])  # rows; float64 copies of a whole film would be large
    for top in range(0, len(pixels), step):
        out[top : top + step] = _evaluate(pixels[top : top + step], curve, radiograph.invert, dtype)
    return out


def _curve(radiograph: Radiograph, window: dict) -> tuple:
    """The window as a hashable curve, of the kinds of `Radiograph.voi` and ('log', low, high)."""
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
        low, high = _percentiles(radiograph.pixels, window['low'], window['high'])
    if not window.get('log'):
        return 'linear', low, high
    floor = high / 65535 if radiograph.pixels.dtype.kind == 'f' else max(1.0, high / 65535)
    if high <= floor:
        raise ImagingError(
            f'{name}: expected positive values for the log domain, found a window up to {high}'
        )
    return 'log', max(low, floor), high


def _percentiles(pixels: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Two percentiles of the pixels (the smallest value with at least that share at or below it)."""
    if pixels.dtype in (np.uint8, np.uint16):
        reached = np.cumsum(count_codes(pixels))
        # To a millionth of a pixel: 99.5 / 100 * 200 is a little more than 199.
        wanted = [max(math.ceil(round(share / 100 * pixels.size, 6)), 1) for share in (low, high)]
        found = np.searchsorted(reached, wanted)
        return float(found[0]), float(found[1])
    # At most 16 million pixels: a full sort of a large float film would copy it twice.
    flat = pixels.ravel()[:: max(1, pixels.size >> 24)]
    found = np.percentile(flat, [low, high], method='inverted_cdf')
    return float(found[0]), float(found[1])


def count_codes(pixels: np.ndarray) -> np.ndarray:
    """How often each code occurs in (H, W) uint8 or uint16: (256,) or (65536,) int64."""
    codes = 2 ** (8 * pixels.dtype.itemsize)
    flat, counts = pixels.reshape(1, -1), np.zeros(codes, np.int64)
    # OpenCV counts in float32, which is exact up to 2**24.
    for start in range(0, flat.size, 2**24):
        part = flat[:, start : start + 2**24]
        counts += cv2.calcHist([part], [0], None, [codes], [0, codes])[:, 0].astype(np.int64)
    return counts


@lru_cache(maxsize=64)
def _table(pixel_dtype: str, curve: tuple, invert: bool, dtype: str) -> np.ndarray:
    """The curve at every code of an 8- or 16-bit type, in the order of the unsigned code."""
    code = np.dtype(pixel_dtype)
    codes = np.arange(2 ** (8 * code.itemsize), dtype=f'u{code.itemsize}').view(code)
    table = _evaluate(codes, curve, invert, dtype)
    table.flags.writeable = False
    return table


def _evaluate(values: np.ndarray, curve: tuple, invert: bool, dtype: str) -> np.ndarray:
    """Map values to 0..255 along a curve."""
    kind, first, second = curve
    x = values.astype(np.float64)
    if kind == 'table':
        table = np.asarray(second)
        x = table[np.clip(x - first, 0, len(table) - 1).astype(np.int64)]
    elif kind == 'sigmoid':
        with np.errstate(over='ignore'):
            x = 1 / (1 + np.exp(-4 * (x - first) / second))
    else:
        if kind == 'log':
            x, first, second = np.log(np.maximum(x, first)), math.log(first), math.log(second)
        # Without width it is a step: all of a constant image is black under its percentile window.
        x = np.clip((x - first) / (second - first), 0, 1) if second > first else np.float64(x > first)
    x *= 255
    if invert:
        x = 255 - x
    return (np.rint(x) if dtype == 'uint8' else x).astype(dtype)


def dataset_window(paths: Iterable[str | Path], low: float = 0.5, high: float = 99.5) -> dict:
    """One absolute window for a data set: percentiles over a regular sample of all its pixels.

    Args:
        paths: radiographs; at most 65,536 pixels of each are used.
        low: lower percentile, 0..100.
        high: upper percentile.

    Returns:
        dict(type='absolute', low=float, high=float), ready for `apply_window` and `LoadXray`.

    Raises:
        ImagingError: no path, an unreadable file, or pixels that are all equal.
    """
    samples = []
    for path in paths:
        flat = read(path, frame=0).pixels.ravel()
        samples.append(flat[:: max(1, flat.size >> 16)])
    if not samples:
        raise ImagingError('dataset window: expected at least one radiograph; check the folder')
    found = np.percentile(np.concatenate(samples), [low, high])
    window = dict(type='absolute', low=float(found[0]), high=float(found[1]))
    check_window(window)
    return window
