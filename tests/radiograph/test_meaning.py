"""read: files that mean something else than they look like are read right, or refused with the reason."""

import io
import struct
import warnings
import zlib

import cv2
import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
from helpers.radiograph_files import CODECS, dicom, png, ramp, tiff
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from projects.radiograph.image import ImagingError, Radiograph
from projects.radiograph.read import read
from projects.radiograph.window import apply_window


def plate(height=96, width=128, bits=8, seed=0):
    """A plate of uneven thickness with grain, in which a damaged part is seen."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = 0.3 + 0.4 * x / width + 0.1 * y / height + 0.02 * rng.standard_normal(x.shape)
    return (image.clip(0, 1) * (2**bits - 1)).astype('u1' if bits <= 8 else 'u2')


def jpeg(pixels, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'JPEG', quality=95, **options)
    return stream.getvalue()


def refused(data, match):
    with pytest.raises(ImagingError, match=match) as caught:
        read(data, frame=0, name='a')
    message = str(caught.value)
    assert message.startswith('a: expected') and '\n' not in message and ';' in message


# ------------------------------------------------------------------------------------------- preamble


HEADS = dict(tiff=tiff(ramp(8)), big=b'MM\0*', bmp=b'BM', png=png(ramp(8)), jpeg=b'\xff\xd8\xff')


@pytest.mark.parametrize('head', HEADS.values(), ids=HEADS)
def test_a_dicom_stays_one_whatever_its_preamble_holds(head):
    signed = ramp(12, signed=True)
    plain = dicom(signed, 12, PhotometricInterpretation='MONOCHROME1', RescaleSlope=2, RescaleIntercept=-4)
    found = read(head[:128].ljust(128, b'\0') + plain[128:])
    np.testing.assert_array_equal(found.pixels, signed.astype(int) * 2 - 4)
    assert found.meta['format'] == 'DICOM' and found.invert


# -------------------------------------------------------------------------------- compressed frames


def frame_of(data, change):
    """A DICOM file whose one compressed frame is changed."""
    ds = pydicom.dcmread(io.BytesIO(data))
    frame = next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData = encapsulate([change(bytes(frame).rstrip(b'\0'))])
    stream = io.BytesIO()
    ds.save_as(stream)
    return stream.getvalue()


@pytest.mark.parametrize('padding', [b'\xff', b' ', b'\0', b'\0' * 6, b'\xff' * 3])
@pytest.mark.parametrize('syntax', [uid.JPEGBaseline8Bit, *CODECS])
def test_padding_behind_the_end_marker(syntax, padding):
    data = dicom(plate(), 8, syntax)
    np.testing.assert_array_equal(read(frame_of(data, lambda f: f + padding)).pixels, read(data).pixels)


@pytest.mark.parametrize('syntax', [uid.JPEGBaseline8Bit, *CODECS])
def test_an_end_marker_in_the_middle_of_a_frame(syntax):
    data = dicom(plate(), 8, syntax)
    refused(frame_of(data, lambda f: f[: len(f) // 2] + b'\xff\xd9' + f[len(f) // 2 :]), 'intact radiograph')


@pytest.mark.parametrize('syntax', [uid.JPEGBaseline8Bit, *CODECS])
def test_a_second_image_in_a_frame(syntax):
    refused(frame_of(dicom(plate(), 8, syntax), lambda f: f + f), 'intact radiograph')


def test_a_jpeg_2000_file_in_place_of_its_codestream():
    pixels = plate(bits=12)
    jp2 = imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, codecformat='jp2', bitspersample=12)
    data = frame_of(dicom(pixels, 12, uid.JPEG2000Lossless), lambda f: jp2)
    np.testing.assert_array_equal(read(data).pixels, pixels)
    at = jp2.index(b'ihdr') + 18
    palette = jp2[:at] + struct.pack('>I4sHBB', 16, b'pclr', 1, 1, 7) + bytes(4) + jp2[at:]
    start = jp2.index(b'jp2h') - 4
    length = struct.unpack_from('>I', jp2, start)[0]
    palette = palette[:start] + struct.pack('>I', length + 16) + palette[start + 4 :]
    refused(frame_of(data, lambda f: palette), 'a palette')
    refused(frame_of(data, lambda f: jp2[: jp2.index(b'jp2c') - 4]), 'no codestream')


# ------------------------------------------------------------------------------------- damaged JPEG


def damages(data):
    half = len(data) // 2
    return dict(
        half=data[:half] + b'\xff\xd9',
        end=data[:half] + b'\xff\xd9' + data[half:],
        zeros=data[:half] + bytes(4096) + data[half + 4096 :],
        last=data[:-40] + b'\xff\xd9',
        hole=data[:half] + data[half + 200 :],
    )


# A hole in a progressive JPEG shows nothing: its scans find their way again.
@pytest.mark.parametrize(
    ('kind', 'progressive'),
    [(kind, progressive) for kind in damages(b'') for progressive in (False, True)][:-1],
)
def test_a_damaged_jpeg_is_refused(kind, progressive):
    sound = jpeg(plate(512, 640), progressive=progressive)
    assert read(sound).pixels.shape == (512, 640)
    damaged = damages(sound)[kind]
    refused(damaged, 'JPEG')
    inside = frame_of(dicom(plate(512, 640), 8, uid.JPEGBaseline8Bit), lambda f: damaged)
    refused(inside, 'intact radiograph')


def test_a_damaged_jpeg_in_a_tiff_is_refused():
    pixels = plate(256, 320)
    for options in (dict(tile=(128, 160)), dict(rowsperstrip=64), dict(rowsperstrip=256)):
        data = tiff(pixels, compression='jpeg', **options)
        assert read(data).pixels.shape == pixels.shape
        with tifffile.TiffFile(io.BytesIO(data)) as tif:
            page = tif.pages[0]
            start, length = page.dataoffsets[-1], page.databytecounts[-1]
        spoilt = bytearray(data)
        half = start + length // 2
        spoilt[half : start + length - 2] = bytes(start + length - 2 - half)
        refused(bytes(spoilt), 'intact radiograph')


def test_a_progressive_jpeg_without_its_last_scans():
    data = jpeg(plate(256, 256), progressive=True)
    last = data.rindex(b'\xff\xda')
    tables = data.rindex(b'\xff\xc4', 0, last)
    refused(data[:tables] + b'\xff\xd9', 'scans are missing')


def test_a_jpeg_of_another_kind_is_named():
    twelve = imagecodecs.jpeg8_encode(plate(bits=12), level=95, bitspersample=12)
    refused(twelve, 'found JPEG of 12 bits')
    refused(imagecodecs.jpeg8_encode(plate(), lossless=True, predictor=1), 'found lossless of 8 bits')
    refused(imagecodecs.jpegls_encode(plate()), 'found JPEG-LS of 8 bits')
    refused(jpeg(plate()) * 2, 'expected one image')
    four = np.dstack([plate()] * 4)
    refused(imagecodecs.jpeg8_encode(four, colorspace='CMYK', outcolorspace='CMYK'), 'for print')


def test_a_sound_jpeg_with_something_behind_it():
    data = jpeg(plate())
    np.testing.assert_array_equal(read(data + b'SEFT' + bytes(50)).pixels, read(data).pixels)


# -------------------------------------------------------------------------------------- orientation


def exif(orientation):
    block = Image.Exif()
    block[274] = orientation
    return block


def xmp(orientation):
    text = '<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'
    return (text % orientation).encode()


def oriented(orientation):
    """Files of every format that can say how they are to be turned: (kind, file)."""
    pixels = plate()
    block = exif(orientation).tobytes()
    yield 'jpeg', jpeg(pixels, exif=block)
    packet = b'http://ns.adobe.com/xap/1.0/\0' + xmp(orientation)
    plain = jpeg(pixels)
    yield 'jpeg-xmp', plain[:2] + b'\xff\xe1' + struct.pack('>H', len(packet) + 2) + packet + plain[2:]
    yield 'png', png(pixels, (b'eXIf', block.removeprefix(b'Exif\0\0')))
    yield 'png-xmp', png(pixels, (b'iTXt', b'XML:com.adobe.xmp\0\0\0\0\0' + xmp(orientation)))
    packed = zlib.compress(xmp(orientation))
    yield 'png-xmp-packed', png(pixels, (b'iTXt', b'XML:com.adobe.xmp\0\1\0\0\0' + packed))
    text = b'\nexif\n%8d\n%s\n' % (len(block), block.hex().encode())
    yield 'png-text', png(pixels, (b'zTXt', b'Raw profile type exif\0\0' + zlib.compress(text)))
    yield 'tiff', tiff(pixels, extratags=[(274, 'H', 1, orientation, True)])
    yield 'tiff-16', tiff(plate(bits=16), compression='lzw', extratags=[(274, 'H', 1, orientation, True)])
    yield 'tiff-xmp', tiff(pixels, extratags=[(700, 'B', len(xmp(orientation)), xmp(orientation), True)])


@pytest.mark.parametrize('kind', dict(oriented(1)))
def test_an_image_that_is_to_be_turned_is_refused(kind):
    for orientation in (1, 0, 9):
        np.testing.assert_array_equal(read(dict(oriented(orientation))[kind]).pixels.shape, plate().shape)
    for orientation in range(2, 9):
        refused(dict(oriented(orientation))[kind], f'orientation {orientation} .*store the turned image')


def test_each_page_of_a_tiff_has_its_orientation():
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for orientation in (1, 3):
            tag = [(274, 'H', 1, orientation, True)]
            writer.write(plate(), photometric='minisblack', metadata=None, extratags=tag)
    assert read(stream.getvalue(), frame=0).meta['frames'] == 2
    with pytest.raises(ImagingError, match='orientation 3'):
        read(stream.getvalue(), frame=1)


def test_exif_that_is_damaged_or_says_nothing_turns_nothing():
    for block in (b'Exif\0\0II*\0', b'Exif\0\0' + bytes(range(200)), b'Exif\0\0'):
        assert read(jpeg(plate(), exif=block)).pixels.shape == plate().shape


# ----------------------------------------------------------------------------------- frames, channels


@pytest.mark.parametrize('kind', ['imagej', 'shaped'])
def test_planes_behind_a_single_directory(kind):
    stack = np.stack([plate(64, 80, 16, seed) for seed in range(5)])
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, imagej=kind == 'imagej') as writer:
        if kind == 'shaped':
            writer.write(stack, photometric='minisblack', metadata=dict(axes='ZYX'), truncate=True)
        else:
            text = 'ImageJ=1.54f\nimages=5\nslices=5\nunit=mm\n'
            stream = io.BytesIO()
            tifffile.imwrite(
                stream, stack[0], photometric='minisblack', description=text, metadata=None, byteorder='>'
            )
            stream.write(stack[1:].astype('>u2').tobytes())
    data = stream.getvalue()
    for index, plane in enumerate(stack):
        found = read(data, frame=index)
        np.testing.assert_array_equal(found.pixels, plane)
        assert found.meta['frames'] == 5 and found.pixels.dtype.isnative
    with pytest.warns(UserWarning, match='holds 5 frames'):
        read(data)
    refused(data[: len(data) - stack[0].nbytes], 'expected 5 planes')


def test_other_stacks_in_one_directory_are_refused():
    planes = struct.pack('<12I', *range(12))
    refused(tiff(plate(), extratags=[(33629, 'I', 12, planes, True)]), 'found a stack')
    volume = np.stack([plate(64, 64)] * 16)
    stream = io.BytesIO()
    options = dict(tile=(16, 16, 16), metadata=None, volumetric=True)
    tifffile.imwrite(stream, volume, photometric='minisblack', **options)
    refused(stream.getvalue(), 'found a stack')


def test_two_energies_are_named_and_opacity_still_is():
    pair = np.stack([plate(), plate(seed=1)])
    refused(tiff(np.moveaxis(pair, 0, -1), planarconfig='contig'), 'one gray channel, found 2 .*energies')
    refused(tiff(pair, planarconfig='separate'), 'one gray channel, found 2')
    three = np.dstack([plate(seed=k) for k in range(3)])
    refused(tiff(three, planarconfig='contig'), 'one gray channel, found 3')
    clear = np.dstack([plate(), plate(seed=1)])
    refused(tiff(clear, extrasamples=['unassalpha']), 'transparency')
    opaque = np.dstack([plate(), np.full_like(plate(), 255)])
    np.testing.assert_array_equal(read(tiff(opaque, extrasamples=['unassalpha'])).pixels, plate())


def test_a_dicom_that_holds_more_frames_than_it_says():
    stack = np.stack([ramp(12)] * 3)
    for syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian):
        refused(dicom(stack, 12, syntax, frames=3, NumberOfFrames=1), 'expected 1 frames, .* for 3|found 3')
    for syntax in (*CODECS, uid.RLELossless):
        data = dicom(stack, 12, syntax, frames=3)
        ds = pydicom.dcmread(io.BytesIO(data))
        ds.NumberOfFrames = 1
        stream = io.BytesIO()
        ds.save_as(stream)
        refused(stream.getvalue(), 'expected 1 frames, .*found 3')
        frames = [bytes(f) for f in pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=3)]
        ds.PixelData = encapsulate(frames, has_bot=False)
        stream = io.BytesIO()
        ds.save_as(stream)
        refused(stream.getvalue(), 'expected 1 frames|intact radiograph')


def test_a_frame_of_rle_in_several_fragments():
    pixels = ramp(12)
    data = dicom(pixels, 12, uid.RLELossless)
    ds = pydicom.dcmread(io.BytesIO(data))
    frame = bytes(next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1)))
    ds.PixelData = encapsulate([frame], fragments_per_frame=3, has_bot=False)
    stream = io.BytesIO()
    ds.save_as(stream)
    np.testing.assert_array_equal(read(stream.getvalue()).pixels, pixels)


def test_native_pixels_may_be_padded():
    data = dicom(ramp(8))
    ds = pydicom.dcmread(io.BytesIO(data))
    ds.PixelData += bytes(100)
    stream = io.BytesIO()
    ds.save_as(stream)
    np.testing.assert_array_equal(read(stream.getvalue()).pixels, ramp(8))


# ---------------------------------------------------------------- tags that give samples another meaning


@pytest.mark.parametrize('photometric', ['cfa', 'linear_raw', 'logl', 'mask'])
def test_samples_that_are_no_gray_levels_are_refused(photometric):
    data = bytearray(tiff(plate(bits=16)))
    code = dict(cfa=32803, linear_raw=34892, logl=32844, mask=4)[photometric]
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        struct.pack_into('<H', data, tif.pages[0].tags[262].valueoffset, code)
    refused(bytes(data), 'expected gray levels')


def test_a_thumbnail_before_its_image_is_refused():
    refused(tiff(plate(), subfiletype=1), 'reduced copy')


def test_a_palette_of_8_bits_and_one_with_extra_samples():
    pixels = ramp(8)
    levels = np.repeat(np.arange(256, dtype=np.uint16)[None], 3, axis=0)
    found = read(tiff(pixels, photometric='palette', colormap=levels))
    np.testing.assert_array_equal(found.pixels, pixels)
    assert (found.bits, found.high, found.pixels.dtype) == (8, 255, np.uint8)


@pytest.mark.parametrize('compression', [None, 'lzw', 'zlib', 'packbits', 'zstd', 'lzma'])
def test_a_strip_that_holds_too_little(compression):
    pixels = plate(bits=16)
    with tifffile.TiffFile(io.BytesIO(tiff(pixels[:48], compression=compression))) as tif:
        page = tif.pages[0]
        tif.filehandle.seek(page.dataoffsets[0])
        half = tif.filehandle.read(page.databytecounts[0])
    data = tiff(pixels, compression=compression)
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        page = tif.pages[0]
        tag = page.tags[279]
        spoilt = bytearray(data)
        spoilt[page.dataoffsets[0] : page.dataoffsets[0] + len(half)] = half
        struct.pack_into({3: '<H', 4: '<I'}[int(tag.dtype)], spoilt, tag.valueoffset, len(half))
    refused(bytes(spoilt), 'intact radiograph|truncated|hold the whole image')


# ------------------------------------------------------------------------------------------------- BMP


def bitmap(header, width=16, height=8, depth=8, compression=0, body=b''):
    if header == 12:
        info = struct.pack('<IHHHH', 12, width, height, 1, depth)
        palette = bytes(v for k in range(256) for v in (k, k, k))
    else:
        info = struct.pack('<IiiHHIIiiII', 40, width, height, 1, depth, compression, 0, 0, 0, 0, 0)
        palette = bytes(v for k in range(256) for v in (k, k, k, 0))
    palette = palette if depth <= 8 else b''
    head = b'BM' + struct.pack('<IHHI', 0, 0, 0, 14 + len(info) + len(palette))
    return head + info + palette + (body or bytes(width * height * depth // 8))


def test_bitmaps_of_other_kinds_are_named():
    refused(bitmap(12), 'found an OS/2 bitmap')
    refused(bitmap(40, depth=1), 'found 1 bits per pixel;')
    refused(bitmap(40, depth=1, compression=1), 'found 1 bits per pixel in 8-bit run lengths')
    refused(bitmap(40, depth=8, compression=1), 'found 8 bits per pixel in 8-bit run lengths')
    refused(bitmap(40, depth=16, compression=3), 'found 16 bits per pixel in bit fields')


def test_the_unused_byte_of_a_bitmap_of_32_bits_is_no_opacity():
    levels = np.arange(128, dtype=np.uint8)
    for unused in (0, 7, 255):
        body = np.stack([levels, levels, levels, np.full_like(levels, unused)], 1).tobytes()
        found = read(bitmap(40, depth=32, body=body)).pixels
        np.testing.assert_array_equal(found, levels.reshape(8, 16)[::-1])


def test_a_palette_of_a_bitmap_is_resolved():
    data = bytearray(bitmap(40, body=bytes(range(128))))
    data[54 : 54 + 1024] = bytes(v for k in range(256) for v in (255 - k, 255 - k, 255 - k, 0))
    np.testing.assert_array_equal(read(bytes(data)).pixels, 255 - np.arange(128).reshape(8, 16)[::-1])


# ---------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
def test_a_percentile_window_that_leaves_no_gray_is_refused(dtype):
    pixels = np.full((400, 400), 20, dtype)
    pixels[100:125, 100:125] = 30 + np.arange(625).reshape(25, 25) % 90
    one = Radiograph(pixels, 16, 0, 65535, meta=dict(file='a.png'))
    with pytest.raises(ImagingError, match='^a.png: expected grays between the percentiles 0.5 and 99.5'):
        apply_window(one, dict(type='percentile', low=0.5, high=99.5))
    out = apply_window(one, dict(type='percentile', low=0, high=100))
    assert len(np.unique(out)) > 50
    # Two values are black and white under any window.
    binary = Radiograph((pixels > 20).astype(dtype), 16, 0, 65535)
    assert set(np.unique(apply_window(binary, dict(type='percentile', low=0, high=100)))) == {0, 255}


def test_neighbouring_percentiles_leave_no_gray_either():
    pixels = np.full((100, 100), 20, np.uint16)
    pixels[:50] = 21
    pixels[0, :20] = 500 + np.arange(20)
    one = Radiograph(pixels, 16, 0, 65535, meta=dict(file='a.png'))
    with pytest.raises(ImagingError, match='20 and 21 with none between'):
        apply_window(one, dict(type='percentile', low=0.5, high=99.5))


def test_no_warning_comes_from_a_library():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read(dicom(ramp(8)), frame=0)
        read(cv2.imencode('.bmp', ramp(8))[1].tobytes(), frame=0)
