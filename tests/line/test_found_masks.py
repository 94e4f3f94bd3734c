"""Masks of found flaws: pasted as mmdet pastes them, joined over tiles, written as COCO's run lengths."""

import json

import cv2
import numpy as np
import pytest
import torch
from helpers.exported import SIDE, export_to, spot
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from pycocotools import mask as coco_mask

from projects.line.export import evaluate
from projects.line.runtime import Inspector
from projects.line.runtime.archive import inspect_archive
from projects.line.runtime.masks import Mask, join, paste
from projects.line.runtime.pictures import overlay
from projects.line.runtime.results import as_result
from projects.measures.flaws import size_ratios
from projects.measures.images import read_images
from projects.measures.matching import match_all
from projects.radiograph.rle import area_of, compress, decode_rle, encode_rle, uncompress


def whole(mask, size):
    """The mask over the whole radiograph."""
    pixels = np.zeros(size, bool)
    height, width = mask.pixels.shape
    pixels[mask.top : mask.top + height, mask.left : mask.left + width] = mask.pixels
    return pixels


def test_rasters_are_pasted_as_mmdet_does():
    rng = np.random.default_rng(0)
    size = (70, 90)
    marked = 0
    for _ in range(200):
        raster = cv2.GaussianBlur(rng.random((28, 28), dtype=np.float32), (0, 0), 2)
        raster = np.clip((raster - 0.5) * 8 + 0.5, 0, 1)
        x, y = rng.uniform(0, 85), rng.uniform(0, 65)
        w, h = rng.uniform(0.5, 60, 2)
        box = np.array([x, y, min(x + w, 90), min(y + h, 70)], np.float32)
        boxes = torch.from_numpy(box)[None]
        values = _do_paste_mask(torch.from_numpy(raster)[None, None], boxes, *size, skip_empty=False)[0][0]
        got = whole(paste(raster, box, size), size)
        differing = got != (values >= 0.5).numpy()
        assert (np.abs(values.numpy()[differing] - 0.5) < 1e-5).all()  # rounding alone
        marked += got.sum()
    assert marked > 10_000


@pytest.mark.parametrize('box', [(5, 5, 5, 5), (95, 10, 99, 20), (-9, -9, -1, -1)])
def test_a_box_without_a_pixel_has_an_empty_mask(box):
    mask = paste(np.ones((28, 28), np.float32), np.array(box, np.float32), (70, 90))
    assert mask.area == 0 and mask.outlines() == []
    assert area_of(mask.rle((70, 90))) == 0


def test_run_lengths_are_those_of_pycocotools():
    rng = np.random.default_rng(1)
    for height, width in ((1, 1), (7, 5), (64, 90), (300, 2)):
        for share in (0, 0.1, 0.6, 1):
            pixels = rng.random((height, width)) < share
            top, left = (int(rng.integers(side)) for side in (height, width))
            for mask in (Mask(0, 0, pixels), Mask(left, top, pixels[top:, left:])):
                full = whole(mask, (height, width))
                result = mask.rle((height, width))
                wanted = coco_mask.encode(np.asfortranarray(full, np.uint8))
                assert result == dict(size=[height, width], counts=wanted['counts'].decode())
                assert area_of(result) == mask.area == full.sum()
                counts = encode_rle(full)['counts']
                assert compress(counts) == result['counts'] and uncompress(result['counts']) == counts


def test_parts_of_a_flaw_in_several_tiles_are_joined():
    left, right = Mask(2, 3, np.ones((2, 4), bool)), Mask(5, 4, np.eye(3, dtype=bool))
    expected = whole(left, (10, 10)) | whole(right, (10, 10))
    np.testing.assert_array_equal(whole(join([left, right]), (10, 10)), expected)
    assert join([left]) is left
    empty = Mask(0, 0, np.zeros((0, 0), bool))
    assert join([empty, left]) is left and join([empty]) is empty


def test_lines_go_around_parts_and_holes():
    pixels = np.zeros((20, 20), bool)
    pixels[2:12, 2:12] = True
    pixels[5:9, 5:9] = False
    pixels[15:18, 15:19] = True
    lines = Mask(30, 40, pixels).outlines()
    boxes = sorted([*np.min(line, 0), *np.max(line, 0)] for line in lines)
    assert np.allclose(
        boxes, [[32.25, 42.25, 41.75, 51.75], [34.75, 44.75, 39.25, 49.25], [45.25, 55.25, 48.75, 57.75]]
    )


