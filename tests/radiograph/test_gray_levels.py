"""gray_levels: what radiographs look like, and frames without a picture that are none of them."""

import numpy as np
import pytest

from projects.benchmark.refusals import spoilt
from projects.radiograph.gray_levels import MIN_FRAMES, band_of, measure, outside


def plate(seed, height=288, width=384):
    """A plate of uneven thickness with grain, (H, W) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = 0.25 + 0.1 * rng.random() + 0.4 * x / width + 0.1 * y / height
    return ((image + 0.02 * rng.standard_normal(x.shape)).clip(0, 1) * 255).astype(np.uint8)


@pytest.fixture(scope='module')
def band():
    return band_of([measure(plate(seed)) for seed in range(20)])


def test_what_is_measured():
    noise = np.random.default_rng(0).normal(128, 5, (400, 500)).clip(0, 255).round().astype(np.uint8)
    levels = measure(noise)
    assert levels['noise'] == pytest.approx(5, rel=0.05)
    assert levels['p50'] == 128 and levels['contrast'] == pytest.approx(2 * 2.33 * 5, abs=2)
    assert (levels['black'], levels['white'], levels['blank_mid']) == (0, 0, 1)
    halves = np.where(np.arange(400)[:, None] < 100, 0, noise).astype(np.uint8)
    levels = measure(halves)
    assert (levels['black'], levels['blank_dark'], levels['blank_mid']) == (0.25, 0.25, 0.75)
    assert levels['shut'] == 0.25
    assert measure(np.full((3, 5), 255, np.uint8))['blank_bright'] == 1


def test_depths_of_the_window_measure_alike():
    image = plate(0)
    for deep in (image.astype(np.uint16) * 257, image.astype(np.float32)):
        assert measure(deep) == measure(image)


def test_others_of_the_kind_are_inside(band):
    assert not any(outside(measure(plate(seed)), band) for seed in range(100, 140))


@pytest.mark.parametrize('what', [what for what, _ in spoilt(plate(0))])
def test_frames_without_a_picture_are_outside(what, band):
    for seed in range(5):
        result = outside(measure(dict(spoilt(plate(seed), seed))[what]), band)
        assert result and all(', expected ' in words for words in result)


def test_few_radiographs_make_no_band():
    few = [measure(plate(seed)) for seed in range(MIN_FRAMES - 1)]
    assert band_of(few) == {} and outside(measure(np.zeros((9, 9), np.uint8)), {}) == []
