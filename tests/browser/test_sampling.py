"""What a pixel of the screen shows below 1:1, against a plain computation."""

import math

import numpy as np
import pytest

SHAPE = (128, 192)  # of the radiograph: height, width, px
SCREEN = (150, 120)  # width, height, px
SAMPLED = """async ([pixels, height, width, view, screen]) => {
  const {pyramid, statistics} = await import('/static/levels.js');
  const {sample} = await import('/static/sampling.js');
  const values = Uint16Array.from(pixels);
  const image = {width, height, levels: pyramid(values, width, height), ...statistics(values, width, height)};
  const region = sample(image, view, ...screen);
  return {...region, values: [...region.values], noise: image.noise, levels: image.levels.length};
}"""


def drawn():
    """Noise with dark and light pixels in it that stand out."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(20_000, 200, SHAPE)
    for value in (9_000, 40_000):
        rows, columns = rng.integers(0, SHAPE[0], 6), rng.integers(0, SHAPE[1], 6)
        pixels[rows, columns] = value
    return pixels.round().astype(np.uint16)


def span(start, scale, origin, size, cell):
    """First and last + 1 pixel of the radiograph in the cells of one of the screen; its own ends."""
    begin, end = (np.clip((start + k - origin) / scale, 0, size) for k in (0, 1))
    low = min(math.floor(begin / cell + 1e-6) * cell, size - cell)
    return low, max(math.ceil(end / cell - 1e-6) * cell, low + cell), begin, end


def mean_of(sums, x, y):
    """The mean over a rectangle whose ends lie within pixels, from sums over all above and left."""

    def total(u, v):
        i, j = min(int(v), SHAPE[0] - 1), min(int(u), SHAPE[1] - 1)
        rows = sums[i] * (1 - (v - i)) + sums[i + 1] * (v - i)
        return rows[j] * (1 - (u - j)) + rows[j + 1] * (u - j)

    whole = total(x[1], y[1]) - total(x[0], y[1]) - total(x[1], y[0]) + total(x[0], y[0])
    return whole / ((x[1] - x[0]) * (y[1] - y[0]))


@pytest.mark.parametrize('scale', [0.93, 0.7, 0.5, 0.31, 0.25, 0.06])
def test_below_1_to_1_extremes_stay_and_the_rest_is_the_mean_over_the_area(page, scale):
    pixels = drawn()
    view = dict(scale=scale, left=-10.3, top=4.6)
    shown = page.evaluate(SAMPLED, [pixels.ravel().tolist(), *SHAPE, view, SCREEN])
    values = np.array(shown['values']).reshape(shown['height'], shown['width'])
    cell = 2 ** min(math.floor(math.log2(1 / scale) + 1e-9), shown['levels'] - 1)
    # Where the screen's pixel ends within a cell of a level, the cell stands for its part.
    off, limit = 3 if cell == 1 else 300, 4 * shown['noise']
    sums = np.pad(pixels.astype(float), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    kept = 0
    for r, row in enumerate(values):
        above, below, *y = span(shown['y'] + r, scale, view['top'], SHAPE[0], cell)
        for c, value in enumerate(row):
            left, right, *x = span(shown['x'] + c, scale, view['left'], SHAPE[1], cell)
            part = pixels[above:below, left:right]
            least, most = int(part.min()), int(part.max())
            mean = mean_of(sums, x, y)
            down, up = mean - least, most - mean
            if max(down, up) < limit - off:
                assert abs(value - mean) < off
            elif max(down, up) > limit + off and abs(down - up) > off:
                assert value == (least if down > up else most)
                kept += 1
    assert kept >= 3
    assert values.min() == 9_000 or scale == 0.06
