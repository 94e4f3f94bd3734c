"""Flaws drawn into radiographs: the law of attenuation, what stays, boxes, labels, repeatability."""

import cv2
import numpy as np
import pytest
import torch
from helpers.castings import DEPTHS, casting
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks

import projects.xray.compat
import projects.xray.transforms  # noqa: F401 (LoadXray)
from projects.synthetic import appearance, drawn, physics
from projects.synthetic.transforms import DrawFlaws
from projects.xray.classes import CASTINGS
from projects.xray.datasets import DatasetError, XrayBackgrounds, XrayDefects, flaw_labels
from projects.xray.seeding import SeededDataset

AIR = 228  # of casting(noise=0)


def recipe(**changes):
    """A recipe that draws all types."""
    settings = dict(
        number=(6, 6),
        pitch=(0.15, 0.3),
        contrast=(0.05, 0.8),
        opacity=(4.0, 4.0),
        detectability=10.0,
        visible=2.0,
        weights=dict.fromkeys(CASTINGS, 1.0),
    )
    return drawn.Recipe(**settings | changes)


def sample(image, **more):
    """What a pipeline hands to DrawFlaws."""
    return dict(img=image, flaw_labels={kind: label for label, kind in enumerate(CASTINGS)}) | more


def inside(flaws, shape):
    """Pixels that drawn flaws cover, by their masks."""
    mask = np.zeros(shape, bool)
    for flaw in flaws:
        x, y, width, height = flaw.bbox
        assert flaw.mask.shape == (height, width)
        mask[y : y + height, x : x + width] |= flaw.mask
    return mask


def test_a_flaw_follows_the_law_of_attenuation():
    """Metal of thickness x and a pore of chord d give what metal of thickness x - d gives."""
    mu, q, open_field = 0.05, -12.0, 240.0
    thickness = np.linspace(10, 40, 64, dtype=np.float32)[None] * np.ones((64, 1), np.float32)
    chord = physics.ellipsoid_chord((64, 64), (30.3, 31.2), (12, 8, 4), 0.4)
    levels = open_field * np.exp(-mu * thickness) + q
    expected = open_field * np.exp(-mu * (thickness - chord)) + q
    smooth = drawn.superimpose(levels, mu * chord, q)
    np.testing.assert_allclose(smooth, expected, atol=0.02)
    assert (smooth - levels).max() > 10


def test_the_noise_of_a_flaw_is_that_of_its_quanta():
    """e^(mu·d) more quanta: the deviation grows by e^(mu·d / 2), where the bare formula gives e^(mu·d)."""
    rng = np.random.default_rng(1)
    levels = (100 + rng.normal(0, 3, (200, 200))).astype(np.float32)
    for attenuation in (0.8, -0.8):
        found = drawn.superimpose(levels, np.full_like(levels, attenuation), 0.0)
        assert found.mean() == pytest.approx(100 * np.exp(attenuation), rel=0.01)
        assert found.std() == pytest.approx(3 * np.exp(attenuation / 2), rel=0.15)
        assert abs(found.std() - 3 * np.exp(attenuation)) > 0.2 * found.std()


@pytest.mark.parametrize('kind', ['gas_pore', 'dense_inclusion'])
def test_the_contrast_that_is_reported_is_that_of_the_pixels(kind):
    image = np.full((120, 120), 30000, np.uint16)
    image[:, :40] = 60000  # air
    before, rng = image.copy(), np.random.default_rng(3)
    look = drawn.look_at(image)
    shape = drawn.draw_shape(rng, kind, 0.15, 1.0)
    flaw = drawn.draw_flaw(image, kind, shape, (40, 70), look, rng, recipe())
    ratio = (image.astype(float) - look.q) / (before - look.q) - 1
    extreme = ratio.max() if kind == 'gas_pore' else ratio.min()
    assert abs(extreme) == pytest.approx(flaw.contrast, rel=1e-3)
    assert (extreme > 0) == (kind == 'gas_pore')
    assert 0.02 < flaw.contrast < 0.8


@pytest.mark.parametrize('dtype', DEPTHS)
def test_boxes_enclose_what_changed_and_nothing_else_changes(dtype):
    white, count = {'uint8': 255, 'uint16': 65535, 'float32': 255}[dtype], 0
    for seed in range(12):
        image = casting(seed, dtype=dtype)
        before = image.copy()
        result, flaws = drawn.draw_flaws(image, np.random.default_rng(seed), recipe())
        assert (image == before).all(), 'the input was written to'
        assert result.dtype == image.dtype
        assert result.min() >= 0
        assert result.max() <= white
        changed = result != image
        assert not (changed & ~inside(flaws, image.shape)).any()
        assert changed.sum() > 0.5 * sum(flaw.mask.sum() for flaw in flaws)
        for flaw in flaws:
            assert flaw.mask.any()
            assert all(flaw.mask.any(axis)[[0, -1]].all() for axis in (0, 1)), 'the box is not tight'
        count += len(flaws)
    assert count > 36


