"""Radiograph files of every kind, made by hand: PNG, TIFF and DICOM from arrays."""

import io
import math
import struct
import zlib

import cv2
import imagecodecs
import numpy as np
import tifffile
from pydicom import uid
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate


def ramp(bits, signed=False, dtype=None):
    """Every code of `bits` bits once, in order, as a (2**(bits // 2), …) image."""
    codes = np.arange(2**bits, dtype=np.int64) - (2 ** (bits - 1) if signed else 0)
    dtype = dtype or ('i' if signed else 'u') + ('1' if bits <= 8 else '2')
    return codes.astype(dtype).reshape(2 ** (bits // 2), -1)


def png(pixels, extra=None):
    data = cv2.imencode('.png', pixels)[1].tobytes()
    if extra:  # after IHDR, which ends at byte 33
        data = data[:33] + png_chunk(*extra) + data[33:]
    return data


def png_chunk(kind, body):
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))


def png_by_hand(
    pixels,
    filters=(0, 1, 2, 3, 4),
    interlaced=False,
    spoil=lambda stream: stream,
    colour=0,
    bits=None,
    more=(),
):
    """A PNG whose rows take these filters in turn (PNG specification, section 9), in IDATs of 100 bytes.

    `pixels` are (H, W), or (H, W, C) for a `colour` of several channels; `bits` below 8 are packed. The
    chunks (kind, body) of `more` come before the IDATs.
    """
    bits = bits or 8 * pixels.dtype.itemsize
    wide = max(1, math.prod(pixels.shape[2:]) * bits // 8)
    # First row and column of each pass of Adam7, and their steps.
    adam7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    stream = b''
    for top, left, down, right in adam7 if interlaced else [(0, 0, 1, 1)]:
        part = pixels[top::down, left::right]
        above = None
        for y, row in enumerate(part if part.size else []):
            if bits < 8:
                row = np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:])
            row, kind = list(row.astype(f'>u{max(1, bits // 8)}').tobytes()), filters[y % len(filters)]
            above = above or [0] * len(row)
            stream += bytes([kind])
            for x, value in enumerate(row):
                a, b, c = row[x - wide] if x >= wide else 0, above[x], above[x - wide] if x >= wide else 0
                paeth = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
                stream += bytes([(value - (0, a, b, (a + b) // 2, paeth)[kind]) % 256])
            above = row
    data = spoil(zlib.compress(stream))
    head = struct.pack('>IIBBBBB', *pixels.shape[1::-1], bits, colour, 0, 0, interlaced)
    idats = [(b'IDAT', data[at : at + 100]) for at in range(0, len(data), 100)]
    return png_of([(b'IHDR', head), *more, *idats, (b'IEND', b'')])


def png_of(chunks):
    return b'\x89PNG\r\n\x1a\n' + b''.join(png_chunk(kind, body) for kind, body in chunks)


def png_chunks(data):
    """(kind, body) of each chunk of an intact PNG."""
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from('>I', data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def png_kinds():
    """Each kind of PNG but plain gray, of equal colours: (colour type, bits, interlaced, file, its gray)."""
    rng = np.random.default_rng(0)
    for interlaced in (False, True):
        for colour, bits in ((0, 1), (0, 2), (0, 4), (2, 8), (2, 16), (4, 8), (4, 16), (6, 8), (6, 16)):
            gray = rng.integers(0, 2**bits, (20, 33)).astype('u2' if bits == 16 else 'u1')
            pixels, top = gray, 2**bits - 1
            if colour:
                colours, alpha = gray[..., None].repeat(3 if colour & 2 else 1, 2), np.full_like(gray, top)
                pixels = np.dstack([colours, alpha]) if colour & 4 else colours
            data = png_by_hand(pixels, interlaced=interlaced, colour=colour, bits=bits)
            # Of less than 8 bits, the values are spread over 0..255.
            yield colour, bits, interlaced, data, gray if bits >= 8 else gray * (255 // top)
        for bits in (1, 2, 4, 8):
            index = rng.integers(0, 2**bits, (20, 33)).astype('u1')
            table = rng.permutation(256).astype('u1')[: 2**bits]
            more = [(b'PLTE', table.repeat(3).tobytes())]
            data = png_by_hand(index, interlaced=interlaced, colour=3, bits=bits, more=more)
            yield 3, bits, interlaced, data, table[index]


def tiff(pixels, **options):
    stream = io.BytesIO()
    options.setdefault('photometric', 'minisblack')
    tif = {k: options.pop(k) for k in ('bigtiff', 'byteorder') if k in options}
    with tifffile.TiffWriter(stream, **tif) as writer:
        for page in pixels if isinstance(pixels, list) else [pixels]:
            writer.write(page, metadata=None, **options)
    return stream.getvalue()


def jpeg_lossless(frame, bits):
    return imagecodecs.jpeg8_encode(frame, lossless=True, predictor=1, bitspersample=bits)


def jpeg_2000(frame, bits):
    return imagecodecs.jpeg2k_encode(frame, level=0, reversible=True, codecformat='j2k', bitspersample=bits)


def jpeg_ls(frame, bits):
    return imagecodecs.jpegls_encode(frame)


CODECS = {
    uid.JPEGLosslessSV1: jpeg_lossless,
    uid.JPEGLossless: jpeg_lossless,
    uid.JPEGLSLossless: jpeg_ls,
    uid.JPEG2000Lossless: jpeg_2000,
}
# Bits that the syntax holds, and an encoder with loss.
LOSSY = {
    uid.JPEGBaseline8Bit: (8, lambda frame: imagecodecs.jpeg8_encode(frame, level=95)),
    uid.JPEGExtended12Bit: (12, lambda frame: imagecodecs.jpeg8_encode(frame, level=95, bitspersample=12)),
    uid.JPEGLSNearLossless: (12, lambda frame: imagecodecs.jpegls_encode(frame, level=3)),
    uid.JPEG2000: (16, lambda frame: imagecodecs.jpeg2k_encode(frame, level=60, codecformat='j2k')),
}
ENCODERS = CODECS | {
    syntax: lambda frame, _, encode=encode: encode(frame) for syntax, (_, encode) in LOSSY.items()
}
ENCODERS[uid.HTJ2KLossless] = jpeg_2000  # which is refused by its name


def dicom(pixels, bits=None, syntax=uid.ExplicitVRLittleEndian, frames=None, elements=(), **tags):
    """A DICOM file's bytes. `pixels` (H, W), (frames, H, W) with `frames`, or (H, W, 3).

    `tags` are attributes by keyword, `elements` those without one.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = '1.2.3.4'
    meta.TransferSyntaxUID = syntax
    encoding = dict(
        is_implicit_VR=syntax == uid.ImplicitVRLittleEndian,
        is_little_endian=syntax != uid.ExplicitVRBigEndian,
    )
    ds = FileDataset(None, {}, file_meta=meta, preamble=b'\0' * 128, **encoding)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.PatientName = 'casting'
    ds.SamplesPerPixel = 3 if pixels.ndim == 3 and not frames else 1
    ds.PhotometricInterpretation = 'RGB' if ds.SamplesPerPixel == 3 else 'MONOCHROME2'
    if ds.SamplesPerPixel == 3:
        ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = pixels.shape[1:3] if frames else pixels.shape[:2]
    if frames:
        ds.NumberOfFrames = frames
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored = bits or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == 'i')
    for key, value in tags.items():
        setattr(ds, key, value)
    for element in elements:
        ds.add(element)
    if syntax in ENCODERS:
        unsigned = pixels.view(f'u{pixels.dtype.itemsize}') & (2**ds.BitsStored - 1)
        each = unsigned if frames else [unsigned]
        ds.PixelData = encapsulate([ENCODERS[syntax](frame, ds.BitsStored) for frame in each])
        ds['PixelData'].is_undefined_length = True
    else:
        if syntax == uid.ExplicitVRBigEndian:
            pixels = pixels.astype(pixels.dtype.newbyteorder('>'))
        ds.PixelData = pixels.tobytes()
        ds['PixelData'].VR = 'OW' if ds.BitsAllocated > 8 else 'OB'
        if syntax == uid.RLELossless:
            ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
            ds.compress(uid.RLELossless)
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def cases():
    """(id, file bytes, the ramp it holds, bits it states)."""
    for bits in (8, 10, 12, 14, 16):
        yield f'png-{bits}', png(ramp(bits)), ramp(bits), 8 if bits == 8 else 16
        yield f'tiff-{bits}', tiff(ramp(bits)), ramp(bits), 8 if bits == 8 else 16
        for signed in (False, True):
            name = f'dicom-{"i" if signed else "u"}{bits}'
            yield name, dicom(ramp(bits, signed), bits), ramp(bits, signed), bits
            for syntax in (*CODECS, uid.RLELossless):
                data = dicom(ramp(bits, signed), bits, syntax)
                yield f'{name}-{uid.UID(syntax).keyword}', data, ramp(bits, signed), bits
    wide = ramp(16)
    for name, options in dict(
        deflate=dict(compression='zlib'),
        predictor=dict(compression='zlib', predictor=True),
        lzw=dict(compression='lzw'),
        lzma=dict(compression='lzma'),
        zstd=dict(compression='zstd'),
        packbits=dict(compression='packbits'),
        jpeg2000=dict(compression='jpeg2000'),
        strips=dict(rowsperstrip=7, compression='lzw'),
        tiles=dict(tile=(48, 80)),
        tiles_deflate=dict(tile=(64, 64), compression='zlib', predictor=True),
        big_endian=dict(byteorder='>'),
        big_endian_lzw=dict(byteorder='>', compression='lzw', tile=(32, 32)),
        bigtiff=dict(bigtiff=True),
        bigtiff_big_endian=dict(bigtiff=True, byteorder='>', compression='zlib'),
    ).items():
        yield f'tiff-16-{name}', tiff(wide, **options), wide, 16
    for bits in (8, 12):
        jpeg = dict(compression='jpeg', compressionargs=dict(lossless=True, predictor=1, bitspersample=bits))
        yield f'tiff-{bits}-jpeg-lossless', tiff(ramp(bits), **jpeg), ramp(bits), bits
    yield 'tiff-i16', tiff(ramp(16, signed=True)), ramp(16, signed=True), 16
    yield 'tiff-i8', tiff(ramp(8, signed=True)), ramp(8, signed=True), 8
    yield 'tiff-u32', tiff(wide.astype(np.uint32) * 65537), wide.astype(np.uint32) * 65537, 32
    yield 'dicom-big-endian', dicom(wide, syntax=uid.ExplicitVRBigEndian), wide, 16
    yield 'dicom-implicit', dicom(wide, syntax=uid.ImplicitVRLittleEndian), wide, 16
    yield 'bmp-8', cv2.imencode('.bmp', ramp(8))[1].tobytes(), ramp(8), 8


CASES = {name: rest for name, *rest in cases()}
