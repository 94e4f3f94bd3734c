"""The fused single-channel views against the pipelines that mmpretrain publishes, on gray radiographs."""

import cv2
import numpy as np
import pytest
import scipy.stats
from mmcv.transforms import RandomFlip
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope

from projects.config.configs import load_config
from projects.synthetic.plan import draw, plan
from projects.xray.transforms import XrayColorJitter, XrayGaussianBlur, XrayRandomResizedCrop, blur, jitter

SIMSIAM = 'mmpretrain::simsiam/simsiam_resnet50_8xb32-coslr-100e_in1k.py'
SIMMIM = 'mmpretrain::simmim/simmim_swin-base-w6_8xb256-amp-coslr-100e_in1k-192px.py'
WHITE = {'uint8': 255, 'uint16': 65535, 'float32': 255}


def published(name):
    """The transforms of a published pipeline between loading and packing."""
    pipeline = load_config(name).train_dataloader.dataset.pipeline[1:-1]
    return pipeline[0].transforms[0] if pipeline[0].type == 'MultiView' else pipeline


def build(pipeline):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Compose(pipeline)


@pytest.fixture(scope='module')
def radiographs():
    """Two generated radiographs, 8 bit, 320 px."""
    return [draw(view, 0, size=320, bits=8).pixels for view in plan(2, 0)]


def pinned(pipeline, drawn):
    """A stock pipeline whose transforms take these numbers instead of drawing their own."""
    for step in pipeline.transforms:
        name = type(step).__name__
        if name == 'RandomResizedCrop':
            step.rand_crop_params = lambda img: drawn['part']
        elif name == 'RandomApply':  # the colour jitter
            step.random_apply = lambda: drawn['jitter'] is not None
            inner = step.transforms.transforms[0]
            saturation, hue = 1.3, 0.07  # nothing on a gray image
            if drawn['jitter']:
                b, c, first = drawn['jitter'].values()
                params = ([1, 2, 0, 3] if first else [0, 3, 1, 2], b, c, saturation, hue)
                inner._rand_params = lambda params=params: params
        elif name == 'GaussianBlur':
            step.random_disable = lambda: drawn['sigma'] is None
            step.random_magnitude = lambda: drawn['sigma']
        elif name == 'RandomFlip':
            step._choose_direction = lambda: 'horizontal' if drawn['flips'][0] else None
    return pipeline


def test_views_equal_the_published_pipelines(radiographs, record_property):
    crop = XrayRandomResizedCrop(224, (0.2, 1.0))
    colour, stock = XrayColorJitter(0.4, 0.4), build(published(SIMSIAM))
    np.random.seed(0)
    differences = []
    for i in range(24):
        image = radiographs[i % len(radiographs)]
        drawn = crop.draw(image)
        got = crop.view(image, **drawn)
        drawn['jitter'] = colour.draw() if i % 5 else None
        if drawn['jitter']:
            got = jitter(got, **drawn['jitter'])
        drawn['sigma'] = np.random.uniform(0.1, 2) if i % 2 else None
        if drawn['sigma']:
            got = blur(got, drawn['sigma'])
        expected = pinned(stock, drawn)(dict(img=np.repeat(image[..., None], 3, axis=2)))['img']
        assert (expected[..., :1] == expected).all()
        differences.append(np.abs(got.astype(int) - expected[..., 0]))
    for name, value in (
        ('mean', np.mean(differences)),
        ('p99', np.percentile(differences, 99)),
        ('max', np.max(differences)),
    ):
        record_property(name, float(value))
        print(name, value)
    assert np.mean(differences) <= 0.5
    assert np.percentile(differences, 99) <= 3


def test_simmim_crops_equal_the_originals_antialiased_ones(radiographs):
    crop = XrayRandomResizedCrop(192, (0.67, 1.0))
    pipeline = published(SIMMIM)[:2]
    pipeline[0].backend = 'pillow'  # as microsoft/SimMIM; the published one is not antialiased
    stock = build(pipeline)
    np.random.seed(0)
    for i in range(8):
        image = radiographs[i % len(radiographs)]
        drawn = crop.draw(image)
        expected = pinned(stock, drawn)(dict(img=np.repeat(image[..., None], 3, axis=2)))['img']
        difference = np.abs(crop.view(image, **drawn).astype(int) - expected[..., 0])
        assert difference.max() <= 1


def share(*values):
    return abs(np.mean(values[0]) - np.mean(values[1])) < 4 * np.sqrt(0.5 / len(values[0]))


