"""read: every format keeps its values, windows act in the file's depth, bad files end in one line."""

import contextlib
import io
import os
import random
import struct
import time
import warnings
import zlib

import cv2
import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
from helpers.damage import check_mutations, in_process, mutate, peak_memory
from helpers.radiograph_files import (
    CASES,
    CODECS,
    LOSSY,
    dicom,
    png,
    png_by_hand,
    png_chunk,
    png_chunks,
    png_kinds,
    png_of,
    ramp,
    tiff,
)
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from projects.radiograph.image import ImagingError, Radiograph
from projects.radiograph.listing import SUFFIXES, files_below, is_radiograph
from projects.radiograph.read import read
from projects.radiograph.tiff import MAX_PAGES
from projects.radiograph.window import apply_window, count_codes, dataset_window


@pytest.mark.parametrize('name', CASES)
def test_every_code_survives_in_order(name, tmp_path):
    data, expected, bits = CASES[name]
    path = tmp_path / 'radiograph'
    path.write_bytes(data)
    radiograph = read(path)
    assert radiograph.pixels.dtype == expected.dtype
    assert radiograph.pixels.dtype.isnative
    np.testing.assert_array_equal(radiograph.pixels, expected)
    assert radiograph.bits == bits
    np.testing.assert_array_equal(read(data).pixels, expected)
    # The full window keeps the order of all codes, and their distance in float32.
    full = apply_window(radiograph, dict(type='full'), 'float32').ravel()
    assert (np.diff(full) > 0).all()
    assert full.min() >= 0 and full.max() <= 255
    # Two neighbouring codes inside a narrow window stay apart, also in 8 bit.
    low = int(expected.ravel()[expected.size // 2])
    high = int(expected.ravel()[expected.size // 2 + 1])
    narrow = apply_window(radiograph, dict(type='absolute', low=low, high=high)).ravel()
    assert narrow[expected.size // 2] == 0 and narrow[expected.size // 2 + 1] == 255
    assert (np.diff(narrow.astype(int)) >= 0).all()


@pytest.mark.parametrize('bits', [10, 12, 14])
def test_packed_tiff_states_its_bits(bits):
    pixels = ramp(bits)
    packed = imagecodecs.packints_encode(pixels, bits)
    data = bytearray(tiff(pixels, rowsperstrip=pixels.shape[0]))
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        page = tif.pages[0]
        offset = page.dataoffsets[0]
        struct.pack_into('<H', data, page.tags['BitsPerSample'].valueoffset, bits)
        count = page.tags['StripByteCounts'] if 'StripByteCounts' in page.tags else page.tags[279]
        fmt = {3: '<H', 4: '<I'}[int(count.dtype)]
        struct.pack_into(fmt, data, count.valueoffset, len(packed))
    data[offset : offset + len(packed)] = packed
    radiograph = read(bytes(data))
    np.testing.assert_array_equal(radiograph.pixels, pixels)
    assert (radiograph.bits, radiograph.low, radiograph.high) == (bits, 0, 2**bits - 1)
    assert apply_window(radiograph, dict(type='full')).max() == 255


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64'])
def test_float_tiff(dtype):
    pixels = np.linspace(0.25, 0.75, 1024).astype(dtype).reshape(32, 32)
    radiograph = read(tiff(pixels))
    np.testing.assert_array_equal(radiograph.pixels, pixels)
    out = apply_window(radiograph, dict(type='absolute', low=0.25, high=0.75), 'float32')
    assert (np.diff(out.ravel()) > 0).all()
    assert out[0, 0] == 0 and out[-1, -1] == 255
    with pytest.raises(ImagingError, match='floating-point files have none'):
        apply_window(radiograph, dict(type='full'))
    pixels[3, 4] = np.nan
    with pytest.raises(ImagingError, match='1 nan or infinite'):
        read(tiff(pixels))


def test_a_png_with_significant_bits_is_left_justified_and_spans_its_container():
    pixels = ramp(12) << 4
    radiograph = read(png(pixels, (b'sBIT', b'\x0c')))
    np.testing.assert_array_equal(radiograph.pixels, pixels)
    assert (radiograph.low, radiograph.high) == (0, 65535)


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('filters', [(0,), (1,), (2,), (3,), (4,), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize('interlaced', [False, True])
@pytest.mark.parametrize('shape', [(1, 1), (23, 37), (40, 3)])
def test_every_kind_of_gray_png(shape, interlaced, filters, bits):
    pixels = np.random.default_rng(0).integers(0, 2**bits, shape).astype(f'u{bits // 8}')
    data = png_by_hand(pixels, filters, interlaced)
    np.testing.assert_array_equal(read(data).pixels, pixels)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), pixels)


@pytest.mark.parametrize(('colour', 'bits', 'interlaced', 'data', 'gray'), [*png_kinds()])
def test_gray_in_every_other_kind_of_png(colour, bits, interlaced, data, gray):
    found = read(data)
    np.testing.assert_array_equal(found.pixels, gray)
    assert found.pixels.dtype == gray.dtype and found.bits == max(bits, 8)


def test_jpeg_decodes_as_opencv_does():
    pixels = cv2.GaussianBlur(ramp(16).astype(np.uint8), (0, 0), 5)
    data = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    got = read(data).pixels
    assert got.shape == pixels.shape and got.dtype == np.uint8
    assert np.abs(got.astype(int) - pixels).max() <= 4
    lossy = read(tiff(pixels, compression='jpeg', tile=(64, 64))).pixels
    assert np.abs(lossy.astype(int) - pixels).max() <= 6


@pytest.mark.parametrize('syntax', LOSSY, ids=[uid.UID(s).keyword for s in LOSSY])
def test_lossy_dicom_is_read_within_the_loss(syntax):
    bits = LOSSY[syntax][0]
    y, x = np.mgrid[:96, :128]
    pixels = ((2**bits - 1) * (0.5 + 0.4 * np.sin(x / 17) * np.cos(y / 11))).astype(f'u{1 + (bits > 8)}')
    got = read(dicom(pixels, bits, syntax))
    assert (got.bits, got.high) == (bits, 2**bits - 1) and got.pixels.dtype == pixels.dtype
    off = np.abs(got.pixels.astype(int) - pixels)
    assert off.max() <= 0.02 * 2**bits
    if syntax == uid.JPEGLSNearLossless:
        assert 0 < off.max() <= 3


# ------------------------------------------------------------------------------------------- colour


def test_equal_channels_are_accepted_and_colour_is_refused(tmp_path):
    gray = ramp(16)
    rgb = np.repeat(gray[..., None], 3, axis=2)
    rgba = np.dstack([rgb, np.full_like(gray, 65535)])
    cast = rgb.copy()
    cast[5, 7, 2] ^= 1
    planes = np.moveaxis(rgb, -1, 0)
    good = [
        png(rgb),
        png(rgba),
        tiff(rgb, photometric='rgb'),
        tiff(planes, photometric='rgb', planarconfig='separate'),
        dicom(rgb),
        dicom(rgb, syntax=uid.RLELossless),
    ]
    for data in good:
        np.testing.assert_array_equal(read(data).pixels, gray)
    for data in (png(cast), tiff(cast, photometric='rgb'), dicom(cast)):
        with pytest.raises(ImagingError, match='colour image'):
            read(data)
    clear = rgba.copy()
    clear[0, 0, 3] = 0
    # One gray value is transparent, or one colour.
    for data in (png(clear), png(gray, (b'tRNS', b'\0\7')), png(rgb, (b'tRNS', b'\0\7' * 3))):
        with pytest.raises(ImagingError, match='transparency'):
            read(data)


def test_a_gray_palette_is_resolved():
    pixels = ramp(8)
    colormap = np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 3, axis=0)
    data = tiff(pixels, photometric='palette', colormap=colormap)
    np.testing.assert_array_equal(read(data).pixels, pixels.astype(np.uint16) * 257)


# ------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize('kind', ['tiff', 'dicom', *(uid.UID(s).keyword for s in CODECS), 'RLELossless'])
def test_frames(kind):
    stack = np.stack([ramp(12), ramp(12)[::-1], ramp(12)[:, ::-1]])
    if kind == 'tiff':
        data = tiff(list(stack), compression='lzw')
    else:
        syntax = uid.ExplicitVRLittleEndian if kind == 'dicom' else getattr(uid, kind)
        data = dicom(stack, 12, syntax, frames=3)
    for index, expected in enumerate(stack):
        radiograph = read(data, frame=index)
        np.testing.assert_array_equal(radiograph.pixels, expected)
        assert (radiograph.meta['frame'], radiograph.meta['frames']) == (index, 3)
    with pytest.warns(UserWarning, match='a.tif: holds 3 frames'):
        np.testing.assert_array_equal(read(data, name='a.tif').pixels, stack[0])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read(data, frame=0)
    for index in (3, -1):
        with pytest.raises(ImagingError, match=r'expected a frame in 0\.\.2'):
            read(data, frame=index)


# -------------------------------------------------------------------------------------------- DICOM


def test_rescale_is_in_the_units_of_the_window():
    stored = ramp(12)
    radiograph = read(dicom(stored, 12, RescaleSlope=2, RescaleIntercept=-1024))
    assert radiograph.pixels.dtype == np.int32
    np.testing.assert_array_equal(radiograph.pixels, stored.astype(int) * 2 - 1024)
    assert (radiograph.low, radiograph.high) == (-1024, 7166)
    fine = read(dicom(ramp(16), RescaleSlope='0.001', RescaleIntercept='1000'))
    assert len(np.unique(fine.pixels)) == 65536
    falling = read(dicom(stored, 12, RescaleSlope=-1, RescaleIntercept=4095))
    np.testing.assert_array_equal(falling.pixels, 4095 - stored.astype(int))
    out = apply_window(radiograph, dict(type='absolute', low=0, high=2))
    np.testing.assert_array_equal(out, np.where(radiograph.pixels <= 0, 0, 255))
    with pytest.raises(ImagingError, match='rescale slope'):
        read(dicom(stored, 12, RescaleSlope=0, RescaleIntercept=0))


def test_monochrome1_keeps_values_and_inverts_the_window():
    stored = ramp(12)
    one = read(dicom(stored, 12, PhotometricInterpretation='MONOCHROME1'))
    two = read(dicom(stored, 12))
    np.testing.assert_array_equal(one.pixels, two.pixels)
    for window in (dict(type='full'), dict(type='absolute', low=100, high=900), dict(type='full', log=True)):
        a = apply_window(one, window, 'float32')
        np.testing.assert_allclose(a, 255 - apply_window(two, window, 'float32'), atol=1e-4)
    inverse = read(dicom(stored, 12, PresentationLUTShape='INVERSE'))
    assert inverse.invert and not two.invert
    white = read(tiff(stored, photometric='miniswhite'))
    np.testing.assert_array_equal(white.pixels, stored)
    assert white.invert


def test_voi_windows():
    stored = ramp(12)
    full = dict(type='voi')
    # PS3.3 C.11.2.1.2.1: LINEAR is 0 at c - .5 - (w-1)/2 and full at c - .5 + (w-1)/2.
    linear = read(dicom(stored, 12, WindowCenter=[2048, 100], WindowWidth=[4096, 10]))
    assert linear.voi == ('linear', 0, 4095)
    exact = read(dicom(stored, 12, WindowCenter=1000, WindowWidth=200, VOILUTFunction='LINEAR_EXACT'))
    out = apply_window(exact, full, 'float32').ravel()
    assert (out[900], out[1000], out[1100]) == (0, 127.5, 255)
    sigmoid = read(dicom(stored, 12, WindowCenter=1000, WindowWidth=200, VOILUTFunction='SIGMOID'))
    out = apply_window(sigmoid, full, 'float32').ravel()
    assert out[1000] == 127.5
    assert out[1050] == pytest.approx(255 / (1 + np.exp(-1)), rel=1e-6)
    with pytest.raises(ImagingError, match='found none; state an absolute window'):
        apply_window(read(dicom(stored, 12)), full)
    # Width 1 is a step: PS3.3 has y_min up to c - .5 and y_max beyond.
    step = read(dicom(stored, 12, WindowCenter=1000, WindowWidth=1))
    out = apply_window(step, full).ravel()
    assert (out[999], out[1000]) == (0, 255)


@pytest.mark.parametrize(
    'tags',
    [
        dict(WindowCenter=1000, WindowWidth=0),
        dict(WindowCenter=1000, WindowWidth='0.5', VOILUTFunction='LINEAR'),
        dict(WindowCenter=1000, WindowWidth=-4, VOILUTFunction='SIGMOID'),
    ],
)
def test_a_wrong_voi_is_an_error_of_the_voi_window_only(tags):
    one = read(dicom(ramp(12), 12, **tags), name='a.dcm')
    assert apply_window(one, dict(type='full')).max() == 255
    with pytest.raises(ImagingError, match='^a.dcm: expected a sound VOI window'):
        apply_window(one, dict(type='voi'))


def lut(values, first, bits):
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item['LUTDescriptor'].VR = 'US'
    item.LUTData = np.asarray(values, '<u2').tobytes()
    item['LUTData'].VR = 'OW'
    item.ModalityLUTType = 'US'
    return Sequence([item])


def test_lookup_tables():
    stored = ramp(12)
    values = (np.arange(1000) ** 2 // 250).astype(int)
    voi = read(dicom(stored, 12, VOILUTSequence=lut(values, 500, 12)))
    out = apply_window(voi, dict(type='voi'), 'float32').ravel()
    expected = values[np.clip(np.arange(4096) - 500, 0, 999)] / 4095 * 255
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    short = lut(values, 500, 12)
    short[0].LUTData = short[0].LUTData[:-2]
    with pytest.raises(ImagingError, match='1000 entries in 999 words'):
        apply_window(read(dicom(stored, 12, VOILUTSequence=short)), dict(type='voi'))
    modality = read(dicom(stored, 12, ModalityLUTSequence=lut(np.arange(4096) * 16, 0, 16)))
    np.testing.assert_array_equal(modality.pixels, stored * 16)
    assert (modality.low, modality.high) == (0, 65535)


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize('entries', [256, 255])
def test_a_packed_table_of_8_bit_entries(syntax, entries):
    values = (np.arange(entries, dtype=np.uint8) * 7) ^ 0x5A
    table = lut(range(entries), 0, 8)
    words = np.frombuffer(values.tobytes() + b'\0' * (entries % 2), '<u2')
    table[0].LUTData = words.astype('>u2' if syntax == uid.ExplicitVRBigEndian else '<u2').tobytes()
    table[0]['LUTData'].VR = 'OW'
    out = apply_window(read(dicom(ramp(8), 8, syntax, VOILUTSequence=table)), dict(type='voi')).ravel()
    np.testing.assert_array_equal(out[:entries], values)


def test_enhanced_multi_frame_has_a_rescale_and_a_window_per_frame():
    groups = []
    for k in (1, 2):
        value, voi, group = Dataset(), Dataset(), Dataset()
        value.RescaleSlope, value.RescaleIntercept = k, 0
        voi.WindowCenter, voi.WindowWidth = 1000 * k, 100
        group.PixelValueTransformationSequence = [value]
        group.FrameVOILUTSequence = [voi]
        groups.append(group)
    stack = np.stack([ramp(12)] * 2)
    data = dicom(stack, 12, frames=2, PerFrameFunctionalGroupsSequence=groups)
    for index in (0, 1):
        radiograph = read(data, frame=index)
        np.testing.assert_array_equal(radiograph.pixels, stack[0] * (index + 1))
        assert radiograph.voi[1] == 1000 * (index + 1) - 50


def test_unused_high_bits_do_not_reach_the_pixels():
    overlay = ramp(12) | np.uint16(0xF000)
    declared = Dataset()
    declared.add_new((0x6000, 0x0102), 'US', 12)  # OverlayBitPosition
    data = dicom(overlay, 12, elements=declared)
    np.testing.assert_array_equal(read(data).pixels, ramp(12))


def test_values_beyond_the_stored_bits_are_refused(tmp_path):
    # A header of 10 bits before values of 12: they would wrap.
    one_line(dicom(ramp(12), 10), tmp_path / 'a.dcm', 'expected values of 10 bits, .* found 4095')
    for syntax in CODECS:
        ds = pydicom.dcmread(io.BytesIO(dicom(ramp(12), 12, syntax)))
        ds.BitsStored, ds.HighBit = 10, 9  # of the header alone: the frame keeps its 12
        stream = io.BytesIO()
        ds.save_as(stream)
        one_line(stream.getvalue(), tmp_path / 'a.dcm', '10 bits|precision')
    signed = ramp(12, signed=True)
    cut = signed & 0x0FFF  # no repeated sign above bit 11, which is usual too
    np.testing.assert_array_equal(read(dicom(cut, 12)).pixels, signed)
    np.testing.assert_array_equal(read(dicom(signed, 12)).pixels, signed)
    one_line(dicom(cut | np.int16(0x2000), 12), tmp_path / 'a.dcm', 'expected values of 12 bits')


def test_values_in_the_upper_bits_are_refused(tmp_path):
    left = ramp(12) << 4
    one_line(dicom(left, 12, HighBit=15), tmp_path / 'a.dcm', 'expected HighBit 11, .* found 15')


def test_indices_of_a_palette_are_no_gray_levels(tmp_path):
    data = dicom(ramp(8), PhotometricInterpretation='PALETTE COLOR')
    one_line(data, tmp_path / 'a.dcm', 'expected gray levels .* found .*PALETTE COLOR')


# ------------------------------------------------------------------------------------------ windows


def radiograph(pixels, low=0, high=None):
    high = np.iinfo(pixels.dtype).max if high is None else high
    return Radiograph(pixels, 8 * pixels.dtype.itemsize, low, high, meta=dict(file='x'))


def test_the_full_window_of_an_8_bit_file_is_the_file():
    one = read(png(ramp(8)))
    assert apply_window(one, dict(type='full')) is one.pixels
    np.testing.assert_array_equal(apply_window(one, dict(type='full'), 'float32'), ramp(8))


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'int32', 'float32'])
def test_percentile_window_ignores_outliers(dtype):
    values = np.full(10_000, 50, dtype)
    values[:4000] = 20
    values[5000:9950] = 100
    values[-1] = np.iinfo(dtype).max if dtype != 'float32' else 1e9
    one = radiograph(values.reshape(100, 100), high=1.0)
    out = apply_window(one, dict(type='percentile', low=1, high=99), 'float32').ravel()
    assert (out[0], out[5000], out[-1]) == (0, 255, 255)
    assert out[4500] == pytest.approx(255 * 30 / 80)


def test_percentiles_of_a_film_count_every_pixel():
    # More pixels of one value than float32 counts: 2**24.
    film = np.zeros((4200, 4200), np.uint8)
    film[-1, -600:] = 200
    one = radiograph(film)
    top = apply_window(one, dict(type='percentile', low=0, high=100), 'float32')
    assert top[-1, -1] == 255 and top[0, 0] == 0
    assert count_codes(film)[[0, 200]].tolist() == [4200**2 - 600, 600]


def test_a_constant_image_is_black_under_a_percentile_window():
    one = radiograph(np.full((8, 8), 7, np.uint16))
    assert not apply_window(one, dict(type='percentile', low=0, high=100)).any()


def test_log_domain_gives_equal_steps_to_equal_attenuation():
    # Beer-Lambert: N0 exp(-mu t) for equally spaced t.
    pixels = np.round(60000 * np.exp(-np.arange(8) * 0.5)).astype(np.uint16)[None]
    out = apply_window(radiograph(pixels), dict(type='full', log=True), 'float32').ravel()
    steps = np.diff(out)
    assert (steps < 0).all()
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-3)
    assert apply_window(radiograph(np.zeros((1, 1), np.uint16)), dict(type='full', log=True))[0, 0] == 0
    window = dict(type='absolute', low=100, high=10_000, log=True)
    out = apply_window(radiograph(np.array([[10, 100, 1000, 10_000, 60_000]], np.uint16)), window, 'float32')
    np.testing.assert_allclose(out[0], [0, 0, 127.5, 255, 255])
    negative = radiograph(np.full((2, 2), -5, np.int16), -32768, -1)
    with pytest.raises(ImagingError, match='positive values'):
        apply_window(negative, dict(type='full', log=True))


@pytest.mark.parametrize(
    'window',
    [
        'full',
        dict(),
        dict(type='clip'),
        dict(type='full', low=1),
        dict(type='absolute', low=1),
        dict(type='absolute', low=2, high=1),
        dict(type='absolute', low=0, high=float('nan')),
        dict(type='absolute', low=0, high=9, log=True),
        dict(type='percentile', low=-1, high=99),
        dict(type='percentile', low=1, high=101),
        dict(type='voi', log=True),
    ],
)
def test_wrong_windows_are_refused(window):
    with pytest.raises(ImagingError, match='^window .*expected'):
        apply_window(radiograph(ramp(8)), window)


def test_uint8_is_rounded_to_the_nearest_level():
    out = apply_window(radiograph(ramp(16)), dict(type='full')).ravel()
    # 255 * 128 / 65535 = 0.498, 255 * 129 / 65535 = 0.502
    assert (out[128], out[129], out[-129], out[-130]) == (0, 1, 255, 254)


def test_wrong_output_type_is_refused():
    with pytest.raises(ImagingError, match='uint8 or float32'):
        apply_window(radiograph(ramp(8)), dict(type='full'), 'uint16')


def test_dataset_window_spans_all_files(tmp_path):
    for k, base in enumerate((1000, 3000)):
        (tmp_path / f'{k}.png').write_bytes(
            png(np.linspace(base, base + 999, 10_000).astype(np.uint16).reshape(100, 100))
        )
    window = dataset_window(sorted(tmp_path.iterdir()), 0, 100)
    assert window == dict(type='absolute', low=1000.0, high=3999.0)
    apply_window(read(tmp_path / '0.png'), window)
    with pytest.raises(ImagingError, match='at least one'):
        dataset_window([])


# ---------------------------------------------------------------------------------------- bad input


def one_line(data, path, match=None):
    path.write_bytes(data)
    with pytest.raises(ImagingError, match=match) as caught:
        read(path, frame=0)
    message = str(caught.value)
    assert message.startswith(f'{path}: expected') and '\n' not in message and ';' in message
    return message


SAMPLES = ['png-16', 'tiff-16-tiles_deflate', 'tiff-16-lzw', 'tiff-16', 'dicom-u12', 'bmp-8'] + [
    f'dicom-u16-{uid.UID(s).keyword}' for s in (*CODECS, uid.RLELossless)
]


@pytest.mark.parametrize('name', SAMPLES)
@pytest.mark.parametrize('keep', [0.02, 0.5, 0.95])
def test_truncated_files(name, keep, tmp_path):
    data = CASES[name][0]
    one_line(data[: int(len(data) * keep)], tmp_path / 'cut')


def test_a_truncated_jpeg(tmp_path):
    data = cv2.imencode('.jpg', ramp(16).astype(np.uint8))[1].tobytes()
    one_line(data[: len(data) // 2], tmp_path / 'cut.jpg', 'truncated')


def test_a_compressed_bmp(tmp_path):
    data = bytearray(CASES['bmp-8'][0])
    data[30] = 1
    one_line(bytes(data), tmp_path / 'a.bmp', 'uncompressed 8-bit BMP')


def test_a_flipped_bit_in_a_png(tmp_path):
    data = bytearray(CASES['png-16'][0])
    data[len(data) // 2] ^= 16
    one_line(bytes(data), tmp_path / 'flipped.png', 'checksum')


@pytest.mark.parametrize('interlaced', [False, True])
@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize(
    'spoil',
    [
        lambda stream: stream[: len(stream) // 2],
        lambda stream: stream[:-30],
        lambda stream: stream[:300] + b'\xff' * 100 + stream[400:],
        lambda stream: b'',
        lambda stream: zlib.compress(zlib.decompress(stream)[:-50]),
        lambda stream: zlib.compress(b'\7' + zlib.decompress(stream)[1:]),
    ],
    ids=['half', 'short', 'spoilt', 'empty', 'rows missing', 'unknown filter'],
)
def test_a_png_whose_stream_is_damaged_under_right_checksums(spoil, bits, interlaced, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2**bits, (23, 37)).astype(f'u{bits // 8}')
    one_line(png_by_hand(pixels, interlaced=interlaced, spoil=spoil), tmp_path / 'a.png')


def frame_control(number):
    """The fcTL chunk of a frame of 33 x 20 px (APNG specification)."""
    return b'fcTL', struct.pack('>IIIIIHHBB', number, 33, 20, 0, 0, 1, 10, 0, 0)


def test_an_animated_png_is_refused():
    """In a process of its own, since OpenCV ends its own over an unknown filter in one."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 33, 1)).astype('u1').repeat(3, 2)
    head, frames = struct.pack('>IIBBBBB', 33, 20, 8, 2, 0, 0, 0), struct.pack('>II', 2, 0)
    files = []
    for unknown in (0, 9):
        rows = [bytes([unknown if y == 5 else 0]) + row.tobytes() for y, row in enumerate(pixels)]
        data = zlib.compress(b''.join(rows))
        first, second = frame_control(0), [frame_control(1), (b'fdAT', b'\0\0\0\2' + data)]
        chunks = [(b'IHDR', head), (b'acTL', frames), first, (b'IDAT', data), *second, (b'IEND', b'')]
        files.append(png_of(chunks))
    for kind in (b'acTL', b'fcTL', b'fdAT'):
        files.append(png_of([chunk for chunk in chunks if chunk[0] in (kind, b'IHDR', b'IDAT', b'IEND')]))
    result = in_process(refusals, files, seconds=120)
    assert result == ['a.png: expected one image, found an animated PNG; export single images'] * 5


def refusals(files):
    """What is said of each file."""
    messages = []
    for data in files:
        try:
            messages.append(str(read(data, name='a.png').meta))
        except ImagingError as error:
            messages.append(str(error))
    return messages


def test_empty_foreign_and_missing_files(tmp_path):
    one_line(b'', tmp_path / 'a.png', 'empty file')
    one_line(b'%PDF-1.7 ' * 100, tmp_path / 'a.png', 'none of them')
    for path in (tmp_path / 'none.png', tmp_path, 'a\0b.png'):
        with pytest.raises(ImagingError, match='expected a readable file'):
            read(path)


def test_absurd_dimensions(tmp_path):
    data = bytearray(png(ramp(8)))
    struct.pack_into('>II', data, 16, 60_000, 60_000)
    struct.pack_into('>I', data, 29, zlib.crc32(bytes(data[12:29])))
    one_line(bytes(data), tmp_path / 'a.png', '60000 x 60000')
    data = bytearray(tiff(ramp(8)))
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        for tag in ('ImageWidth', 'ImageLength'):
            entry = tif.pages[0].tags[tag]
            struct.pack_into('<H' if int(entry.dtype) == 3 else '<I', data, entry.valueoffset, 60_000)
    one_line(bytes(data), tmp_path / 'a.tif', '60000 x 60000')
    one_line(dicom(ramp(8), Rows=60_000, Columns=60_000), tmp_path / 'a.dcm', '60000 x 60000')
    data = bytearray(cv2.imencode('.jpg', ramp(8))[1].tobytes())
    at = data.find(b'\xff\xc0')
    struct.pack_into('>HH', data, at + 5, 65_000, 65_000)
    one_line(bytes(data), tmp_path / 'a.jpg', '65000 x 65000')
    data = bytearray(CASES['bmp-8'][0])
    struct.pack_into('<ii', data, 18, 60_000, 60_000)
    one_line(bytes(data), tmp_path / 'a.bmp', '60000 x 60000')


def test_a_compressed_frame_larger_than_its_header_says(tmp_path):
    for syntax in CODECS:
        data = dicom(ramp(16), syntax=syntax, Rows=16, Columns=16)
        one_line(data, tmp_path / 'a.dcm', r'compressed frame is \(256, 256, 1\)')


def test_a_dicom_without_an_image(tmp_path):
    data = dicom(ramp(8))
    ds = pydicom.dcmread(io.BytesIO(data))
    del ds.Rows, ds.PixelData
    stream = io.BytesIO()
    ds.save_as(stream)
    one_line(stream.getvalue(), tmp_path / 'a.dcm', 'without Rows')


def test_an_unknown_transfer_syntax_is_named(tmp_path):
    data = bytearray(CASES['dicom-u8-JPEGLSLossless'][0])
    at = data.find(b'1.2.840.10008.1.2.4.80')
    data[at : at + 22] = b'1.2.840.10008.1.2.4.66'
    one_line(bytes(data), tmp_path / 'a.dcm', 'rewrite it as explicit little endian')
    high = dicom(ramp(8), syntax=uid.HTJ2KLossless)
    one_line(high, tmp_path / 'a.dcm', 'found High-Throughput JPEG 2000 .*; rewrite it as explicit')


def test_a_deflated_dicom_is_refused_before_it_is_inflated(tmp_path):
    one_line(dicom(ramp(8), syntax=uid.DeflatedExplicitVRLittleEndian), tmp_path / 'a.dcm', 'not deflated')


def test_a_deflated_dicom_is_refused_wherever_its_head_says_so(tmp_path):
    plain = dicom(ramp(8), syntax=uid.DeflatedExplicitVRLittleEndian)
    # Five kilobytes in a field before the transfer syntax.
    old = struct.pack('<HH2sHI', 2, 1, b'OB', 0, 2) + b'\0\1'
    assert plain.count(old) == 1
    long = plain.replace(old, struct.pack('<HH2sHI', 2, 1, b'OB', 0, 5000) + bytes(5000))
    one_line(long, tmp_path / 'a.dcm', 'not deflated')


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('big', [False, True])
def test_a_tiff_of_endless_pages_is_refused_at_once(order, big, tmp_path):
    count, offset = struct.Struct(order + 'HQ'[big]), struct.Struct(order + 'IQ'[big])
    start = 16 if big else 8
    head = b'II' if order == '<' else b'MM'
    head += struct.pack(order + 'HHHQ', 43, 8, 0, start) if big else struct.pack(order + 'HI', 42, start)
    size = count.size + offset.size
    # A chain of directories without a tag; and one whose end leads back to its middle.
    chain = b''.join(count.pack(0) + offset.pack(start + size * (k + 1)) for k in range(300_000))
    one_line(head + chain, tmp_path / 'a.tif', f'at most {MAX_PAGES} pages')
    circle = chain[: 200 * size] + count.pack(0) + offset.pack(start + 150 * size)
    one_line(head + circle, tmp_path / 'a.tif', f'at most {MAX_PAGES} pages')


def test_pages_of_every_kind_are_counted():
    for options in (dict(), dict(bigtiff=True), dict(byteorder='>'), dict(bigtiff=True, byteorder='>')):
        assert read(tiff([ramp(8)] * 5, **options), frame=4).meta['frames'] == 5
        assert read(tiff(ramp(8), **options)).meta['frames'] == 1


def test_a_film_beyond_the_bound_gets_a_remedy_that_helps(tmp_path):
    data = bytearray(png(ramp(8)))
    struct.pack_into('>II', data, 16, 11_000, 10_000)
    struct.pack_into('>I', data, 29, zlib.crc32(bytes(data[12:29])))
    message = one_line(bytes(data), tmp_path / 'film.png', 'coarser pitch')
    assert 'tiles' not in message  # --tile has to read it first


def test_a_sparse_or_short_tiff_is_not_padded_with_zeros(tmp_path):
    data = bytearray(CASES['tiff-16-strips'][0])
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        tag = tif.pages[0].tags[279]
        struct.pack_into('<H' if int(tag.dtype) == 3 else '<I', data, tag.valueoffset, 0)
    one_line(bytes(data), tmp_path / 'a.tif', 'truncated')


def test_suffixes_are_lower_case():
    assert all(s == s.lower() and s.startswith('.') for s in SUFFIXES)


def test_dicom_without_a_suffix_is_a_radiograph_and_other_files_are_not(tmp_path):
    contents = {
        'IM0001': CASES['dicom-u12'][0],
        '1.2.840.113619.2.5': CASES['dicom-u12'][0],
        'README': b'text',
        'short': b'DICM',
        'a.txt': CASES['dicom-u12'][0],
        'b.PNG': b'',
        'DICOMDIR': CASES['dicom-u12'][0],
        '._b.PNG': b'',
        '._IM0001': CASES['dicom-u12'][0],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    found = {name for name in contents if is_radiograph(tmp_path / name)}
    assert found == {'IM0001', '1.2.840.113619.2.5', 'b.PNG'}
    assert not is_radiograph(tmp_path / 'gone')


def test_files_are_listed_through_links_but_not_in_circles(tmp_path):
    root, other = tmp_path / 'root', tmp_path / 'other'
    (root / 'a').mkdir(parents=True)
    other.mkdir()
    for path in (root / '1', root / 'a/2', other / '3'):
        path.write_text('')
    (root / 'a/up').symlink_to(root)
    (root / 'b').symlink_to(other)
    (other / 'back').symlink_to(root / 'a')
    (root / 'gone').symlink_to(tmp_path / 'nothing')
    os.mkfifo(root / 'pipe')
    # By way of `b`, `a` is seen once more; no folder within itself.
    assert files_below(root) == ['1', 'a/2', 'b/3', 'b/back/2']
    assert files_below(tmp_path / 'none') == []


def test_a_reader_asks_for_memory_once_before_it_decodes():
    for name in ('png-16', 'tiff-16-tiles', 'dicom-u16', 'bmp-8'):
        data, expected, _ = CASES[name]
        asked = []
        read(data, admit=asked.append)
        assert len(asked) == 1 and expected.nbytes <= asked[0] <= 4 * expected.nbytes


# ---------------------------------------------------------------------------------------- mutations


PLAUSIBLE = {
    b'tRNS': (b'\0\7', b'\0\7' * 3, b'\xff\0'),
    b'iCCP': (b'icc\0\0' + zlib.compress(bytes(128)), b'icc\0\0'),
    b'gAMA': (struct.pack('>I', 45455), bytes(4)),
    b'sBIT': (b'\3', b'\5\5\5\5'),
    b'bKGD': (b'\0\1', b'\0\1' * 3),
    b'PLTE': (bytes(range(48)), bytes(3), bytes(769)),
    b'hIST': (bytes(32),),
    b'sRGB': (b'\0',),
    b'cHRM': (bytes(32),),
    b'pHYs': (bytes(9),),
    b'eXIf': (b'II*\0\x08\0\0\0\xff\xff', b'MM'),
    b'tEXt': (b'Title\0x', b''),
    b'zTXt': (b'Title\0\0' + zlib.compress(bytes(2**20)),),
    b'iTXt': (b'Title\0\1\0\0\0' + zlib.compress(b'x'),),
    b'sPLT': (b'a\0\x08' + bytes(6),),
    b'acTL': (struct.pack('>II', 2, 0),),
    b'fcTL': (frame_control(0)[1],),
    b'fdAT': (bytes(4),),
    b'xyZz': (b'',),
    b'XYZZ': (b'',),
}
"""Chunks that PNG and APNG define, with bodies that may pass, and two that nobody knows."""


def mutate_png(data, rng):
    """A damaged copy with right checksums, which a decoder therefore gets to see."""
    chunks = png_chunks(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(chunks))
        kind, body = chunks[at]
        what = rng.randrange(8)
        if what == 0 and len(chunks[0][1]) == 13:
            # Width, height, depth, colour, compression, filter and interlace of another picture.
            size = [rng.choice((0, 1, 20, 33, 40, 4000, 2**31 - 1)) for _ in range(2)]
            body = bytearray(chunks[0][1])
            if rng.random() < 0.5:
                struct.pack_into('>II', body, 0, *size)
            for field, values in {8: (1, 2, 4, 8, 16), 9: (0, 2, 3, 4, 6), 12: (0, 1)}.items():
                body[field] = rng.choice((*values, body[field], body[field], rng.randrange(256)))
            chunks[0] = chunks[0][0], bytes(body)
        elif what in (1, 2):
            # The pixels under the compression: filters, values, length.
            idat = [k for k, (name, _) in enumerate(chunks) if name == b'IDAT']
            try:
                stream = bytearray(zlib.decompress(b''.join(chunks[k][1] for k in idat)))
            except zlib.error:
                continue
            where = rng.randrange(len(stream) + 1)
            if what == 1:
                stream[where : where + 1] = bytes([rng.randrange(256)]) * rng.choice((0, 1, 1, 1, 50, 5000))
            else:
                for _ in range(rng.choice((1, 8, 64)) if stream else 0):
                    stream[rng.randrange(len(stream))] = rng.randrange(12)
            chunks[idat[0] : idat[-1] + 1] = [(b'IDAT', zlib.compress(stream))]
        elif what == 3:
            name = rng.choice(list(PLAUSIBLE))
            body = rng.choice((*PLAUSIBLE[name], rng.randbytes(rng.randrange(64))))
            chunks.insert(rng.randrange(1, len(chunks)), (name, body))
        elif what == 4 and len(chunks) > 2:
            del chunks[at]
        elif what == 5:
            chunks.insert(rng.randrange(1, len(chunks)), (kind, body))
        elif what == 6:
            chunks[at] = kind, body[: rng.randrange(len(body) + 1)]
        elif body:
            body = bytearray(body)
            for _ in range(rng.choice((1, 1, 8))):
                body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
            chunks[at] = kind, bytes(body)
        if not any(name == b'IDAT' for name, _ in chunks):
            break
    return png_of(chunks)


def mutation_samples():
    samples = [data for name, (data, _, _) in CASES.items() if '16' not in name or 'dicom' not in name]
    samples += [dicom(np.stack([ramp(8)] * 4), frames=4), tiff([ramp(8)] * 4, compression='zlib')]
    samples += [
        cv2.imencode('.jpg', ramp(12).astype(np.uint8))[1].tobytes(),
        png(ramp(8), (b'sBIT', b'\x08')),
    ]
    samples += [dicom(ramp(8), WindowCenter=9, WindowWidth=5, RescaleSlope=2, RescaleIntercept=1)]
    samples += [dicom(ramp(8), VOILUTSequence=lut(range(256), 0, 8)), tiff(ramp(8).astype(np.float32))]
    return samples


def png_samples():
    samples = [data for _, _, _, data, _ in png_kinds()]
    rng = np.random.default_rng(0)
    for bits in (8, 16):
        gray = rng.integers(0, 2**bits, (20, 33)).astype(f'u{bits // 8}')
        samples += [png_by_hand(gray, interlaced=interlaced) for interlaced in (False, True)] * 3
    return samples


def read_mutations(seed, count, draw=mutation_samples, damage=mutate):
    """Read `count` damaged files; returns how many were refused, the longest CPU time and the peak memory.

    Raises AssertionError, with the mutation's number, for anything but a radiograph or an ImagingError.
    """
    samples, refused_files, longest = draw(), 0, 0.0
    rng = random.Random(seed)
    for k in range(count):
        data = damage(rng.choice(samples), rng)
        start = time.process_time()
        try:
            found = read(data, frame=0, name=f'mutation {k}')
            apply_window(found, dict(type='percentile', low=1, high=99))
        except ImagingError as error:
            message = str(error)
            assert message.startswith(f'mutation {k}: ') and '\n' not in message, message
            refused_files += 1
        except Exception as error:
            raise AssertionError(f'mutation {k} of seed {seed}: {type(error).__name__}: {error}') from error
        longest = max(longest, time.process_time() - start)
    return refused_files, longest, peak_memory()


def read_png_mutations(seed, count):
    return read_mutations(seed, count, png_samples, mutate_png)


@pytest.mark.parametrize(('work', 'count'), [(read_mutations, 400), (read_png_mutations, 1000)])
def test_damaged_files_end_in_one_line(work, count):
    check_mutations(work, 0, count)


@pytest.mark.long
@pytest.mark.parametrize('seed', range(1, 6))
@pytest.mark.parametrize(('work', 'count'), [(read_mutations, 2000), (read_png_mutations, 20_000)])
def test_many_damaged_files_end_in_one_line(work, count, seed):
    check_mutations(work, seed, count)


# -------------------------------------------------------------------------------------- bombs


def test_decompression_bombs_stay_small(tmp_path):
    """256 MiB of zeros in 256 kB, which the header says are 64 x 64."""
    bomb = zlib.compressobj()
    body = b''.join(bomb.compress(bytes(2**20)) for _ in range(256)) + bomb.flush()
    assert len(body) < 2**19
    small = bytearray(tiff(np.zeros((64, 64), np.uint16), compression='zlib', rowsperstrip=64))
    with tifffile.TiffFile(io.BytesIO(small)) as tif:
        page = tif.pages[0]
        offset_tag, count_tag = page.tags[273], page.tags[279]
    struct.pack_into('<H' if int(offset_tag.dtype) == 3 else '<I', small, offset_tag.valueoffset, len(small))
    struct.pack_into('<I', small, count_tag.valueoffset - 6, 4)  # the count's type: 32 bit
    struct.pack_into('<I', small, count_tag.valueoffset, len(body))
    (tmp_path / 'bomb.tif').write_bytes(bytes(small) + body)
    png_bomb = bytearray(png(np.zeros((64, 64), np.uint8)))
    at = png_bomb.find(b'IDAT') - 4
    length = struct.unpack_from('>I', png_bomb, at)[0]
    png_bomb[at : at + 12 + length] = png_chunk(b'IDAT', body)
    (tmp_path / 'bomb.png').write_bytes(png_bomb)
    for name in ('bomb.tif', 'bomb.png'):
        assert in_process(read_peak, tmp_path / name, seconds=120) < 0.3  # GiB


def read_peak(path):
    """Peak memory in GiB after reading a file that may be refused, but only as an ImagingError."""
    with contextlib.suppress(ImagingError):
        assert read(path).pixels.shape == (64, 64)
    return peak_memory()