def test_air_is_never_touched():
    for seed in range(12):
        image = casting(seed)
        air = casting(noise=0) > AIR
        result, flaws = drawn.draw_flaws(image, np.random.default_rng(seed), recipe(contrast=(0.3, 1.0)))
        assert flaws
        assert (result == image)[air].all()


def test_unexposed_pixels_are_never_touched():
    image = casting()
    image[:, :25] = 0
    result, flaws = drawn.draw_flaws(image, np.random.default_rng(0), recipe())
    assert flaws
    assert (result[:, :25] == 0).all()


def test_every_type_finds_its_place():
    for kind in CASTINGS:
        found = [
            drawn.draw_flaws(casting(seed), np.random.default_rng(seed), recipe(weights={kind: 1.0}))[1]
            for seed in range(4)
        ]
        assert any(found), kind
        assert {flaw.type for flaws in found for flaw in flaws} == {kind}


def test_what_is_annotated_can_be_seen():
    """d' against the noise that was put in, and the peak: both reach what was asked for."""
    least = 25.0
    for seed in range(6):
        image = casting(seed, dtype='float32', noise=3.0)
        result, flaws = drawn.draw_flaws(
            image, np.random.default_rng(seed), recipe(contrast=(0.001, 0.5), detectability=least)
        )
        for flaw in flaws:
            x, y, width, height = flaw.bbox
            difference = (result - image)[y : y + height, x : x + width]
            assert np.sqrt((difference**2).sum()) / 3.0 > 0.6 * least
            assert flaw.detectability >= least


def test_a_flaw_does_not_take_more_than_the_metal():
    image = casting(noise=1.0)
    metal = image < 150
    result, flaws = drawn.draw_flaws(image, np.random.default_rng(0), recipe(contrast=(0.2, 50.0)))
    assert flaws
    assert result[metal].max() <= 235


@pytest.mark.parametrize('sigma', [0.6, 1.0, 1.5, 2.0])
@pytest.mark.parametrize('noise', [0.0, 2.0])
def test_unsharpness_is_that_of_the_edges(sigma, noise):
    assert appearance.unsharpness(casting(blur=sigma, noise=noise)) == pytest.approx(sigma, rel=0.25)


def test_a_shape_is_as_unsharp_as_the_image():
    """An edge of a drawn flaw rises no steeper than a sharp one would that is blurred as the image is."""
    sharp = drawn.draw_shape(np.random.default_rng(0), 'sand_inclusion', 0.1, 0.0)
    for blur in (1.0, 2.0):
        shape = drawn.draw_shape(np.random.default_rng(0), 'sand_inclusion', 0.1, blur)
        assert shape.max() == pytest.approx(1)
        assert not any(side.max() > 0.15 for side in (shape[0], shape[-1], shape[:, 0], shape[:, -1]))
        edge = (np.array(shape.shape) - sharp.shape + 1) // 2
        alike = cv2.copyMakeBorder(sharp, edge[0], edge[0], edge[1], edge[1], cv2.BORDER_CONSTANT, value=0)
        alike = cv2.GaussianBlur(alike, (0, 0), blur)[: shape.shape[0], : shape.shape[1]]
        rises = [np.abs(np.diff(each / each.max(), axis=1)).max() for each in (shape, alike)]
        assert rises[0] == pytest.approx(rises[1], rel=0.2)


def test_noise_is_measured_beside_edges():
    assert appearance.noise(casting(noise=3.0).astype(np.float32)) == pytest.approx(3.0, rel=0.2)
    assert appearance.unsharpness(np.full((80, 80), 7, np.uint8)) == appearance.UNKNOWN


def test_part_levels():
    dark, air = appearance.part_levels(casting())
    assert dark == -np.inf
    assert 150 < air < 226
    unexposed = casting()
    unexposed[:, -90:] = 3
    dark, air = appearance.part_levels(unexposed)
    assert 3 < dark < 50
    assert 150 < air < 226
    flat = np.full((128, 128), 190, np.uint8)
    flat[:10] = 20
    assert appearance.part_levels(flat)[1] == np.inf, 'a flat part fills the picture'
    assert appearance.part_levels(np.full((9, 9), 5, np.uint16)) == (-np.inf, np.inf)