def test_parameters_are_distributed_as_the_published_ones():
    n, image = 2000, np.zeros((300, 400), np.uint8)
    steps = {type(step).__name__: step for step in build(published(SIMSIAM)).transforms}
    np.random.seed(1)
    parts = np.array([steps['RandomResizedCrop'].rand_crop_params(image) for _ in range(n)], float)
    flips = [steps['RandomFlip']._choose_direction() is not None for _ in range(n)]
    jitters = [steps['RandomApply'].transforms.transforms[0]._rand_params() for _ in range(n)]
    jittered = [steps['RandomApply'].random_apply() for _ in range(n)]
    sigmas = [steps['GaussianBlur'].random_magnitude() for _ in range(n)]
    blurred = [not steps['GaussianBlur'].random_disable() for _ in range(n)]

    np.random.seed(2)
    crop, colour, soft = XrayRandomResizedCrop(224, (0.2, 1.0)), XrayColorJitter(), XrayGaussianBlur()
    ours = [crop.draw(image) for _ in range(n)]
    our_parts = np.array([drawn['part'] for drawn in ours], float)
    our_jitters = [colour.draw() for _ in range(n)]
    samples = {
        'y': (parts[:, 0], our_parts[:, 0]),
        'x': (parts[:, 1], our_parts[:, 1]),
        'area': (parts[:, 2] * parts[:, 3], our_parts[:, 2] * our_parts[:, 3]),
        'aspect': (parts[:, 3] / parts[:, 2], our_parts[:, 3] / our_parts[:, 2]),
        'brightness': ([j[1] for j in jitters], [j['brightness'] for j in our_jitters]),
        'contrast': ([j[2] for j in jitters], [j['contrast'] for j in our_jitters]),
        'sigma': (sigmas, [soft.draw() for _ in range(n)]),
    }
    for name, pair in samples.items():
        assert scipy.stats.ks_2samp(*pair).pvalue > 0.005, name
    orders = [list(j[0]).index(1) < list(j[0]).index(0) for j in jitters]
    assert share(orders, [j['contrast_first'] for j in our_jitters])
    assert share(flips, [drawn['flips'][0] for drawn in ours])
    assert share(jittered, np.random.rand(n) < colour.prob)
    assert share(blurred, np.random.rand(n) < soft.prob)
    assert not any(drawn['flips'][1] or drawn['turns'] for drawn in ours)


def test_vertical_flips_and_turns_occur_as_often_as_asked():
    crop = XrayRandomResizedCrop(16, (0.5, 1.0), flip=0.0, flip_vertical=0.25, rot90=0.75)
    np.random.seed(0)
    drawn = [crop.draw(np.zeros((40, 40), np.uint8)) for _ in range(2000)]
    stock = RandomFlip(prob=0.25, direction='vertical')
    assert share([stock._choose_direction() is not None for _ in drawn], [d['flips'][1] for d in drawn])
    turns = np.bincount([d['turns'] for d in drawn], minlength=4) / 2000
    np.testing.assert_allclose(turns, 0.25, atol=0.04)
    assert not any(d['flips'][0] for d in drawn)


@pytest.mark.parametrize('dtype', WHITE)
@pytest.mark.parametrize('turns', [0, 1, 2, 3])
@pytest.mark.parametrize('flips', [(False, False), (True, False), (False, True), (True, True)])
def test_a_view_is_the_part_resized_flipped_and_turned(flips, turns, dtype):
    image = (np.random.default_rng(0).random((50, 70)) * WHITE[dtype]).astype(dtype)
    got = XrayRandomResizedCrop(24).view(image, (3, 5, 24, 24), flips, turns)
    expected = image[3:27, 5:29]
    expected = expected[:: -1 if flips[1] else 1, :: -1 if flips[0] else 1]
    assert got.dtype == dtype
    assert np.array_equal(got, np.rot90(expected, turns))


def test_sixteen_bits_survive_a_view():
    # All of a 16-bit image within one 8-bit level.
    ramp = np.arange(30000, 30000 + 256, dtype=np.uint16).repeat(256).reshape(256, 256)
    np.random.seed(0)
    crop, colour, soft = (
        XrayRandomResizedCrop(224, (0.9, 1.0)),
        XrayColorJitter(prob=1),
        XrayGaussianBlur(prob=1),
    )
    for image in (ramp, ramp.astype(np.float32) / 257):
        view = dict(img=image)
        for step in (crop, colour, soft):
            view = step(view)
        assert view['img'].dtype == image.dtype
        assert len(np.unique(view['img'])) > 100