def with_masks(path):
    """An inspector whose engine finds a spot, and around it a mask without its corners."""
    inspector = Inspector(export_to(path), cache=False)
    find = inspector._run
    raster = np.ones((1, 28, 28), np.float32)
    raster[:, :8, :8] = raster[:, -8:, -8:] = 0
    inspector._run = lambda *inputs: (*find(*inputs), raster)
    return inspector


def test_masks_are_in_every_result(tmp_path):
    inspector = with_masks(tmp_path / 'exported')
    inspection = inspector(spot(20, 30))
    (mask,) = inspection.masks
    assert (mask.left, mask.top, mask.pixels.shape) == (16, 26, (8, 8))
    assert 40 < mask.area < 64 and not mask.pixels[0, 0] and mask.pixels[0, -1]
    (box,) = as_result('a.png', '', inspection, inspector)['boxes']
    assert box['area'] == mask.area == coco_mask.area(box['mask'])
    drawn, plain = (
        overlay(inspection, 0.5),
        overlay(Inspector(tmp_path / 'exported', cache=False)(spot(20, 30)), 0.5),
    )
    assert (drawn != plain).any(2).sum() > 4

    (tmp_path / 'archive').mkdir()
    cv2.imwrite(str(tmp_path / 'archive' / 'a.png'), spot(20, 30))
    inspect_archive(inspector, tmp_path / 'archive', ['a.png'], tmp_path / 'out')
    coco = json.loads((tmp_path / 'out' / 'shard-1-of-1' / 'coco.json').read_text())
    (row,) = coco['annotations']
    assert row['segmentation'] == mask.rle((SIDE, SIDE)) and row['area'] == mask.area
    lines = (tmp_path / 'out' / 'shard-1-of-1' / 'detections.csv').read_text().splitlines()
    assert lines[0].endswith(',area') and lines[1].endswith(f',{mask.area}')
    counts = dict(size=row['segmentation']['size'], counts=uncompress(row['segmentation']['counts']))
    np.testing.assert_array_equal(decode_rle(counts), whole(mask, (SIDE, SIDE)))


def test_masks_of_tiles_are_joined_in_the_whole_radiograph(tmp_path):
    inspector = with_masks(tmp_path / 'exported')
    film = np.full((SIDE, 3 * SIDE), 100, np.uint8)
    film[30, 20], film[31, 150] = 255, 254
    inspection = inspector(film)
    assert len(inspection.masks) == len(inspection.boxes) >= 2
    for box, mask in zip(inspection.boxes, inspection.masks, strict=True):
        x1, y1, x2, y2 = box
        assert x1 - 1 < mask.left and mask.left + mask.pixels.shape[1] < x2 + 1
        assert y1 - 1 < mask.top and mask.top + mask.pixels.shape[0] < y2 + 1
        assert mask.area > 0


def test_a_detector_of_boxes_says_nothing_of_masks(tmp_path):
    inspector = Inspector(export_to(tmp_path / 'exported'), cache=False)
    inspection = inspector(spot(20, 30))
    assert inspection.masks is None
    assert set(as_result('a', '', inspection, inspector)['boxes'][0]) == {'box', 'class', 'score'}


def test_a_tested_folder_keeps_the_masks_in_its_predictions(tmp_path, monkeypatch):
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / 'a.png'), spot(20, 30))
    box = dict(id=1, image_id=1, category_id=1, bbox=[16, 26, 8, 8], area=64, iscrowd=0)
    images = [dict(id=1, file_name='a.png', width=SIDE, height=SIDE)]
    truth = dict(images=images, annotations=[box], categories=[dict(id=1, name='crack')])
    (tmp_path / 'test.json').write_text(json.dumps(truth))
    (tmp_path / 'severity.yaml').write_text('crack: critical\n')
    inspector = with_masks(tmp_path / 'exported')
    monkeypatch.setattr(evaluate, 'Inspector', lambda *_: inspector)
    result, _ = evaluate.evaluate(
        tmp_path / 'exported', tmp_path / 'test.json', severity=str(tmp_path / 'severity.yaml')
    )
    (row,) = result['detections']
    (mask,) = inspector(spot(20, 30)).masks
    assert (row['segmentation'], row['area']) == (mask.rle((SIDE, SIDE)), mask.area)
    (image,) = read_images(result['truth'], result['detections'])
    assert size_ratios(match_all([image]), 0.5).tolist() == pytest.approx([np.sqrt(mask.area / 64)])