@pytest.mark.parametrize('level', [0, 120, 255])
def test_a_blank_image_stays_blank(level):
    image = np.full((128, 96), level, np.uint8)
    results = DrawFlaws()(sample(image))
    assert (results['img'] == level).all()
    assert results['gt_bboxes'].tensor.shape == (0, 4)
    assert results['gt_bboxes_labels'].dtype == np.int64


@pytest.mark.parametrize('shape', [(1, 1), (2, 30), (9, 9), (24, 40)])
def test_an_image_smaller_than_a_flaw(shape):
    rng = np.random.default_rng(0)
    for seed in range(8):
        image = rng.integers(80, 120, shape).astype(np.uint8)
        result, flaws = drawn.draw_flaws(image, np.random.default_rng(seed), recipe(pitch=(0.05, 0.05)))
        assert not ((result != image) & ~inside(flaws, shape)).any()
        for x, y, width, height in (flaw.bbox for flaw in flaws):
            assert 0 <= x < x + width <= shape[1]
            assert 0 <= y < y + height <= shape[0]


def test_film_is_drawn_as_its_negative():
    """On film a pore is darker; sound pixels keep their level."""
    np.random.seed(4)
    plain = DrawFlaws(number=(5, 5))(sample(casting()))
    np.random.seed(4)
    film = DrawFlaws(number=(5, 5), film=True)(sample(255 - casting()))
    assert plain['drawn']
    assert (film['img'] == 255 - plain['img']).all()
    assert (film['gt_bboxes'].tensor == plain['gt_bboxes'].tensor).all()
    deep = casting(dtype='float32')
    results = DrawFlaws(number=(5, 5), film=True)(sample(deep))
    assert (results['img'] == deep)[~inside(results['drawn'], deep.shape)].all()


def test_existing_boxes_stay_and_are_kept_clear():
    present = torch.tensor([[60.0, 170.0, 120.0, 220.0], [180.0, 160.0, 300.0, 230.0]])
    for seed in range(6):
        np.random.seed(seed)
        image = casting(seed)
        results = DrawFlaws(number=(3, 6))(
            sample(
                image,
                gt_bboxes=HorizontalBoxes(present.clone()),
                gt_bboxes_labels=np.array([4, 2]),
                gt_ignore_flags=np.array([True, False]),
                gt_masks=BitmapMasks(np.zeros((2, *image.shape), np.uint8), *image.shape),
            )
        )
        count = 2 + len(results['drawn'])
        assert (results['gt_bboxes'].tensor[:2] == present).all()
        assert results['gt_bboxes_labels'][:2].tolist() == [4, 2]
        assert results['gt_ignore_flags'].tolist() == [True] + [False] * (count - 1)
        assert len(results['gt_bboxes']) == len(results['gt_masks']) == count
        for x1, y1, x2, y2 in present.int().tolist():
            middle = np.s_[y1 + 15 : y2 - 15, x1 + 15 : x2 - 15]
            assert (results['img'] == image)[middle].all()
    assert results['drawn']
    for mask, flaw in zip(results['gt_masks'].masks[2:], results['drawn']):
        assert mask.sum() == flaw.mask.sum()


def test_polygons_of_drawn_flaws():
    image = casting()
    np.random.seed(0)
    results = DrawFlaws(number=(4, 4))(sample(image, gt_masks=PolygonMasks([], *image.shape)))
    assert len(results['gt_masks']) == len(results['drawn']) > 0
    for polygons, flaw in zip(results['gt_masks'].masks, results['drawn']):
        points = np.concatenate(polygons).reshape(-1, 2)
        x, y, width, height = flaw.bbox
        assert (points >= (x, y)).all()
        assert (points <= (x + width, y + height)).all()


def test_the_margin_widens_boxes_inside_the_image():
    image = casting()
    np.random.seed(1)
    tight = DrawFlaws(number=(6, 6))(sample(image))
    np.random.seed(1)
    wide = DrawFlaws(number=(6, 6), margin=0.25)(sample(image))
    assert (tight['img'] == wide['img']).all()
    assert len(tight['drawn']) > 2
    for a, b, flaw in zip(tight['gt_bboxes'].tensor, wide['gt_bboxes'].tensor, tight['drawn']):
        grown = torch.tensor(
            [-0.25 * flaw.bbox[2], -0.25 * flaw.bbox[3], 0.25 * flaw.bbox[2], 0.25 * flaw.bbox[3]]
        )
        expected = a + grown
        expected[0::2].clamp_(0, image.shape[1])
        expected[1::2].clamp_(0, image.shape[0])
        torch.testing.assert_close(b, expected)


