"""DICOM and DICONDE through pydicom; PS3.3 sections C.7.6.3, C.11.1 and C.11.2."""

import logging
import math
import os
import struct
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import get_frame, parse_basic_offsets, parse_fragments
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array

from projects.errors import one_line

from .codestream import check_padding, decode, parse, unwrap
from .image import (
    Admit,
    ImagingError,
    Radiograph,
    check_finite,
    check_frame,
    check_size,
    range_of,
    to_gray,
    to_one_channel,
)

# pydicom logs an error with a traceback before it raises it; here the error becomes one `ImagingError`.
logging.getLogger('pydicom').setLevel(logging.CRITICAL)

_PIXELS = ((0x7FE0, 0x0008), (0x7FE0, 0x0009), (0x7FE0, 0x0010))  # float, double, integer
_UNDEFINED = 0xFFFFFFFF  # the length of encapsulated pixels


def read_dicom(stream: BinaryIO, frame: int, name: str, admit: Admit) -> Radiograph:
    """Read one frame of a DICOM or DICONDE file.

    `bits` is BitsStored, and the window `full` spans its range. Rescale and modality LUT apply to the pixels
    and to the range.

    Raises:
        ImagingError: a file without an image, with colour or a palette, of an unsupported transfer syntax,
            or whose header and pixels disagree.
    """
    ds = _header(stream, name)
    at = stream.tell()
    height, width = int(ds.Rows), int(ds.Columns)
    samples, allocated = int(ds.get('SamplesPerPixel') or 1), int(ds.BitsAllocated)
    check_size(height, width, height * width * samples * max(allocated // 8, 1), name, admit)
    frames = int(ds.get('NumberOfFrames') or 1)
    check_frame(frame, frames, name)
    _check_kind(ds, name)
    stream.seek(at)
    found_frames = _count_frames(stream, ds, height * width * samples * allocated // 8)
    if found_frames > frames:  # else the surplus frames were ignored in silence
        raise ImagingError(
            f'{name}: expected {frames} frames, as NumberOfFrames says, found {found_frames}; correct the '
            'header'
        )
    if ds.file_meta.TransferSyntaxUID in (uid.JPEG2000Lossless, uid.JPEG2000):
        # pydicom looks for the codestream too, before `decode_frame`; in some damaged files it never ends.
        stream.seek(at + 12)
        unwrap(get_frame(stream, frame, number_of_frames=frames, extended_offsets=_extended_offsets(ds)))
    stream.seek(0)
    plugin = 'imagecodecs' if ds.file_meta.TransferSyntaxUID.is_compressed else ''
    image = pixel_array(stream, index=frame, decoding_plugin=plugin, correct_unused_bits=False)
    grays = samples > 1 and _colours(ds).startswith('MONOCHROME')
    pixels = _stored_bits(to_one_channel(image, name) if grays else to_gray(image, name), ds, name)
    invert = _colours(ds) == 'MONOCHROME1' or ds.get('PresentationLUTShape') == 'INVERSE'
    meta = dict(file=name, format='DICOM', frame=frame, frames=frames, **_spacing(ds, frame))
    if pixels.dtype.kind == 'f':
        bits, low, high = allocated, math.nan, math.nan
    else:
        bits = int(ds.get('BitsStored') or allocated)
        low, high = range_of(bits, pixels.dtype.kind == 'i')
    if ds.get('ModalityLUTSequence'):
        pixels = apply_modality_lut(pixels, ds)
        bits = int(ds.ModalityLUTSequence[0].LUTDescriptor[2])
        low, high = range_of(bits, signed=False)
    else:
        pixels, low, high = _rescale(
            pixels, low, high, _macro(ds, 'PixelValueTransformationSequence', frame), name
        )
    if pixels.dtype.kind == 'f':
        check_finite(pixels, name)
    voi: tuple[Any, ...] | None
    try:
        voi = _voi(_macro(ds, 'FrameVOILUTSequence', frame), ds)
    except Exception as error:  # as in `read`: pydicom may raise any type on damaged values
        voi = 'wrong', one_line(error)
    return Radiograph(pixels, bits, low, high, invert, voi, meta)


# ---------------------------------------------------------------------------------------------- header


def _header(stream: BinaryIO, name: str) -> pydicom.Dataset:
    """Read a data set up to its pixels; the stream then stands at the pixels."""
    # pydicom inflates a deflated data set whole, without a limit, before any check is possible. The file meta
    # names the transfer syntax. pydicom's own function reads it here, so that the two cannot disagree.
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
    return ds


def _count_frames(stream: BinaryIO, ds: pydicom.Dataset, frame_bytes: int) -> int:
    """Return how many frames the pixels certainly hold, whatever NumberOfFrames says; 0 where unknown.

    Args:
        stream: its position is the element of the pixels.
        ds: the data set before that element.
        frame_bytes: bytes of one native frame.
    """
    syntax = ds.file_meta.TransferSyntaxUID
    order = '<' if syntax.is_little_endian else '>'
    head = stream.read(8 if syntax.is_implicit_VR else 12)
    if len(head) < 8 or struct.unpack_from(f'{order}HH', head) not in _PIXELS:
        return 0
    # The VR of pixels has a length of 32 bits: OB, OW, OF or OD.
    (length,) = struct.unpack_from(f'{order}I', head, len(head) - 4)
    if length != _UNDEFINED:
        at = stream.tell()
        whole = at + length <= stream.seek(0, os.SEEK_END)
        return int(length) // frame_bytes if whole and frame_bytes else 0
    frames = len(parse_basic_offsets(stream))
    if syntax == uid.RLELossless and not frames:
        # For JPEG, `check_padding` finds that another image follows. An RLE frame begins with the number of
        # its segments, then the offset of the first segment, which is always 64 (PS3.5, G.5).
        for offset in parse_fragments(stream)[1]:
            stream.seek(offset + 8)
            frames += struct.unpack('<II', stream.read(8))[1] == 64
    return frames


def _extended_offsets(ds: pydicom.Dataset) -> tuple[bytes, bytes] | None:
    """Return the offsets and lengths of the frames of encapsulated pixels, in pydicom's form."""
    if 'ExtendedOffsetTable' not in ds or 'ExtendedOffsetTableLengths' not in ds:
        return None
    return ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths


def _colours(ds: pydicom.Dataset) -> str:
    return str(ds.get('PhotometricInterpretation') or 'none')


def _check_kind(ds: pydicom.Dataset, name: str) -> None:
    """Refuse pixels that are not gray, and unsupported compressions."""
    colours, syntax = _colours(ds), ds.file_meta.TransferSyntaxUID
    if colours not in ('MONOCHROME1', 'MONOCHROME2', 'RGB') and not colours.startswith('YBR'):
        raise ImagingError(
            f'{name}: expected gray levels (MONOCHROME1 or 2) or gray stored as RGB, found '
            f'PhotometricInterpretation {colours[:20]!r}; export the detector image'
        )
    if syntax.is_compressed and syntax not in _SYNTAXES:
        raise ImagingError(
            f'{name}: expected native, RLE, JPEG, JPEG-LS or JPEG 2000 pixels, found {syntax.name}; '
            'rewrite it as explicit little endian'
        )


def _stored_bits(pixels: np.ndarray, ds: pydicom.Dataset, name: str) -> np.ndarray:
    """Clear the bits above BitsStored, which may hold only an overlay or the sign.

    Raises:
        ImagingError: BitsStored or HighBit are out of range, or values reach beyond BitsStored.
    """
    if pixels.dtype.kind == 'f':
        return pixels
    allocated = int(ds.BitsAllocated)
    bits = int(ds.get('BitsStored') or allocated)
    if not 1 <= bits <= allocated:
        raise ImagingError(f'{name}: expected BitsStored in 1..{allocated}, found {bits}; correct the header')
    if ds.get('HighBit') not in (None, bits - 1):
        # The standard now demands this; the decoders would cut off the upper bits of such a file.
        raise ImagingError(
            f'{name}: expected HighBit {bits - 1}, one below BitsStored, found {ds.HighBit}; rewrite the '
            'file with its values in the lower bits'
        )
    spare = 8 * pixels.dtype.itemsize - bits
    if not spare or allocated == 1:
        return pixels
    shown = (pixels << spare) >> spare  # of signed types, this repeats the sign
    beyond = shown != pixels
    if pixels.dtype.kind == 'i':
        beyond &= (pixels < 0) | (pixels >> bits != 0)  # many files do not repeat the sign
    # PS3.5, 8.1.2: retired overlays in unused bits (60xx,0102).
    overlays = any(ds.get((group, 0x0102)) and ds[group, 0x0102].value for group in range(0x6000, 0x6020, 2))
    if not overlays and beyond.any():
        raise ImagingError(
            f'{name}: expected values of {bits} bits, as BitsStored says, found {pixels[beyond].max()}; '
            'correct the header'
        )
    return shown


def _macro(ds: pydicom.Dataset, sequence: str, frame: int) -> pydicom.Dataset:
    """Return the data set with a macro's attributes: this frame's group, the shared group, or `ds` itself."""
    for groups, index in (('PerFrameFunctionalGroupsSequence', frame), ('SharedFunctionalGroupsSequence', 0)):
        items = ds.get(groups)
        if items and index < len(items) and items[index].get(sequence):
            found: pydicom.Dataset = items[index].get(sequence)[0]
            return found
    return ds


def _spacing(ds: pydicom.Dataset, frame: int) -> dict[str, Any]:
    """Return the pixel pitch, which the standard states along the column first; empty where it is not valid.

    Returns:
        `spacing`, mm per px along x and along y, and `spacing_from`, the attribute that states it: PS3.3,
        10.7.1.3. ImagerPixelSpacing is the pitch at the detector, where the part is magnified.
    """
    for source, keyword in (
        (_macro(ds, 'PixelMeasuresSequence', frame), 'PixelSpacing'),
        (ds, 'ImagerPixelSpacing'),
    ):
        try:
            along_y, along_x = (float(v) for v in source.get(keyword) or ())
        except (TypeError, ValueError):
            continue
        if 0 < along_x < math.inf and 0 < along_y < math.inf:
            return dict(spacing=(along_x, along_y), spacing_from=keyword)
    return {}


def _rescale(
    pixels: np.ndarray, low: float, high: float, macro: pydicom.Dataset, name: str
) -> tuple[np.ndarray, float, float]:
    """Apply rescale slope and intercept, in the smallest type that keeps neighbouring codes apart."""
    slope, intercept = float(macro.get('RescaleSlope', 1)), float(macro.get('RescaleIntercept', 0))
    if not (math.isfinite(slope) and math.isfinite(intercept) and slope):
        raise ImagingError(
            f'{name}: expected a finite rescale slope other than 0, found {slope} and {intercept}; '
            'correct the header'
        )
    if slope == 1 and intercept == 0:
        return pixels, low, high
    ends = sorted((slope * low + intercept, slope * high + intercept))
    dtype: np.dtype
    if pixels.dtype.kind == 'f':
        dtype = pixels.dtype
    elif slope.is_integer() and intercept.is_integer() and max(map(abs, ends)) < 2**31:
        dtype = np.dtype(np.int32)
    else:
        # float32 resolves 24 bits: at the far end of the range, one code must be wider than its resolution.
        dtype = np.dtype(np.float32 if abs(slope) > 2**-22 * max(map(abs, ends)) else np.float64)
    out = pixels.astype(dtype)
    out *= dtype.type(slope)
    out += dtype.type(intercept)
    return out, ends[0], ends[1]


def _voi(macro: pydicom.Dataset, ds: pydicom.Dataset) -> tuple[Any, ...] | None:
    """Return the first VOI LUT or window of a data set (PS3.3 C.11.2.1), as `Radiograph.voi`.

    Raises:
        ValueError: the LUT or window is not valid; the text has no file name.
    """
    if macro.get('VOILUTSequence'):
        item = macro.VOILUTSequence[0]
        entries, first, bits = (int(v) for v in item.LUTDescriptor)
        table = _lut_data(item.LUTData, entries or 65536, bits, bool(ds.original_encoding[1]))
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
    # LINEAR: 0 at c - 0.5 - (w-1)/2, full at c - 0.5 + (w-1)/2; a width of 1 makes a step between the two.
    return 'linear', center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2


def _lut_data(values: Any, entries: int, bits: int, little_endian: bool) -> np.ndarray:
    """Return LUT Data as (entries,) float64: one word per entry, or two entries of up to 8 bits in a word.

    Raises:
        ValueError: another number of words.
    """
    if isinstance(values, bytes):
        values = np.frombuffer(values, '<u2' if little_endian else '>u2')
    words = np.atleast_1d(np.asarray(values)).astype('<u2')
    if bits <= 8 and len(words) == (entries + 1) // 2 < entries:
        words = words.view(np.uint8)[:entries]  # the first entry is in the lower half of its word
    if len(words) != entries:
        raise ValueError(f'a table of {entries} entries in {len(words)} words')
    return words.astype(np.float64)


# ---------------------------------------------------------------------------------- compressed frames

# pydicom's usual plug-ins are GPL for JPEG lossless, slow or brittle for RLE, and lenient on damage.
_SYNTAXES = (
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
)
DECODER_DEPENDENCIES: dict[uid.UID, tuple[str, ...]] = {syntax: ('imagecodecs',) for syntax in _SYNTAXES}
"""pydicom requires this name and `is_available` of a plug-in module."""


def is_available(transfer_syntax: str) -> bool:
    """Whether this module decodes a DICOM transfer syntax; asked by pydicom."""
    return transfer_syntax in _SYNTAXES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Decode one compressed frame for pydicom.

    Raises:
        ValueError: the frame is truncated, damaged, or of another size than the header says.
    """
    shape = runner.rows, runner.columns, runner.samples_per_pixel
    if runner.transfer_syntax == uid.RLELossless:
        dtype = np.dtype(f'<u{runner.bits_allocated // 8}')
        size = math.prod(shape) * dtype.itemsize
        data = bytes(imagecodecs.dicomrle_decode(src, dtype, out=size))
        if len(data) != size:
            raise ValueError('the compressed frame is truncated')
        runner.set_option('planar_configuration', 1)
        return data
    src = unwrap(src)
    stream = parse(src)
    if stream.shape != shape:
        raise ValueError(
            f'the compressed frame is {stream.shape}, the header says {shape} (rows, columns, samples)'
        )
    check_padding(src, stream)
    pixels = decode(src, stream)
    runner.set_option('bits_allocated', 8 * pixels.dtype.itemsize)
    # Signed values are two's complements in BitsStored, whatever precision the JPEG-LS encoder wrote.
    runner.set_option('jls_precision', runner.bits_stored)
    if shape[2] > 1:
        runner.set_option('planar_configuration', 0)
        runner.set_option('photometric_interpretation', 'RGB')
    return pixels.tobytes()


def _register() -> None:
    for syntax in _SYNTAXES:
        decoder = get_decoder(syntax)
        if 'imagecodecs' not in decoder.available_plugins:
            decoder.add_plugin('imagecodecs', (__name__, 'decode_frame'))


_register()
