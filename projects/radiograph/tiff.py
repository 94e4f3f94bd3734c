"""TIFF through tifffile and imagecodecs: one page in its own depth."""

import io
import logging
import math
import re
import struct
from typing import BinaryIO

import numpy as np
import simplejpeg
import tifffile

from .codestream import parse
from .image import Admit, ImagingError, Radiograph, check_frame, check_size, stated, to_gray, to_one_channel
from .orientation import TAG, check_exif, check_upright

MAX_PAGES = 10_000
"""Maximum number of pages of a TIFF; a chain of millions of directories, or a circle, takes minutes."""

# tifffile logs an error with a traceback before it raises it; here the error becomes one `ImagingError`.
logging.getLogger('tifffile').setLevel(logging.CRITICAL)

_GRAY = (tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK)
_PALETTE, _RGB, _YCBCR = tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR
_OLD_JPEG, _JPEG = 6, (7, 33007)
_XMP, _UIC2, _SHAPE = 700, 33629, re.compile(r'"shape":\s*\[([0-9, ]+)\]')


def read_tiff(stream: BinaryIO, frame: int, name: str, admit: Admit) -> Radiograph:
    """Read one page.

    `bits` is BitsPerSample (10, 12 and 14 occur in packed files). A 12-bit image in 16-bit samples does not
    state its 12 bits: its range is the container's. MaxSampleValue does not narrow the range, since many
    writers store the maximum of each image there, which would give every file another window.

    Raises:
        ImagingError: a damaged or truncated file, colour, channels that differ, an orientation, or a tag
            that gives the samples another meaning than gray levels.
    """
    pages = _count_pages(stream, name)
    stream.seek(0)
    # For formats of microscopes, tifffile would read all pages at once, whatever their number.
    with tifffile.TiffFile(stream, is_lsm=False, is_scanimage=False, is_ndpi=False) as tif:
        stack = _stack_of(tif, name) if pages == 1 else 1
        frames = max(pages, stack)
        check_frame(frame, frames, name)
        page = tif.pages[frame if stack == 1 else 0]
        assert isinstance(page, tifffile.TiffPage)
        samples = page.samplesperpixel
        _check_size(page, samples, name, admit)
        _check_meaning(page, name)
        if stack > 1:
            image = _read_plane(tif, page, frame)
        else:
            _check_segments(tif, page, name)
            image = np.squeeze(page.asarray(maxworkers=1))
    height, width = page.imagelength, page.imagewidth
    if image.size != height * width * samples:
        raise ImagingError(
            f'{name}: expected one plane of pixels, found shape {image.shape}; export single images'
        )
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and samples > 1:
        image = np.moveaxis(image.reshape((samples, height, width)), 0, -1)
    image = image.reshape((height, width, samples))
    bits = int(page.bitspersample)
    if page.photometric == _PALETTE:
        image, bits = _of_palette(image, page, name)
    # 1 and 2 are opacity, premultiplied or not; other extra samples are gray channels.
    alpha = any(kind in (1, 2) for kind in page.extrasamples)
    grays = page.photometric in _GRAY and samples > 1 and not alpha
    pixels = to_one_channel(image, name) if grays else to_gray(image, name)
    meta = dict(file=name, format='TIFF', frame=frame, frames=frames)
    return stated(pixels, bits, page.photometric == tifffile.PHOTOMETRIC.MINISWHITE, meta)


def _of_palette(image: np.ndarray, page: tifffile.TiffPage, name: str) -> tuple[np.ndarray, int]:
    """Return the colours (H, W, 3) of indices (H, W, C) into a palette, and their bits.

    Entries have 16 bits (TIFF 6.0, ColorMap). If none is above 255, the writer used 8 bits, as in libtiff.

    Raises:
        ImagingError: extra samples beside the index.
    """
    table = page.colormap
    assert table is not None
    if image.shape[2] > 1:
        raise ImagingError(f'{name}: expected one sample per pixel of a palette; export it as gray')
    bits = 16 if table.max() > 255 else 8
    return np.moveaxis(table, 0, -1).astype(f'u{bits // 8}')[image[..., 0]], bits


def _count_pages(stream: BinaryIO, name: str) -> int:
    """Count the pages of a TIFF along the chain of its directories (TIFF 6.0, section 2; BigTIFF)."""
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
            break  # the pages up to here are whole
    if not pages:
        raise ImagingError(f'{name}: expected a TIFF with an image, found none in it; export it again')
    return pages


