import cv2
import numpy as np
import pytest
from PIL import Image

from projects.xray.resize import resize

SHAPES = [
    ((300, 260), (96, 96)),  # both axes shrink
    ((97, 131), (56, 40)),  # odd sizes
    ((40, 200), (64, 50)),  # one grows, one shrinks
    ((33, 47), (90, 101)),  # both grow
    ((64, 200), (64, 96)),  # one stays
    ((1, 5), (3, 7)),
]


def texture(shape, seed=0):
    """Structure at every scale, pixel noise and both ends of the scale: what a poor filter spoils."""
    rng = np.random.default_rng(seed)
    image = sum(cv2.resize(rng.random((n, n), dtype=np.float32), shape[::-1]) for n in (2, 9, 40)) / 3
    image[: shape[0] // 2] += rng.normal(0, 0.2, image[: shape[0] // 2].shape)
    return np.clip(image, 0, 1)


def pillow(image, shape):
    return np.asarray(Image.fromarray(image).resize(shape[::-1], Image.BILINEAR))


@pytest.mark.parametrize(('source', 'shape'), SHAPES)
def test_resize_is_within_a_level_of_pillows(source, shape):
    image = np.round(texture(source) * 255).astype(np.uint8)
    got = resize(image, shape)
    assert (got.shape, got.dtype) == (shape, np.uint8)
    difference = np.abs(got.astype(int) - pillow(image, shape))
    assert difference.max() <= 1
    assert difference.mean() < 0.3  # half a level would be a shifted or doubled rounding


def test_resize_is_antialiased():
    image = np.round(texture((300, 260)) * 255).astype(np.uint8)
    plain = cv2.resize(image, (96, 96), interpolation=cv2.INTER_LINEAR)
    assert np.abs(resize(image, (96, 96)).astype(int) - plain).max() > 20


@pytest.mark.parametrize(('source', 'shape'), SHAPES)
@pytest.mark.parametrize(('dtype', 'white'), [('uint16', 65535), ('float32', 255)])
def test_deeper_images_keep_their_depth(source, shape, dtype, white):
    image = texture(source) * np.float32(white)
    image = image if dtype == 'float32' else np.round(image).astype(dtype)
    got = resize(image, shape)
    assert (got.shape, got.dtype) == (shape, dtype)
    np.testing.assert_allclose(
        got, pillow(image.astype(np.float32), shape), atol=0.6 if white > 255 else 1e-3
    )


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
def test_slices_and_read_only_images_are_taken_and_left_alone(dtype):
    image = (texture((80, 90)) * 255).astype(dtype)
    part = image[7:70, 5:66]
    expected = resize(part.copy(), (32, 32))
    before = image.copy()
    image.flags.writeable = False
    assert np.array_equal(resize(part, (32, 32)), expected)
    assert np.array_equal(image, before)
    same = resize(part, part.shape)
    assert np.array_equal(same, part)
    assert not np.shares_memory(same, image)
