"""What the page gets with a radiograph's pixels: windows in its own steps, and the pixel pitch."""

import numpy as np
import pytest
from helpers.radiograph_files import dicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from projects.line.page.pixels import packed
from projects.radiograph.image import ImagingError
from projects.radiograph.read import read
from projects.radiograph.window import window_ends

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def measures(**spacing):
    """A functional group that states pixel measures."""
    inner, outer = Dataset(), Dataset()
    for key, value in spacing.items():
        setattr(inner, key, value)
    outer.PixelMeasuresSequence = Sequence([inner])
    return Sequence([outer])


@pytest.mark.parametrize(
    ('tags', 'expected'),
    [
        (dict(PixelSpacing=[0.1, 0.2]), ((0.2, 0.1), 'PixelSpacing')),  # between rows, between columns
        (dict(ImagerPixelSpacing=[0.1, 0.1]), ((0.1, 0.1), 'ImagerPixelSpacing')),
        (dict(PixelSpacing=[0.1, 0.1], ImagerPixelSpacing=[0.2, 0.2]), ((0.1, 0.1), 'PixelSpacing')),
        (dict(PixelSpacing=[0, 0.1], ImagerPixelSpacing=[0.2, 0.2]), ((0.2, 0.2), 'ImagerPixelSpacing')),
        (
            dict(SharedFunctionalGroupsSequence=measures(PixelSpacing=[0.3, 0.4])),
            ((0.4, 0.3), 'PixelSpacing'),
        ),
        (dict(PixelSpacing=[-1, 1]), (None, None)),
        (dict(), (None, None)),
    ],
)
def test_the_pitch_is_what_the_file_states(tags, expected):
    meta = read(dicom(RAMP, bits=12, **tags)).meta
    assert (meta.get('spacing'), meta.get('spacing_from')) == expected
    headers = packed(read(dicom(RAMP, bits=12, **tags)), dict(type='full'))[1]
    result = headers.get('X-Spacing')
    assert result is None if expected[0] is None else tuple(map(float, result.split(','))) == expected[0]


def test_windows_are_told_in_the_steps_of_the_page():
    radiograph = read(dicom(RAMP, bits=12, WindowCenter=1000, WindowWidth=200))
    content, headers = packed(radiograph, dict(type='absolute', low=100, high=300))
    assert np.array_equal(np.frombuffer(content, '<u2').reshape(RAMP.shape), RAMP)
    assert headers['X-Window'] == '100.0,300.0' and headers['X-Stated'] == '0.0,4095.0'
    low, high = window_ends(radiograph, dict(type='voi'))
    assert (low, high) == pytest.approx((900, 1100), abs=1)
    assert window_ends(radiograph, dict(type='absolute', low=10, high=300, log=True)) == (10, 300)


def test_a_radiograph_that_the_detector_cannot_window_is_shown_all_the_same():
    radiograph = read(dicom(RAMP, bits=12))
    with pytest.raises(ImagingError):
        window_ends(radiograph, dict(type='voi'))
    assert 'X-Window' not in packed(radiograph, dict(type='voi'))[1]