def test_the_x_ray_recipe_runs_through_the_stock_wrappers_in_every_depth():
    view = [
        dict(
            type='XrayRandomResizedCrop', scale=48, crop_ratio_range=(0.5, 1.0), flip_vertical=0.5, rot90=0.5
        ),
        dict(type='XrayGamma'),
        dict(type='XrayColorJitter'),
        dict(type='XrayGaussianBlur', sigma=(0.1, 1.0)),
        dict(type='XrayPoissonNoise'),
    ]
    run = build([dict(type='XrayMultiView', num_views=2, transforms=[view]), dict(type='PackInputs')])
    for dtype, white in WHITE.items():
        image = (np.random.default_rng(0).random((64, 80)) * white).astype(dtype)
        before = image.copy()
        first, second = run(dict(img=image))['inputs']
        assert first.shape == second.shape == (1, 48, 48)
        assert str(first.dtype) == f'torch.{dtype}'
        assert not np.array_equal(first.numpy(), second.numpy())
        assert np.array_equal(image, before)


def test_views_of_one_image_are_those_of_the_stock_wrapper(radiographs):
    view = [dict(type='XrayRandomResizedCrop', scale=48), dict(type='XrayColorJitter')]
    got = []
    for name in ('MultiView', 'XrayMultiView'):
        np.random.seed(0)
        got.append(build([dict(type=name, num_views=2, transforms=[view])])(dict(img=radiographs[0]))['img'])
    np.testing.assert_array_equal(*got)


def test_a_view_that_would_write_into_the_image_of_the_others_fails():
    def erase(results):
        results['img'][:8] = 0
        return results

    image = np.full((64, 64), 7, np.uint8)
    crop = dict(type='XrayRandomResizedCrop', scale=48)
    with pytest.raises(ValueError, match='read-only'):
        build([dict(type='XrayMultiView', num_views=2, transforms=[[erase, crop]])])(dict(img=image))
    view = build([dict(type='XrayMultiView', num_views=2, transforms=[[crop, erase]])])
    views = view(dict(img=image))['img']
    assert image.min() == 7
    assert all(view.min() == 0 for view in views)


def test_the_simmim_recipe_masks_the_view_it_gives():
    run = build(
        [
            dict(type='XrayRandomResizedCrop', scale=64, crop_ratio_range=(0.67, 1.0)),
            dict(type='SimMIMMaskGenerator', input_size=64, mask_patch_size=32, model_patch_size=4),
            dict(type='PackInputs'),
        ]
    )
    packed = run(dict(img=np.zeros((90, 90), np.uint8)))
    assert packed['inputs'].shape == (1, 64, 64)
    mask = packed['data_samples'].mask
    assert mask.shape == (16, 16)
    assert mask.sum() == 3 * 64  # 60 % of four patches, rounded up, of 8 x 8 tokens


def test_one_seed_fixes_a_view(radiographs):
    steps = [XrayRandomResizedCrop(64), XrayColorJitter(), XrayGaussianBlur()]

    def view(seed):
        np.random.seed(seed)
        results = dict(img=radiographs[0])
        for step in steps:
            results = step(results)
        return results['img']

    assert np.array_equal(view(3), view(3))
    assert not np.array_equal(view(3), view(4))


@pytest.mark.parametrize(
    ('kwargs', 'named'),
    [
        (dict(flip=1.5), 'flip=1.5, expected a probability'),
        (dict(flip_vertical=-1), 'flip_vertical=-1'),
        (dict(rot90=2), 'rot90=2'),
        (dict(scale=(32, 48), rot90=0.5), r'rot90=0.5 of \(32, 48\) px, expected a square'),
        (dict(crop_ratio_range=(1, 0.5)), 'range'),
    ],
)
def test_wrong_arguments_are_refused_when_the_pipeline_is_built(kwargs, named):
    with pytest.raises(ValueError, match=named):
        TRANSFORMS.build({'type': 'XrayRandomResizedCrop', 'scale': 32, **kwargs})


def test_sizes_are_height_and_width():
    view = XrayRandomResizedCrop((24, 40))(dict(img=np.zeros((90, 70), np.uint8)))
    assert view['img_shape'] == view['img'].shape == (24, 40)
    assert cv2.mean(view['img'])[0] == 0
