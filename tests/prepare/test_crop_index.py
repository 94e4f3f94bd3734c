"""Crops are found by an index, across sets, brightness and contrast, among many radiographs of one design."""

import cv2
import numpy as np
import pytest

from projects.benchmark.archive import crop_set, measure_crops
from projects.prepare import crop_index
from projects.prepare.crop_index import CropIndex, correlation_at, find_points
from projects.prepare.findings import WARNING, ImageSet
from projects.prepare.leaks import find_crops
from projects.prepare.scan import Scans


def test_a_crop_has_the_points_of_its_original():
    (image,), _, _ = crop_set(1, 0, side=512)
    whole, part = find_points(image), find_points(image[100:400, 37:337])
    there = {(x, y): tuple(code) for (x, y), code in zip(whole.places.tolist(), whole.codes.tolist())}
    same = [
        there.get((x + 37, y + 100)) == tuple(code)
        for (x, y), code in zip(part.places.tolist(), part.codes.tolist())
    ]
    assert len(same) > 10 and np.mean(same) > 0.8


@pytest.mark.parametrize(
    'change',
    [
        lambda crop: crop,
        lambda crop: np.clip(0.6 * crop.astype(float) + 40, 0, 255).round().astype(np.uint8),
        lambda crop: (crop.astype(np.uint16) << 4) + 17,
        lambda crop: cv2.imdecode(cv2.imencode('.jpg', crop, [cv2.IMWRITE_JPEG_QUALITY, 95])[1], 0),
    ],
    ids=['as it is', 'other contrast', '12 bits', 'JPEG'],
)
def test_crops_of_look_alikes_are_found_in_their_own_original(change):
    images, crops, truth = crop_set(150, 1)
    index = CropIndex(find_points(image) for image in images)
    right = 0
    for crop, place in zip(crops, truth, strict=True):
        found = index.candidates(find_points(change(crop)))
        right += place in found
        for number, x, y in found[:1]:
            assert (correlation_at(change(crop), images[number], x, y) > 0.98) == ((number, x, y) == place)
    assert right >= 0.97 * len(crops)


def test_halves_that_the_whole_archive_has_hide_no_crop(monkeypatch):
    """In a large archive of one design each half of a code is common, as in a small one with a limit of 1."""
    monkeypatch.setattr(crop_index, '_COMMON', 1)
    images, crops, truth = crop_set(400, 5)
    index = CropIndex(find_points(image) for image in images)
    found = sum(
        place in index.candidates(find_points(crop)) for crop, place in zip(crops, truth, strict=True)
    )
    assert found >= 0.95 * len(crops)


def test_what_is_no_crop_is_refused_by_its_pixels():
    images, _, _ = crop_set(60, 2)
    others, _, _ = crop_set(20, 3)
    index = CropIndex(find_points(image) for image in images)
    for other in others:
        part = other[20:150, 30:150]
        for number, x, y in index.candidates(find_points(part)):
            assert correlation_at(part, images[number], x, y) < 0.995
    assert correlation_at(images[0], images[0], 1, 0) == 0  # reaches out
    assert correlation_at(np.full((9, 9), 3), images[0], 0, 0) == 0
    assert index.candidates(find_points(np.full((90, 90), 7, np.uint16))) == []
    assert CropIndex([]).candidates(find_points(images[0])) == []


def test_the_check_finds_more_crops_than_can_be_compared_with_all(tmp_path):
    images, crops, truth = crop_set(90, 4)
    assert len(crops) < 64
    more = [image[16:112, 24:120] for image in images[:80]]  # more than are compared one by one
    names = {}
    for side, rows in (('train', images), ('test', more)):
        (tmp_path / side).mkdir()
        names[side] = [f'{k:03d}.png' for k in range(len(rows))]
        for name, row in zip(names[side], rows):
            cv2.imwrite(str(tmp_path / side / name), row)
    sets = [
        ImageSet(side, side, str(tmp_path / side), rows, [{}] * len(rows), [], ('flaw',))
        for side, rows in names.items()
    ]
    window = dict(type='full')
    scans = Scans({path: window for s in sets for path in s.paths}, 1, lambda done: None)
    (finding,) = find_crops(sets, scans, 1)
    assert finding.level == WARNING and 'some across train and test' in finding.text
    hits = [(host, crop) for host, crop, _ in finding.pairs]
    right = [crop.rpartition('/')[2] == host.rpartition('/')[2] for host, crop in hits]
    assert all(right) and len(hits) >= 78


def test_the_search_is_measured():
    row = measure_crops(200)
    assert row['images'] == 200 and row['searched'] == 40 and row['found'] >= 38 and row['cpu_s'] > 0
