"""Masks of annotated flaws: read in every form, kept on their flaws, refused where a recipe cannot learn."""

import json

import numpy as np
import pytest
from helpers.config_grammar import dataset, find, resolved
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import DATASETS, DefaultScope
from mmengine.utils import import_modules_from_strings
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from projects.radiograph.rle import encode_rle
from projects.xray.coco import load_defects
from projects.xray.datasets import DatasetError
from projects.xray.masks import encode, with_masks

TWIN = find('mask-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic')
import_modules_from_strings(**resolved(TWIN).custom_imports)


def ring():
    """A mask (40, 60) of a ring and, apart from it, a square."""
    mask = np.zeros((40, 60), bool)
    mask[10:30, 10:30] = True
    mask[15:25, 15:25] = False
    mask[5:9, 50:54] = True
    return mask


RING = encode(ring())
PARTS = [[2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0], [40.0, 20.0, 50.0, 20.0, 50.0, 35.0]]


@pytest.fixture
def write(tmp_path):
    """Write a COCO file of one image of 60 x 40 px with flaws of the given masks."""

    def make(*segmentations, **changes):
        annotations = [
            dict(id=k, image_id=1, category_id=1, bbox=[10, 5, 44, 25], iscrowd=0, segmentation=value)
            for k, value in enumerate(segmentations, 1)
        ]
        annotations[-1].update(changes)
        path = tmp_path / 'train.json'
        image = dict(id=1, file_name='P1.png', width=60, height=40)
        categories = [dict(id=1, name='crack')]
        path.write_text(json.dumps(dict(images=[image], annotations=annotations, categories=categories)))
        return path

    return make


def read(path):
    return with_masks(load_defects(path, ['crack']), str(path))['annotations']


def test_every_form_gives_its_pixels_with_holes_and_parts(write):
    path = write(encode_rle(ring()), RING, PARTS, PARTS[1:])
    got = [coco_mask.decode(ann['segmentation']).astype(bool) for ann in read(path)]
    np.testing.assert_array_equal(got[0], ring())
    np.testing.assert_array_equal(got[1], ring())
    reference = COCO(str(path))
    for mask, row in zip(got[2:], reference.dataset['annotations'][2:], strict=True):
        np.testing.assert_array_equal(mask, reference.annToMask(row))
    assert got[2].sum() > got[3].sum() > 0
    assert got[2][5, 5] and got[2][21, 47] and not got[3][5, 5]


@pytest.mark.parametrize(
    'wrong',
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [['a'] * 6],
        [[1, 2, 3, 4, 5, True]],
        7,
        dict(size=[60, 40], counts=[2400]),
        dict(size=[40, 60], counts=[2401]),
        dict(size=[40, 60], counts=[10, -5, 2395]),
        dict(size=[40, 60], counts=[2400.0]),
        dict(size=[40, 60], counts=RING['counts'] + '0'),
        dict(size=[40, 60], counts='~~~~'),
        dict(size=[40, 60]),
    ],
    ids=str,
)
def test_a_mask_that_cannot_be_read_is_named(wrong, write):
    path = write(RING, wrong)
    with pytest.raises(DatasetError, match=r'annotation 2 \(P1.png\): expected .*; correct its') as caught:
        read(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'wrong',
    [
        [[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]],
        [[1.0, 30.0, 8.0, 30.0, 8.0, 39.0]],
        encode(np.eye(40, 60, dtype=bool) & (np.arange(60) < 5)),
    ],
    ids=['from 0 to 1', 'elsewhere', 'run lengths elsewhere'],
)
def test_a_mask_beside_its_box_is_named(wrong, write):
    """It would be learnt as the pixels of another place, or as its whole box."""
    with pytest.raises(
        DatasetError, match=r'annotation 2 \(P1.png\): its mask lies beside its box .*correct'
    ) as caught:
        read(write(RING, wrong))
    assert '\n' not in str(caught.value)
    assert len(read(write(RING, wrong, iscrowd=1))) == 2  # neither learnt nor counted


@pytest.mark.parametrize('missing', [None, [], {}])
def test_a_flaw_without_a_mask_is_no_flaw_to_learn(missing, write):
    path = write(RING, missing)
    with pytest.raises(DatasetError, match=r'1 of 2 flaws have no `segmentation` \(P1.png\).*Faster R-CNN'):
        read(path)


def test_a_mask_without_a_pixel_and_an_ignored_box_become_their_boxes(write):
    between = [[10.1, 10.1, 10.2, 10.1, 10.2, 10.2]]
    for wrong, changes in ((between, {}), (None, dict(iscrowd=1))):
        first, second = read(write(RING, wrong, bbox=[10.5, 10.5, 1.0, 2.0], **changes))
        assert first['segmentation'] == RING
        mask = coco_mask.decode(second['segmentation'])
        assert np.argwhere(mask).tolist() == [[y, x] for y in (10, 11, 12) for x in (10, 11)]


def test_the_targets_of_the_mask_head_are_the_pixels_in_a_box():
    """mmdet cuts them out of bitmaps by RoIAlign, which torchvision gives here."""
    rng = np.random.default_rng(0)
    whole = rng.random((2, 90, 120)) < 0.5
    masks = BitmapMasks(whole.astype(np.uint8), 90, 120)
    boxes = np.array([[10, 20, 38, 48], [30, 0, 86, 56]], np.float32)
    targets = masks.crop_and_resize(boxes, (28, 28), np.array([1, 0])).masks
    np.testing.assert_array_equal(targets[0], whole[1, 20:48, 10:38])
    average = whole[0, :56, 30:86].reshape(28, 2, 28, 2).mean((1, 3))
    np.testing.assert_array_equal(targets[1], average >= 0.5)


def items(root, **changes):
    """The training set of the small recipe on drawn radiographs."""
    data = dataset(resolved(TWIN).train_dataloader).to_dict()
    data |= dict(data_root=str(root), severity=dict(crack='critical', gas_pore='minor')) | changes
    with DefaultScope.overwrite_default_scope('mmdet'):
        return DATASETS.build(data)


def test_boxes_enclose_their_masks_after_resize_and_flip(tiny_coco):
    rows = items(tiny_coco(n=8, masks=True))
    flipped = 0
    for index in range(len(rows)):
        np.random.seed(index)
        sample = rows[index]
        truth = sample['data_samples'].gt_instances
        assert truth.masks.masks.shape == (len(truth.bboxes), *sample['inputs'].shape[-2:])
        flipped += sample['data_samples'].get('flip', False)
        for box, mask in zip(truth.bboxes.tensor.numpy(), truth.masks.masks, strict=True):
            ys, xs = np.nonzero(mask)
            inner = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            # An ellipse on its box: within two input pixels, as a stored pixel becomes two.
            assert np.abs(inner - box).max() <= 2.5
    assert 0 < flipped < len(rows)


def test_masks_are_asked_for_by_recipes_that_learn_them_alone(tiny_coco):
    root = tiny_coco(n=4)
    with pytest.raises(DatasetError, match='have no `segmentation`'):
        items(root)
    steps = [
        dict(step, with_mask=False) if step['type'] == 'LoadAnnotations' else step
        for step in dataset(resolved(TWIN).train_dataloader).pipeline
    ]
    assert 'masks' not in items(root, pipeline=steps)[0]['data_samples'].gt_instances
