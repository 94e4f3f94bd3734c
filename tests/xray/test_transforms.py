import warnings

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Resize
from mmdet.datasets.transforms import RandomFlip
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.registry import TRANSFORMS
from mmpretrain.datasets.transforms import GaussianBlur
from PIL import Image
from torchvision.transforms import ColorJitter

from projects.radiograph.image import ImagingError
from projects.xray.transforms import (
    LoadXray,
    XrayColorJitter,
    XrayGamma,
    XrayGaussianBlur,
    XrayPoissonNoise,
    XrayRandomFlip,
    XrayResize,
    jitter,
)

DTYPES = {'uint8': 255, 'uint16': 65535, 'float32': 255}


def radiograph(dtype='uint8', size=64, seed=0):
    """Smooth background, noise, dark and light spots and both ends of the scale."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:size, :size] / size
    image = 0.2 + 0.5 * xx * yy + rng.normal(0, 0.03, (size, size))
    for _ in range(8):
        cx, cy = rng.random(2)
        image += rng.uniform(-0.4, 0.4) * ((xx - cx) ** 2 + (yy - cy) ** 2 < 0.004)
    image[8:12, 8:12], image[20:24, 20:24] = 0, 1
    image = np.clip(image, 0, 1) * DTYPES[dtype]
    return image.astype(np.float32) if dtype == 'float32' else np.round(image).astype(dtype)


def apply(transform, image):
    return transform(dict(img=image.copy()))['img']


def colour(image):
    return Image.fromarray(np.repeat(image[..., None], 3, axis=2))


# ---------------------------------------------------------------------------------------------- LoadXray


def write(path, image):
    assert cv2.imwrite(str(path), image)
    return str(path)


def test_load_gives_one_channel_and_its_shape(tmp_path):
    image = radiograph()[:40]
    results = LoadXray()(dict(img_path=write(tmp_path / 'a.png', image)))
    assert np.array_equal(results['img'], image)
    assert results['img_shape'] == results['ori_shape'] == (40, 64)


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_load_windows_16_bit_in_its_own_depth(tmp_path, suffix):
    image = radiograph('uint16')
    path = write(tmp_path / f'a.{suffix}', image)
    low, high = 20000, 40000
    window = dict(type='absolute', low=low, high=high)
    expected = (np.clip(image.astype(float), low, high) - low) / (high - low) * 255
    gray = LoadXray(window)(dict(img_path=path))['img']
    assert gray.dtype == np.uint8
    np.testing.assert_allclose(gray, expected, atol=0.5 + 1e-6)
    fine = LoadXray(window, dtype='float32')(dict(img_path=path))['img']
    assert fine.dtype == np.float32
    np.testing.assert_allclose(fine, expected, atol=1e-3)
    assert len(np.unique(fine)) > len(np.unique(gray))


@pytest.mark.parametrize('suffix', ['png', 'tif', 'bmp'])
def test_loaded_images_can_be_shared_with_torch(tmp_path, suffix):
    image = LoadXray()(dict(img_path=write(tmp_path / f'a.{suffix}', radiograph())))['img']
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        torch.from_numpy(image)


def test_load_checks_the_size_that_the_boxes_were_drawn_on(tmp_path):
    path = write(tmp_path / 'a.png', radiograph()[:40])
    assert LoadXray()(dict(img_path=path, height=40, width=64))['img'].shape == (40, 64)
    with pytest.raises(ImagingError, match='a.png: 64 x 40 px, .* says 40 x 64'):
        LoadXray()(dict(img_path=path, height=64, width=40))


def test_load_refuses_bad_files_and_windows(tmp_path):
    with pytest.raises(ImagingError, match='gone.png'):
        LoadXray()(dict(img_path=str(tmp_path / 'gone.png')))
    (tmp_path / 'torn.png').write_bytes(cv2.imencode('.png', radiograph())[1].tobytes()[:500])
    with pytest.raises(ImagingError, match='torn.png'):
        LoadXray()(dict(img_path=str(tmp_path / 'torn.png')))
    with pytest.raises(ImagingError, match='window'):
        LoadXray(window=dict(type='absolute', low=5))


# ---------------------------------------------------------------------------------------- XrayRandomFlip


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal', None])
def test_flip_is_the_stock_one_in_one_piece(direction, dtype):
    image = radiograph(dtype)[:40]
    arguments = dict(prob=1.0 if direction else 0.0, direction=direction or 'horizontal')
    boxes = [[1.0, 2.0, 11.0, 30.0], [50.0, 0.0, 64.0, 9.0]]
    stock, ours = (
        flip(dict(img=image.copy(), gt_bboxes=HorizontalBoxes(boxes)))
        for flip in (RandomFlip(**arguments), XrayRandomFlip(**arguments))
    )
    assert ours.keys() == stock.keys()
    assert (ours['flip'], ours['flip_direction']) == (bool(direction), direction)
    assert np.array_equal(ours['img'], stock['img'])
    assert ours['img'].dtype == image.dtype
    assert torch.equal(ours['gt_bboxes'].tensor, stock['gt_bboxes'].tensor)
    assert ours['img'].flags.c_contiguous
    assert direction is None or not stock['img'].flags.c_contiguous  # else this class is not needed any more


# ---------------------------------------------------------------------------------------------- XrayResize


@pytest.mark.parametrize(('height', 'width'), [(572, 768), (100, 97), (300, 40)])
@pytest.mark.parametrize('scale', [(224, 224), (60, 130), 384])
def test_resize_is_that_of_the_stock_transform_on_8_bits(height, width, scale):
    image = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    stock = Resize(scale, backend='pillow')(dict(img=image.copy()))
    ours = XrayResize(scale)(dict(img=image.copy()))
    assert ours['img'].shape == ours['img_shape'] == stock['img_shape']
    assert ours['scale_factor'] == stock['scale_factor']
    assert np.abs(ours['img'].astype(int) - stock['img']).max() <= 1


@pytest.mark.parametrize('dtype', ['uint16', 'float32'])
def test_resize_keeps_the_depth(dtype):
    image = radiograph(dtype)
    out = XrayResize((24, 30))(dict(img=image))['img']
    assert out.dtype == image.dtype and out.shape == (30, 24)
    eight = XrayResize((24, 30))(dict(img=(image / (DTYPES[dtype] / 255)).round().astype(np.uint8)))['img']
    assert np.abs(out / (DTYPES[dtype] / 255) - eight).max() <= 1.5
    assert len(np.unique(out)) > 1.5 * len(np.unique(eight))


@pytest.mark.parametrize('scale', [0, (3,), (5, -1), 2.5, (2.5, 3)])
def test_resize_to_no_size_is_refused(scale):
    with pytest.raises(ValueError, match='XrayResize: scale='):
        XrayResize(scale)


# ----------------------------------------------------------------------------------- brightness, contrast


JITTERS = {
    'brightness': lambda image, factor: jitter(image, factor, 1, False),
    'contrast': lambda image, factor: jitter(image, 1, factor, False),
}


@pytest.mark.parametrize('factor', [0.0, 0.6, 0.87, 1.0, 1.13, 1.4])
@pytest.mark.parametrize('name', JITTERS)
def test_jitter_equals_torchvision_level_by_level(name, factor):
    image = radiograph()
    stock = np.asarray(ColorJitter(**{name: (factor, factor)})(colour(image)))
    assert np.array_equal(JITTERS[name](image, factor), stock[..., 0])


@pytest.mark.parametrize('contrast_first', [False, True])
def test_both_at_once_equal_torchvision_one_after_the_other(contrast_first):
    image, factors = radiograph(), dict(brightness=1.37, contrast=0.71)  # saturates: the order matters
    stock = colour(image)
    for name in sorted(factors, reverse=contrast_first):
        stock = ColorJitter(**{name: (factors[name],) * 2})(stock)
    got = jitter(image, **factors, contrast_first=contrast_first)
    assert np.array_equal(got, np.asarray(stock)[..., 0])
    assert not np.array_equal(got, jitter(image, **factors, contrast_first=not contrast_first))


@pytest.mark.parametrize('dtype', ['uint16', 'float32'])
@pytest.mark.parametrize('contrast_first', [False, True])
@pytest.mark.parametrize('factors', [(0.6, 1.4), (1.4, 0.6)])
def test_jitter_does_the_same_in_every_depth(factors, contrast_first, dtype):
    scale = DTYPES[dtype] / 255
    image = radiograph(dtype)
    got = jitter(image, *factors, contrast_first)
    expected = jitter((image / scale).astype(np.float32), *factors, contrast_first)
    assert got.dtype == dtype
    np.testing.assert_allclose(got / scale, expected, atol=4 / scale)


def test_both_orders_of_jitter_are_equally_likely():
    np.random.seed(0)
    transform = XrayColorJitter(brightness=0.4, contrast=0.4)
    firsts = sum(transform.draw()['contrast_first'] for _ in range(1000))
    assert abs(firsts - 500) < 64  # 4 standard deviations


def test_jitter_factors_are_distributed_as_torchvision_draws_them():
    flat = np.full((4, 4), 100, np.float32)  # contrast leaves it alone, so its level is the factor
    np.random.seed(0)
    transform = XrayColorJitter(brightness=0.4, contrast=0.4, prob=1)
    factors = np.sort([apply(transform, flat)[0, 0] / 100 for _ in range(2000)])
    # Kolmogorov-Smirnov against U[0.6, 1.4], 1 % level.
    expected = (factors - 0.6) / 0.8
    assert np.abs(expected - np.linspace(0, 1, 2000)).max() < 1.63 / np.sqrt(2000)


# ------------------------------------------------------------------------------------------------- blur


def test_blur_is_that_of_the_stock_transform():
    image = radiograph(size=224)
    means = []
    for sigma in np.linspace(0.1, 2, 20).tolist():
        stock = GaussianBlur(radius=sigma, prob=1.0)(dict(img=image.copy()))['img']
        difference = np.abs(apply(XrayGaussianBlur((sigma, sigma), prob=1), image).astype(int) - stock)
        # PIL's own rounding: up to one level on average where σ² is near a whole box.
        assert np.percentile(difference, 99) <= 3
        means.append(difference.mean())
    assert np.mean(means) <= 0.5
    assert max(means) <= 1


@pytest.mark.parametrize('dtype', DTYPES)
def test_blur_spreads_a_point_by_sigma(dtype):
    image = np.zeros((41, 41), dtype)
    image[18:23, 18:23] = DTYPES[dtype]  # of variance (5² - 1) / 12 = 2
    got = apply(XrayGaussianBlur((2, 2), prob=1), image).astype(float)
    assert got.sum() == pytest.approx(25 * DTYPES[dtype], rel=0.01)
    offsets = np.arange(41) - 20
    assert (got.sum(0) * offsets**2).sum() / got.sum() == pytest.approx(4 + 2, rel=0.02)


# ------------------------------------------------------------------------------------------------ gamma


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('gamma', [0.7, 1.4])
def test_gamma_is_a_power_of_the_level(dtype, gamma):
    image, white = radiograph(dtype), DTYPES[dtype]
    got = apply(XrayGamma((gamma, gamma), prob=1), image)
    np.testing.assert_allclose(
        got, white * (image / white) ** gamma, atol=0.51 if dtype != 'float32' else 1e-2
    )


def test_gamma_and_its_inverse_are_equally_likely():
    np.random.seed(0)
    middle = np.full((2, 2), 127.5, np.float32)
    transform = XrayGamma((0.5, 2), prob=1)
    gammas = [np.log(apply(transform, middle)[0, 0] / 255) / np.log(0.5) for _ in range(1000)]
    assert 0.5 <= min(gammas) < 0.55
    assert 1.9 < max(gammas) <= 2
    assert np.mean(np.log(gammas)) == pytest.approx(0, abs=0.05)


# ------------------------------------------------------------------------------------------------ noise


@pytest.mark.parametrize('dtype', DTYPES)
def test_noise_variance_follows_the_mean(dtype):
    white, peak = DTYPES[dtype], 500
    np.random.seed(0)
    transform = XrayPoissonNoise((peak, peak), prob=1)
    for share in (0.1, 0.4, 0.8):
        flat = np.full((200, 200), share * white).astype(dtype)
        noise = apply(transform, flat).astype(float) - flat
        rounding = 1 / 12 if dtype != 'float32' else 0
        assert noise.mean() == pytest.approx(0, abs=4 * noise.std() / 200)
        assert noise.var() - rounding == pytest.approx(share * white**2 / peak, rel=0.05)


def test_noise_differs_from_draw_to_draw():
    transform, image = XrayPoissonNoise((500, 500), prob=1), radiograph()
    assert not np.array_equal(apply(transform, image), apply(transform, image))


# -------------------------------------------------------------------------------------------------- all

RANDOM = [
    XrayColorJitter(0.4, 0.4, prob=0.3),
    XrayGaussianBlur((1, 2), prob=0.3),
    XrayGamma((1.1, 1.4), prob=0.3),
    XrayPoissonNoise((100, 200), prob=0.3),
]


@pytest.mark.parametrize('transform', RANDOM, ids=lambda t: type(t).__name__)
def test_seed_fixes_the_draws_and_prob_is_the_share_changed(transform):
    image = radiograph()

    def run(seed):
        np.random.seed(seed)
        return [apply(transform, image) for _ in range(300)]

    first = run(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, run(1)))
    assert not all(np.array_equal(a, b) for a, b in zip(first, run(2)))
    changed = sum(not np.array_equal(a, image) for a in first)
    assert 90 - 35 < changed < 90 + 35  # 4 standard deviations


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('transform', RANDOM, ids=lambda t: type(t).__name__)
def test_every_depth_is_kept_within_its_range(transform, dtype):
    image = radiograph(dtype)
    before = image.copy()
    for _ in range(20):
        results = transform(dict(img=image))
        assert results['img'].dtype == dtype
        assert results['img'].min() >= 0
        assert results['img'].max() <= DTYPES[dtype]
    assert np.array_equal(image, before)  # the second view starts from it


@pytest.mark.parametrize(
    ('cls', 'kwargs'),
    [
        (XrayColorJitter, dict(brightness=-0.1)),
        (XrayColorJitter, dict(prob=1.2)),
        (XrayGaussianBlur, dict(sigma=(2, 1))),
        (XrayGamma, dict(gamma=(0, 1))),
        (XrayPoissonNoise, dict(peak=(-1, 1))),
        (XrayGamma, dict(prob=-1)),
    ],
)
def test_wrong_ranges_are_refused_when_the_pipeline_is_built(cls, kwargs):
    with pytest.raises(ValueError, match=f'{cls.__name__}: {next(iter(kwargs))}='):
        TRANSFORMS.build(dict(type=cls.__name__, **kwargs))
