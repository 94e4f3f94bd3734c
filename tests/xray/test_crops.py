"""Crops around flaws: boxes stay on their flaws, whatever is cut, scaled or cut off."""

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from projects.xray.crops import XrayFlawCrop


def radiograph(height, width, boxes, dtype=np.uint8):
    """Results of a loader: black, each box filled with a level of its own."""
    image = np.zeros((height, width), dtype)
    for number, (x1, y1, x2, y2) in enumerate(boxes, 1):
        image[y1:y2, x1:x2] = 50 * number
    return dict(
        img=image,
        img_shape=image.shape,
        gt_bboxes=HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        gt_bboxes_labels=np.arange(len(boxes)),
        gt_ignore_flags=np.zeros(len(boxes), bool),
    )


BOXES = [(40, 30, 60, 55), (300, 200, 330, 220), (310, 205, 350, 260)]


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('scale', [(1, 1), (0.5, 2.5)])
def test_a_box_stays_on_its_flaw(scale, dtype):
    crop = XrayFlawCrop(size=128, flaw=1, scale=scale)
    whole = 0
    for seed in range(60):
        np.random.seed(seed)
        results = crop(radiograph(300, 400, BOXES[:2], dtype))
        image, boxes = results['img'], results['gt_bboxes'].tensor.numpy()
        assert image.dtype == dtype
        assert results['img_shape'] == image.shape
        assert max(image.shape) <= 128
        assert len(boxes) == len(results['gt_bboxes_labels']) == len(results['gt_ignore_flags']) > 0
        for box, label in zip(boxes, results['gt_bboxes_labels']):
            ys, xs = np.nonzero(np.abs(image.astype(float) - 50 * (label + 1)) < 25)
            found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert np.abs(box - found).max() <= 2 * max(scale)
            whole += not results['gt_ignore_flags'][0]
    assert whole > 50


@pytest.mark.parametrize('stretch', [1, 3])
def test_a_mask_stays_on_its_flaw(stretch):
    crop = XrayFlawCrop(size=128, flaw=1, scale=(0.5, 2.5), stretch=stretch)
    for seed in range(40):
        np.random.seed(seed)
        results = radiograph(300, 400, BOXES[:2])
        whole = np.stack([results['img'] == 50 * number for number in (1, 2)])
        results['gt_masks'] = BitmapMasks(whole.astype(np.uint8), 300, 400)
        results = crop(results)
        assert results['gt_masks'].masks.shape == (len(results['gt_bboxes']), *results['img_shape'])
        for mask, label in zip(results['gt_masks'].masks, results['gt_bboxes_labels'], strict=True):
            filled = np.abs(results['img'].astype(float) - 50 * (label + 1)) < 25
            assert (filled != mask.astype(bool)).sum() <= 3 * (4 + 2 * np.sqrt(mask.sum()))  # at its border


def test_a_flaw_asked_for_is_in_the_crop_whole():
    crop = XrayFlawCrop(size=64, flaw=1, scale=(1, 1))
    seen = set()
    for seed in range(40):
        np.random.seed(seed)
        results = crop(radiograph(300, 400, BOXES))
        sizes = np.ptp(results['gt_bboxes'].tensor.numpy().reshape(-1, 2, 2), axis=1)
        original = np.ptp(np.array(BOXES).reshape(-1, 2, 2), axis=1)[results['gt_bboxes_labels']]
        assert (sizes == original).all(axis=1).any()
        seen |= set(results['gt_bboxes_labels'])
    assert seen == {0, 1, 2}


def test_flaws_of_all_sizes_come_in_the_range_that_is_asked_for():
    crop = XrayFlawCrop(size=160, flaw=1, scale=(0.2, 4), side=(16, 64))
    for box, least, most in (
        ((300, 200, 320, 220), 16, 64),  # any factor from 0.8 to 3.2
        ((200, 150, 400, 350), 40, 64),  # no smaller than scale 0.2 makes it
        ((300, 200, 303, 203), 12, 12),  # too small for scale 4: as near as can be
    ):
        sides = []
        for seed in range(80):
            np.random.seed(seed)
            found = crop(radiograph(500, 600, [box]))['gt_bboxes'].tensor.numpy()[0]
            sides.append(np.sqrt(np.prod(found[2:] - found[:2])))
        assert np.allclose([min(sides), max(sides)], [least, most], rtol=0.12)


