"""Flaws gathered from boxes, and their POD."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from helpers.inspected import image

from projects.measures.flaws import ceiled, gather_flaws, measure_pod, size_ratios
from projects.measures.images import MeasureError
from projects.measures.matching import match_all


def test_flaws_by_hand():
    images = [
        image(
            [(0, 0, 10, 0.9, 0)],
            [(0, 0, 10, 0), (50, 0, 10, 1)],
            image_id=1,
            part='a',
            truth_flaws=[1, 2],
            truth_areas=[math.pi * 9, 50],
            truth_contrasts=[0.2, 0.1],
        ),
        image(
            [],
            [(0, 0, 10, 0)],
            image_id=2,
            part='a',
            truth_flaws=['1'],
            truth_areas=[math.pi * 16],
            truth_contrasts=[0.3],
        ),
    ]
    (flaw,) = gather_flaws(match_all(images), 0.5, pixel_pitch=0.1)
    assert (flaw.part, flaw.hit, flaw.contrast) == ('a', True, 0.3)
    assert flaw.size == pytest.approx(0.8)  # radius 4 px in its larger view, 0.1 mm a px
    assert not gather_flaws(match_all(images), 0.95)[0].hit


def test_without_flaw_ids_every_box_is_a_row():
    images = [image([], [(0, 0, 10, 0)], image_id=i, part='a') for i in range(2)]
    flaws = gather_flaws(match_all(images), 0.5)
    assert [flaw.size for flaw in flaws] == pytest.approx([2 * math.sqrt(100 / math.pi)] * 2)
    assert flaws[0].contrast is None


def graded_images(parts=True):
    """300 images with a flaw each, larger ones found more often; a critical false alarm on every tenth."""
    generator = np.random.default_rng(0)
    images = []
    for i, side in enumerate(np.exp(generator.uniform(1, 4.5, 300))):
        found = generator.random() < 1 / (1 + (12 / side) ** 3)
        detections = [(0, 0, side, 0.9, 0)] if found else []
        detections += [(200, 200, 5, 0.8, 0)] if i % 10 == 0 else []
        contrasts = [generator.uniform(0.1, 1)]
        part = i // 2 if parts else None
        images.append(image(detections, [(0, 0, side, 0)], i, part, truth_contrasts=contrasts))
    return images


def test_pod_is_clustered_by_part_and_has_the_false_calls_beside_it():
    pod = measure_pod(match_all(graded_images()), 0.5)
    assert pod.fit.parts == 150
    assert pod.unit == 'px'
    assert pod.fit.a50 == pytest.approx(2 * 12 / math.sqrt(math.pi), rel=0.3)
    assert pod.fit.a50 < pod.fit.a90 < pod.fit.a90_95
    assert any('each box is a row (300)' in problem for problem in pod.fit.problems)
    assert pod.false_calls.per_image == 0.1
    assert pod.false_calls.per_defect_free_image is None
    json.dumps(asdict(pod), allow_nan=False)


def test_pod_in_millimetres_and_against_contrast():
    matched = match_all(graded_images())
    assert measure_pod(matched, 0.5, pixel_pitch=0.2).fit.a90 == pytest.approx(
        0.2 * measure_pod(matched, 0.5).fit.a90
    )
    assert len(measure_pod(matched, 0.5, by_contrast=True).fit.coefficients) == 3


def test_pod_without_part_ids_says_so():
    pod = measure_pod(match_all(graded_images(parts=False)), 0.5)
    assert pod.fit.parts is None
    assert any('parts not known' in problem for problem in pod.fit.problems)


@pytest.mark.parametrize('known', [False, True])
def test_sightings_are_not_flaws(known):
    """Twenty flaws in ten views each passed as 200 flaws, without a word."""
    generator = np.random.default_rng(1)
    images = []
    for part in range(20):
        side = np.exp(generator.uniform(1.5, 3.5))
        for _ in range(10):
            hit = generator.random() < 1 / (1 + np.exp(-2 * np.log(side / 12)))
            found = [(50, 50, side, 0.9, 0)] if hit else []
            flaws = dict(truth_flaws=['f']) if known else {}
            images.append(image(found, [(50, 50, side, 0)], len(images), part, **flaws))
    pod = measure_pod(match_all(images), 0.5)
    assert (pod.rows, pod.fit.flaws) == (('flaws', 20) if known else ('boxes', 200))
    result = [problem for problem in pod.fit.problems if 'each box is a row (200)' in problem]
    assert len(result) == (not known)
    assert (
        known or result[0].startswith('sightings, not flaws: ') and '20 parts have several views' in result[0]
    )


def test_pod_refuses_what_it_cannot_measure():
    with pytest.raises(MeasureError, match='no flaw with label 1'):
        measure_pod(match_all(graded_images()), 0.5, label=1)
    with pytest.raises(MeasureError, match='without a contrast'):
        measure_pod(match_all([image([], [(0, 0, 10, 0)])]), 0.5, by_contrast=True)


@pytest.mark.parametrize(
    ('size', 'printed'),
    [
        (0.6211, '0.622'),
        (0.62, '0.62'),
        (12.301, '12.4'),
        (np.nextafter(0.25, 1), '0.251'),
        (1234.5, '1.24e+03'),
    ],
)
def test_upper_bounds_of_a_size_are_printed_rounded_up(size, printed):
    assert ceiled(size) == printed
    assert float(printed) >= size


def test_masks_are_compared_with_the_flaws_that_they_found():
    def one(area, truth, **changes):
        found = image([(0, 0, 10, 0.9, 0)], [(0, 0, 10, 0)], truth_areas=[truth], **changes)
        found.areas = np.array([area], float)
        return found

    images = [one(400, 100), one(100, 100), one(81, 100), one(math.nan, 100)]
    images.append(image([(50, 50, 10, 0.9, 0)], [(0, 0, 10, 0)]))  # a false alarm and a miss
    found = size_ratios(match_all(images), 0.5)
    assert found.tolist() == pytest.approx([2, 1, 0.9])
    assert size_ratios(match_all(images), 0.5, 0).tolist() == found.tolist()
    assert not size_ratios(match_all(images), 0.5, 1).size
    assert not size_ratios(match_all(images), 0.95).size
    assert not size_ratios(match_all(images[3:]), 0.5).size
