"""Quantiles in one pass are those of all values, within a small part of a gray level, in little memory."""

import numpy as np
import pytest

from projects.radiograph import quantiles
from projects.radiograph.quantiles import GraySketch, sample_pixels

SHARES = [0, 0.5, 25, 50, 99.5, 100]


def sketch_of(parts):
    sketch = GraySketch()
    for part in parts:
        sketch.add(part)
    return sketch


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16'])
def test_integers_of_16_bits_are_exact(monkeypatch, dtype):
    monkeypatch.setattr(quantiles, '_PENDING', 5000)
    rng, limits = np.random.default_rng(0), np.iinfo(dtype)
    parts = [rng.integers(limits.min, limits.max, 1111, dtype, endpoint=True) for _ in range(30)]
    sketch = sketch_of(parts)
    assert len(sketch) == 30 * 1111
    assert sketch.percentiles(SHARES) == list(np.percentile(np.concatenate(parts), SHARES))


@pytest.mark.parametrize('low', [0.0, -5.0, 3000.0, 100_000.0])
@pytest.mark.parametrize('width', [1.0, 4000.0])
def test_other_values_within_a_gray_level_of_the_window(low, width):
    """Also beside a dead pixel, and on an offset that is large against the window."""
    rng = np.random.default_rng(1)
    parts = [(low + width * rng.normal(0.5, 0.2, (99, 77))).astype(np.float32) for _ in range(20)]
    parts[3][0, 0] = 3e30
    exact = np.percentile(np.concatenate([p.ravel() for p in parts]), [0.5, 99.5])
    found = sketch_of(parts).percentiles([0.5, 99.5])
    gray = (exact[1] - exact[0]) / 255
    # Of an offset of 100,000 with a width of 1, float32 itself has only 7 bits.
    if low < 4000 * width:
        assert np.abs(np.array(found) - exact).max() < max(gray, 1e-9)
    assert np.abs(np.array(found) - exact).max() <= np.abs(exact).max() / 2**20


@pytest.mark.parametrize('shape', [(1024, 1024), (768, 572), (4096, 512), (1, 5000), (3, 3)])
@pytest.mark.parametrize('count', [64, 4096])
def test_a_sample_lies_all_over_an_image(shape, count):
    """Whatever its width: of 1,024 columns every 16,384th pixel lies in the first one."""
    rows, columns = np.indices(shape)
    height, width = shape
    ours = sample_pixels(rows * width + columns, count)
    assert len(ours) == min(count, height * width)
    for place, side in ((ours // width, height), (ours % width, width)):
        quarters = np.bincount(place * 4 // side, minlength=4)
        if side > 3:
            assert np.abs(quarters / len(ours) - 0.25).max() < 0.06


def test_memory_does_not_grow_with_the_data(monkeypatch):
    monkeypatch.setattr(quantiles, '_PENDING', 2**16)
    sketch, rng = GraySketch(), np.random.default_rng(2)
    sizes = []
    for _ in range(60):
        sketch.add(rng.normal(2000, 5, 2**14).astype(np.float32))
        sizes.append(len(sketch._values) + sketch._waiting)
    assert sizes[-1] < 2**18
    assert max(sizes[30:]) < 1.3 * max(sizes[:30])


def test_parts_add_up(monkeypatch):
    rng = np.random.default_rng(3)
    parts = [rng.integers(0, 4096, 500).astype(np.uint16) for _ in range(4)]
    one, other = sketch_of(parts[:1]), sketch_of(parts[1:])
    one.merge(other)
    assert one.percentiles(SHARES) == sketch_of(parts).percentiles(SHARES)
    with pytest.raises(ValueError, match='of no values'):
        GraySketch().percentiles([50])