def test_stretched_flaws_keep_their_boxes_and_their_area():
    crop = XrayFlawCrop(size=128, flaw=1, scale=(1, 1), stretch=4)
    ratios = []
    for seed in range(80):
        np.random.seed(seed)
        results = crop(radiograph(500, 600, [(200, 200, 240, 240)]))
        x1, y1, x2, y2 = results['gt_bboxes'].tensor.numpy()[0]
        ys, xs = np.nonzero(results['img'] > 25)
        assert np.abs([x1 - xs.min(), y1 - ys.min(), x2 - xs.max() - 1, y2 - ys.max() - 1]).max() <= 2
        assert (x2 - x1) * (y2 - y1) == pytest.approx(1600, rel=0.05)
        ratios.append((x2 - x1) / (y2 - y1))
    assert np.allclose([min(ratios), max(ratios)], [1 / 4, 4], rtol=0.2)
    assert np.median(ratios) == pytest.approx(1, rel=0.4)


@pytest.mark.parametrize('wrong', [dict(side=(0, 10)), dict(side=(20, 10)), dict(stretch=0.5)])
def test_ranges_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))}='):
        XrayFlawCrop(**wrong)


def test_sound_places_hold_no_flaw():
    crop = XrayFlawCrop(size=64, flaw=0, scale=(1, 1))
    for seed in range(40):
        np.random.seed(seed)
        assert not len(crop(radiograph(300, 400, BOXES))['gt_bboxes'])


def test_what_is_cut_off_is_ignored():
    crop = XrayFlawCrop(size=50, flaw=0, visible=0.5)
    boxes = np.array([(0, 0, 20, 20), (40, 0, 80, 20), (45, 45, 75, 75), (50, 0, 60, 9)], np.float32)
    kept, ignored, moved = crop.boxes_in(boxes, (0, 0, 50, 50))
    assert kept.tolist() == [0, 1, 2]
    assert ignored.tolist() == [False, True, True]
    assert moved.tolist() == [[0, 0, 20, 20], [40, 0, 50, 20], [45, 45, 50, 50]]


def test_images_smaller_than_a_crop_stay_whole():
    np.random.seed(0)
    results = XrayFlawCrop(size=256, flaw=1, scale=(1, 1))(radiograph(100, 400, BOXES[:1]))
    assert results['img'].shape == (100, 256)
    results = XrayFlawCrop(size=256, flaw=1, scale=(2, 2))(radiograph(60, 80, BOXES[:1]))
    assert results['img'].shape == (120, 160)
    assert results['gt_bboxes'].tensor.tolist() == [[80, 60, 120, 110]]


def test_a_flaw_larger_than_the_crop_fills_it():
    np.random.seed(0)
    results = XrayFlawCrop(size=64, flaw=1, scale=(1, 1))(radiograph(400, 400, [(50, 60, 350, 340)]))
    assert results['img'].min() == 50
    assert results['gt_bboxes'].tensor.tolist() == [[0, 0, 64, 64]]
    assert results['gt_ignore_flags'].tolist() == [True]


def test_radiographs_without_flaws_are_cropped_too():
    results = XrayFlawCrop(size=64)(radiograph(300, 400, []))
    assert results['gt_bboxes'].tensor.shape == (0, 4)
    assert results['gt_bboxes_labels'].shape == (0,)


def test_unlabelled_radiographs_are_cropped_without_boxes():
    image = np.arange(200 * 300, dtype=np.uint16).reshape(200, 300)  # a gray level names its position
    results = XrayFlawCrop(size=64, flaw=0, scale=(1, 1))(dict(img=image, img_shape=image.shape))
    assert set(results) == {'img', 'img_shape'}
    assert results['img'].shape == results['img_shape'] == (64, 64)
    y, x = divmod(int(results['img'][0, 0]), 300)
    assert np.array_equal(results['img'], image[y : y + 64, x : x + 64])


def test_same_draws_same_crop():
    crops = []
    for _ in range(2):
        np.random.seed(7)
        crops.append(XrayFlawCrop(size=64)(radiograph(300, 400, BOXES)))
    assert np.array_equal(crops[0]['img'], crops[1]['img'])
    assert torch.equal(crops[0]['gt_bboxes'].tensor, crops[1]['gt_bboxes'].tensor)


@pytest.mark.parametrize(
    'bad', [dict(size=0), dict(flaw=2), dict(scale=(2, 1)), dict(scale=(0, 1)), dict(visible=-1)]
)
def test_arguments_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match='XrayFlawCrop: .*expected'):
        XrayFlawCrop(**bad)