def test_nothing_is_drawn_with_probability_zero():
    image = casting()
    results = DrawFlaws(prob=0.0)(sample(image))
    assert (results['img'] == image).all()
    assert results['drawn'] == []


def test_labels_of_types():
    types = {kind: label for label, kind in enumerate(CASTINGS)}
    assert flaw_labels(tuple(CASTINGS)) == types
    assert set(flaw_labels(('defect',)).values()) == {0}
    severities = flaw_labels(('critical', 'minor'), 'castings')
    assert severities == {kind: int(name == 'minor') for kind, name in CASTINGS.items()}
    plant = flaw_labels(('minor', 'critical'), {'crack': 'critical', 'scab': 'minor', 'gas_pore': 'minor'})
    assert plant == {'crack': 1, 'gas_pore': 0}
    with pytest.raises(DatasetError, match="severity map: {'crack': 'fatal'} is not among the classes"):
        flaw_labels(('critical', 'minor'), {'crack': 'fatal'})


def test_only_types_with_a_class_are_drawn():
    drawing = DrawFlaws(number=(6, 6), weights=dict(gas_pore=3))
    kinds = set()
    for seed in range(4):
        np.random.seed(seed)
        results = drawing(dict(img=casting(seed), flaw_labels={'crack': 1, 'gas_pore': 0}))
        assert results['gt_bboxes_labels'].tolist() == [
            {'crack': 1, 'gas_pore': 0}[flaw.type] for flaw in results['drawn']
        ]
        kinds |= {flaw.type for flaw in results['drawn']}
    assert kinds == {'crack', 'gas_pore'}
    with pytest.raises(DatasetError, match='none of the types .* has a class'):
        drawing(dict(img=casting(), flaw_labels={}))
    with pytest.raises(DatasetError, match='expected XrayBackgrounds or XrayDefects'):
        drawing(dict(img=casting()))


@pytest.mark.parametrize(
    'wrong',
    [
        dict(number=(3, 1)),
        dict(pitch=0),
        dict(contrast=(0.5, 0.1)),
        dict(opacity=(0, 1)),
        dict(prob=1.5),
        dict(margin=-1),
        dict(weights=dict(scab=1)),
        dict(weights=dict(crack=-1)),
    ],
)
def test_arguments_out_of_their_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f'DrawFlaws: .*{next(iter(wrong))}='):
        DrawFlaws(**wrong)


PIPELINE = [
    dict(type='LoadXray'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='DrawFlaws', number=(1, 4), pitch=0.4),
    dict(type='mmdet.PackDetInputs'),
]


@pytest.fixture
def backgrounds(tiny_coco):
    """Twelve unlabelled radiographs with flaws drawn in."""
    root = tiny_coco(n=2, unlabeled=12, size=128)
    return XrayBackgrounds(data_root=str(root), data_prefix='unlabeled', pipeline=PIPELINE)


def test_an_unlabelled_set_gives_boxes_by_seed_epoch_and_index(backgrounds):
    assert len(backgrounds) == 12
    assert backgrounds.metainfo['classes'] == tuple(CASTINGS)

    def drawn_as(seed, epoch, index):
        item = SeededDataset(backgrounds, seed)[epoch, index]
        instances = item['data_samples'].gt_instances
        return item['inputs'], instances.bboxes.tensor, instances.labels

    first = [drawn_as(0, 0, index) for index in range(12)]
    np.random.seed(99)  # whatever was drawn before
    for index in reversed(range(12)):
        assert all(torch.equal(a, b) for a, b in zip(first[index], drawn_as(0, 0, index)))
    for other in ((0, 1), (1, 0)):
        assert any(not torch.equal(first[k][0], drawn_as(*other, k)[0]) for k in range(12))
    assert sum(len(boxes) for _, boxes, _ in first) > 6


def test_a_labelled_set_gets_more_boxes(tiny_coco):
    root = tiny_coco(n=6, size=128)
    data = XrayDefects(
        data_root=str(root),
        ann_file='train.json',
        data_prefix=dict(img='images'),
        severity='castings',
        pipeline=PIPELINE,
    )
    plain = [len(data.get_data_info(index)['instances']) for index in range(6)]
    found = [data[index]['data_samples'].gt_instances for index in range(6)]
    assert all(len(instances) >= count for instances, count in zip(found, plain))
    assert sum(map(len, found)) > sum(plain)
    assert {int(label) for instances in found for label in instances.labels} <= {0, 1}