def _stack_of(tif: tifffile.TiffFile, name: str) -> int:
    """Return the number of planes behind a single directory.

    ImageJ writes such stacks beyond 4 GB, tifffile on request; their planes are contiguous.

    Raises:
        ImagingError: a MetaMorph stack, a volume, or planes that are compressed or missing.
    """
    page = tif.pages[0]
    assert isinstance(page, tifffile.TiffPage)
    dtype, planes = page.dtype, 1
    count = page.imagelength * page.imagewidth * page.samplesperpixel
    if tif.is_imagej:
        planes = int((tif.imagej_metadata or {}).get('images', 1))
    elif page.is_shaped and (shape := _SHAPE.search(page.description)):
        planes = math.prod(int(side) for side in shape[1].split(',')) // max(count, 1)
    hidden = page.imagedepth > 1 or _UIC2 in page.tags and page.tags[_UIC2].count > 1
    if planes <= 1 and not hidden or dtype is None:
        return 1
    size = count * dtype.itemsize
    if (
        hidden
        or page.compression != 1
        or page.is_tiled
        or page.bitspersample % 8
        or len(page.dataoffsets) > 1
    ):
        raise ImagingError(
            f'{name}: expected single images, found a stack in one directory; export a file of each'
        )
    if page.dataoffsets[0] + planes * size > tif.filehandle.size:
        raise ImagingError(
            f'{name}: expected {planes} planes, as its description says, found fewer; copy it again, or '
            'export it as a single image'
        )
    return planes


def _read_plane(tif: tifffile.TiffFile, page: tifffile.TiffPage, frame: int) -> np.ndarray:
    """Read one plane of a stack behind a single directory, as (samples in their order in the file,)."""
    assert page.dtype is not None
    size = page.imagelength * page.imagewidth * page.samplesperpixel * page.dtype.itemsize
    tif.filehandle.seek(page.dataoffsets[0] + frame * size)
    return np.frombuffer(tif.filehandle.read(size), page.dtype.newbyteorder(tif.byteorder))


def _check_size(page: tifffile.TiffPage, samples: int, name: str, admit: Admit) -> None:
    height, width = page.imagelength, page.imagewidth
    check_size(height, width, height * width * samples * max(page.bitspersample // 8, 1), name, admit)
    if page.is_tiled:
        check_size(page.tilelength, page.tilewidth, page.tilelength * page.tilewidth * samples, name)


def _check_meaning(page: tifffile.TiffPage, name: str) -> None:
    """Refuse samples that are no gray levels, thumbnails, and images with an orientation."""
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
    kind = page.photometric
    # The JPEG decoder turns YCbCr into RGB; other codecs leave YCbCr.
    if kind not in (*_GRAY, _PALETTE, _RGB) and not (kind == _YCBCR and page.compression in _JPEG):
        raise ImagingError(
            f'{name}: expected gray levels, found samples of the kind {getattr(kind, "name", kind)}; export '
            'the detector image'
        )
    if page.subfiletype & 1:
        raise ImagingError(
            f'{name}: expected an image, found a reduced copy of another (NewSubfileType); export single '
            'images'
        )
    if page.compression == _OLD_JPEG:
        raise ImagingError(f'{name}: expected no JPEG of the kind before TIFF 6.0; export it uncompressed')
    check_upright(page.tags.valueof(TAG), 'TIFF', name)
    xmp = page.tags.valueof(_XMP)
    check_exif(None, xmp if isinstance(xmp, bytes) else bytes(xmp or ()), name)


def _check_segments(tif: tifffile.TiffFile, page: tifffile.TiffPage, name: str) -> None:
    """Refuse missing strips and tiles, which tifffile fills with zeros, and damaged 8-bit JPEG segments."""
    size = tif.filehandle.size
    segments = list(zip(page.dataoffsets, page.databytecounts))
    if len(segments) != math.prod(page.chunked) or any(o <= 0 or n <= 0 or o + n > size for o, n in segments):
        raise ImagingError(
            f'{name}: expected a complete TIFF, found a truncated one; copy or export it again'
        )
    row = -(
        -page.imagewidth * page.bitspersample * (page.samplesperpixel if page.planarconfig == 1 else 1) // 8
    )
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    if (
        page.compression == 1
        and not page.is_tiled
        and sum(page.databytecounts) < planes * row * page.imagelength
    ):
        raise ImagingError(
            f'{name}: expected strips that hold the whole image, found shorter ones; export it again'
        )
    if page.compression not in _JPEG:
        return
    tables = page.jpegtables or b''
    for offset, length in segments:
        tif.filehandle.seek(offset)
        data = tif.filehandle.read(length)
        whole = tables[:-2] + data[2:] if tables else data  # T.81, B.5: tables end, the image begins
        stream = parse(whole)
        if stream.is_strict:
            simplejpeg.decode_jpeg(whole, 'GRAY' if stream.shape[2] == 1 else 'RGB', strict=True)
