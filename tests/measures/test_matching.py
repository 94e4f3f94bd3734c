import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from helpers.inspected import image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from projects.measures.comparison import compare
from projects.measures.detection import measure_detection, recall_by_rule
from projects.measures.images import InspectedImage, MeasureError, check_comparable, read_images
from projects.measures.matching import match, match_all
from projects.measures.parts import gather_parts
from projects.measures.ranking import average_precision_at, froc, recall_at

CLASSES = ('critical', 'minor')


# ----------------------------------------------------------------------------------------------- matching


@pytest.mark.parametrize(
    ('box', 'rules'),
    [
        ((0, 0, 10), {'iou', 'centre', 'either'}),
        ((2, 2, 5), {'centre', 'either'}),  # IoU 25 / 100
        ((6, 0, 10), set()),  # IoU 40 / 160, centre at x = 11
        ((0, 0, 18), {'iou', 'centre', 'either'}),  # IoU 100 / 324 = 0.31, centre (9, 9)
        ((-4, -4, 18), {'iou', 'centre', 'either'}),
        ((30, 30, 5), set()),
    ],
)
def test_what_a_hit_is(box, rules):
    for rule in ('iou', 'centre', 'either'):
        matched = match(image([(*box, 0.9, 0)], [(0, 0, 10, 0)]), rule)
        assert (matched.outcomes[0] == 'hit') == (rule in rules), rule


def test_iou_of_exactly_the_limit_is_a_hit_without_the_centre():
    wide = InspectedImage(
        1, [[0, 0, 30, 10]], [0.9], [0], [[0, 0, 9, 10]], [0]
    )  # IoU 90 / 300, centre x = 15
    assert match(wide, 'iou').outcomes.tolist() == ['hit']
    assert match(wide, 'centre').outcomes.tolist() == ['false alarm']
    assert match(wide, 'iou', iou=0.31).outcomes.tolist() == ['false alarm']


def test_one_flaw_is_reported_once_across_severities():
    both = image([(0, 0, 10, 0.6, 0), (1, 0, 10, 0.9, 1), (30, 30, 10, 0.3, 0)], [(0, 0, 10, 0)])
    matched = match(both)
    assert matched.kept.tolist() == [1, 2]  # the critical call at 0.6 loses to the minor one at 0.9
    assert matched.outcomes.tolist() == ['wrong severity', 'false alarm']
    assert matched.right_scores.tolist() == [-math.inf]
    assert matched.wrong_scores.tolist() == [0.9]


def test_further_detections_of_a_found_flaw_are_neither_hits_nor_false_alarms():
    matched = match(image([(0, 0, 6, 0.9, 0), (4, 4, 6, 0.8, 0), (3, 0, 4, 0.7, 1)], [(0, 0, 10, 0)]))
    assert matched.outcomes.tolist() == ['hit', 'duplicate', 'wrong severity']
    assert matched.right_scores.tolist() == [0.9]


def test_a_detection_takes_the_best_overlapping_flaw_of_its_severity():
    truth = [(0, 0, 10, 0), (4, 0, 10, 0), (5, 0, 10, 1)]
    matched = match(image([(5, 0, 10, 0.9, 0)], truth))
    assert matched.truths.tolist() == [1]
    assert matched.right_scores.tolist() == [-math.inf, 0.9, -math.inf]


def test_a_second_detection_takes_the_flaw_that_is_free():
    matched = match(image([(2, 0, 10, 0.9, 0), (0, 0, 4, 0.8, 0)], [(0, 0, 10, 0), (6, 0, 10, 0)]))
    assert matched.outcomes.tolist() == [
        'hit',
        'duplicate',
    ]  # the second one's centre is in the first flaw only
    matched = match(image([(2, 0, 10, 0.9, 0), (8, 0, 10, 0.8, 0)], [(0, 0, 10, 0), (6, 0, 10, 0)]))
    assert matched.outcomes.tolist() == ['hit', 'hit']


def test_ignored_boxes_are_neither_to_be_found_nor_false_alarms():
    crowd = image([(0, 0, 10, 0.9, 0)], [(0, 0, 10, 0)], ignored=[True])
    assert match(crowd).outcomes.tolist() == ['ignored']
    result = measure_detection(match_all([crowd]), 0.5, CLASSES)
    assert result.by_severity['critical'].defects == 0
    assert result.by_severity['critical'].recall is None
    assert froc(match_all([crowd])).defects == 0
    assert gather_parts(match_all([crowd]))[0].truth == 'ignored'
    assert result.false_alarms['critical'].per_image == 0
    assert result.defect_free_images == 0


def test_unknown_rule_is_refused():
    with pytest.raises(MeasureError, match='unknown rule'):
        match(image(), 'touching')
    with pytest.raises(MeasureError, match='no image to measure'):
        match_all([])


# --------------------------------------------------------------------------------------- at one threshold


def three_images():
    """Two defective images and a defect-free one."""
    return [
        image(
            [(0, 0, 10, 0.9, 0), (40, 0, 10, 0.8, 1), (80, 80, 10, 0.7, 0), (90, 0, 10, 0.2, 0)],
            [(0, 0, 10, 0), (40, 0, 10, 0), (40, 40, 40, 1), (90, 0, 10, 0)],
            image_id=1,
            part='a',
            truth_types=['crack', 'crack', 'gas_pore', 'blowhole'],
        ),
        image(
            [(0, 0, 100, 0.6, 1), (200, 0, 10, 0.5, 1)],
            [(0, 0, 100, 1)],
            image_id=2,
            part='b',
            truth_types=['gas_pore'],
        ),
        image([(0, 0, 10, 0.55, 0), (20, 0, 10, 0.54, 0), (40, 0, 10, 0.1, 0)], [], image_id=3, part='c'),
    ]


def test_detection_measures_by_hand():
    result = measure_detection(match_all(three_images()), 0.5, CLASSES)
    assert (result.images, result.defect_free_images) == (3, 1)
    # three critical: one found, one called minor, one found too low (0.2)
    assert asdict(result.by_severity['critical']) == dict(
        defects=3, found=1, wrong_severity=1, missed=1, recall=1 / 3
    )
    assert result.escapes == 2
    assert asdict(result.by_severity['minor']) == dict(
        defects=2, found=1, wrong_severity=0, missed=1, recall=1 / 2
    )
    assert {kind: found.recall for kind, found in result.by_type.items()} == {
        'crack': 0.5,
        'gas_pore': 0.5,
        'blowhole': 0.0,
    }
    # 10 px is small, 40 px (1600 px²) medium, 100 px (10,000 px²) large
    assert result.by_size['critical']['small'].defects == 3
    assert result.by_size['critical']['medium'].recall is None
    assert result.by_size['minor']['medium'].recall == 0
    assert result.by_size['minor']['large'].recall == 1
    # critical: one on the first image, two on the defect-free one; minor: one on the second
    assert asdict(result.false_alarms['critical']) == pytest.approx(
        dict(per_image=1, per_defective_image=0.5, per_defect_free_image=2)
    )
    assert asdict(result.false_alarms['minor']) == pytest.approx(
        dict(per_image=1 / 3, per_defective_image=0.5, per_defect_free_image=0)
    )
    json.dumps(asdict(result), allow_nan=False)


def test_sizes_are_those_of_coco_and_of_the_mask():
    # 32² px² is medium, as in COCO's half-open ranges; a thin crack has a small mask in a large box
    images = [image([], [(0, 0, 32, 0), (0, 0, 200, 0)], truth_areas=[1024, 500])]
    sizes = measure_detection(match_all(images), 0.5, CLASSES).by_size['critical']
    assert {name: found.defects for name, found in sizes.items()} == {'small': 1, 'medium': 1, 'large': 0}


def test_threshold_is_inclusive_and_decides_the_severity():
    # the minor call at 0.9 is alone down to 0.6, where the critical one, apart by IoU, finds the flaw as well
    images = [image([(0, 0, 10, 0.9, 1), (5, 5, 10, 0.6, 0)], [(0, 0, 11, 0)])]
    matched = match_all(images)
    assert measure_detection(matched, 0.61, CLASSES).by_severity['critical'].wrong_severity == 1
    at_limit = measure_detection(matched, 0.6, CLASSES).by_severity['critical']
    assert (at_limit.found, at_limit.wrong_severity) == (1, 0)


def test_without_defect_free_images_their_false_alarms_are_not_estimable():
    alarms = measure_detection(match_all(three_images()[:2]), 0.5, CLASSES).false_alarms['critical']
    assert alarms.per_defect_free_image is None
    assert alarms.per_defective_image == alarms.per_image == 0.5


def test_a_run_without_detections_has_defined_values():
    images = [image([], [(0, 0, 10, 0)]), image([], [])]
    matched = match_all(images)
    result = measure_detection(matched, 0.5, CLASSES)
    assert result.by_severity['critical'].recall == 0
    assert result.escapes == 1
    assert result.false_alarms['critical'].per_image == 0
    curve = froc(matched)
    assert curve.recall_at == {0.1: 0, 0.5: 0, 1.0: 0}
    assert curve.false_alarms_at == {0.8: None, 0.9: None, 0.95: None}
    json.dumps(asdict(curve), allow_nan=False)


def test_a_label_without_a_class_is_refused():
    with pytest.raises(MeasureError, match='label 1 has no name'):
        measure_detection(match_all(three_images()), 0.5, ('defect',))


# --------------------------------------------------------------------------------------------------- FROC


def test_froc_by_hand():
    curve = froc(match_all(three_images()), recalls=(1 / 3, 2 / 3, 0.9))
    # critical hits at 0.9 and 0.2; critical false alarms at 0.7, 0.55, 0.54, 0.1 on three images
    assert curve.defects == 3
    assert curve.thresholds == [0.9, 0.2]
    assert curve.recall == pytest.approx([1 / 3, 2 / 3])
    assert curve.false_alarms == pytest.approx([0, 1])
    assert curve.recall_at == pytest.approx({0.1: 1 / 3, 0.5: 1 / 3, 1.0: 2 / 3})
    assert curve.false_alarms_at == {1 / 3: 0, 2 / 3: 1, 0.9: None}
    json.dumps(asdict(curve), allow_nan=False)


def test_a_hit_as_high_as_a_false_alarm_is_had_only_with_it():
    images = [image([(0, 0, 10, 0.5, 0), (50, 0, 10, 0.5, 0)], [(0, 0, 10, 0)])]
    assert froc(match_all(images)).recall_at == {0.1: 0, 0.5: 0, 1.0: 1}


def test_recall_at_a_decimal_rate_is_not_lost_to_rounding():
    # 30 images at 0.1 allow three false alarms; the hit lies below the third (0.1 * 30 > 3 in floating point,
    # 0.29 * 100 < 29)
    images = [image([(50, 0, 10, 0.9 - i / 100, 0)], [], image_id=i) for i in range(3)]
    images += [image([(0, 0, 10, 0.5, 0)], [(0, 0, 10, 0)], image_id=3)]
    images += [image(image_id=i) for i in range(4, 30)]
    assert recall_at(match_all(images), 0.1)(np.arange(30)) == 1
    assert recall_at(match_all(images), 0.09)(np.arange(30)) == 0
    images = [image([(50, 0, 10, 0.9, 0)], [], image_id=i) for i in range(29)]
    images += [image([(0, 0, 10, 0.5, 0)], [(0, 0, 10, 0)], image_id=29)]
    images += [image(image_id=i) for i in range(30, 100)]
    assert recall_at(match_all(images), 0.29)(np.arange(100)) == 1


def test_froc_without_defects_is_not_estimable():
    curve = froc(match_all(three_images()[2:]))
    assert curve.defects == 0
    assert curve.recall == []
    assert curve.recall_at == {0.1: None, 0.5: None, 1.0: None}


def random_images(count, seed):
    generator = np.random.default_rng(seed)
    images = []
    for i in range(count):
        truth = [(100 * k, 0, 20, int(generator.integers(2))) for k in range(generator.integers(0, 4))]
        detections = [
            (
                100 * generator.integers(0, 5) + generator.integers(0, 12),
                0,
                20,
                round(generator.random(), 2),
                int(generator.integers(2)),
            )
            for _ in range(generator.integers(0, 8))
        ]
        images.append(image(detections, truth, image_id=i, part=i // 2))
    return images


@pytest.mark.parametrize('seed', range(3))
def test_froc_agrees_with_counting_at_every_threshold(seed):
    matched = match_all(random_images(12, seed))
    curve = froc(matched)
    for limit in (0.1, 0.5, 1.0):
        best = 0.0
        for threshold in np.arange(0, 1.01, 0.01).round(2):
            result = measure_detection(matched, threshold, CLASSES)
            if result.false_alarms['critical'].per_image <= limit:
                best = max(best, result.by_severity['critical'].recall)
        assert curve.recall_at[limit] == pytest.approx(best)


def test_recall_at_draws_images_with_repeats():
    matched = match_all(random_images(12, 5))
    drawn = np.random.default_rng(0).integers(12, size=12)
    copies = [matched[i] for i in drawn]
    for limit in (0.1, 0.5, 1.0):
        assert recall_at(matched, limit)(drawn) == pytest.approx(froc(copies).recall_at[limit])
    harmless = [i for i, m in enumerate(matched) if not (m.image.truth_labels == 0).any()]
    assert recall_at(matched, 0.5)(np.array(harmless)) is None


def crowded_coco(seed):
    """Truth with ignored boxes and detections of a mediocre detector, ties among the scores."""
    rng = np.random.default_rng(seed)
    images = [dict(id=i + 1, file_name=f'{i}.png', width=200, height=200) for i in range(8)]
    annotations, detections = [], []
    for image_ in images:
        for _ in range(rng.integers(0, 7)):
            x, y, w, h = *rng.uniform(0, 150, 2), *rng.uniform(10, 50, 2)
            label = int(rng.integers(1, 3))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_['id'],
                    category_id=label,
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=int(rng.random() < 0.2),
                )
            )
            for _ in range(rng.integers(0, 4)):
                dx, dy, dw, dh = rng.normal(0, 2, 4)
                detections.append(
                    dict(
                        image_id=image_['id'],
                        category_id=label if rng.random() < 0.8 else 3 - label,
                        bbox=[x + dx, y + dy, max(w + dw, 2), max(h + dh, 2)],
                        score=round(float(rng.random()), 1),
                    )
                )
    categories = [dict(id=1, name='critical'), dict(id=2, name='minor')]
    return dict(images=images, annotations=annotations, categories=categories), detections


def with_pycocotools(truth, detections, iou, most):
    """AP of both classes at one IoU from the reference implementation."""
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(detections), 'bbox')
    evaluation.params.iouThrs = np.array([iou])
    evaluation.params.maxDets = [most]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval['precision'][0, :, :, 0, 0].mean(0)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize(('iou', 'most'), [(0.5, 100), (0.75, 2)])
def test_average_precision_agrees_with_pycocotools(seed, iou, most):
    truth, detections = crowded_coco(seed)
    images = read_images(truth, detections)
    everything = np.arange(len(images))
    got = [average_precision_at(images, label, iou, most)(everything) for label in (0, 1)]
    expected = with_pycocotools(truth, detections, iou, most)
    assert got == pytest.approx(expected, abs=1e-9)
    assert 0 < expected.max() < 1


def test_average_precision_of_images_in_any_order_agrees_with_pycocotools():
    truth, detections = crowded_coco(0)
    truth['images'].reverse()
    images = read_images(truth, detections)
    got = [average_precision_at(images, label)(np.arange(len(images))) for label in (0, 1)]
    assert got == pytest.approx(with_pycocotools(truth, detections, 0.5, 100), abs=1e-9)


def test_average_precision_draws_images_with_repeats():
    images = random_images(12, 7)
    drawn = np.random.default_rng(1).integers(12, size=12)
    copies = [images[i] for i in sorted(drawn)]
    got = average_precision_at(images)(drawn)
    assert got == pytest.approx(average_precision_at(copies)(np.arange(12)), abs=0.02)  # ties in other order
    harmless = [i for i, one in enumerate(images) if not (one.truth_labels == 0).any()]
    assert average_precision_at(images)(np.array(harmless)) is None


def test_average_precision_by_hand():
    # By falling score: hit, false, hit, and one defect missed: precision 1 up to recall 1/3, 2/3 up to 2/3.
    images = [
        image([(0, 0, 10, 0.9, 0), (50, 0, 10, 0.8, 0), (100, 0, 10, 0.7, 0)], [(0, 0, 10, 0)]),
        image([], [(0, 0, 10, 0)]),
    ]
    images[0].truth_boxes = np.array([[0, 0, 10, 10.0], [100, 0, 110, 10.0]])
    images[0].truth_labels, images[0].ignored = np.array([0, 0]), np.array([False, False])
    expected = (34 * 1 + 33 * 2 / 3) / 101  # of 101 recalls, 34 lie in [0, 1/3] and 33 in (1/3, 2/3]
    assert average_precision_at(images)(np.arange(2)) == pytest.approx(expected)


def test_arms_are_compared_by_part():
    baseline, candidate = [], []
    for i in range(40):
        truth = [(0, 0, 10, 0)]
        baseline.append(image([(0, 0, 10, 0.9, 0)] if i < 10 else [], truth, image_id=i, part=i // 2))
        candidate.append(image([(0, 0, 10, 0.9, 0)] if i < 30 else [], truth, image_id=i, part=i // 2))
    check_comparable({'in1k': baseline, 'simsiam': candidate})
    recall = recall_at(match_all([*baseline, *candidate]), 0.5, arms=2)
    result = compare([m.part for m in baseline], recall, resamples=300)
    assert result.units == 20
    assert result.difference == 0.5
    assert result.verdict == 'candidate higher'


def test_scores_of_two_models_are_mixed_by_rank():
    """One model scores from 0.9 to 1, an equal one from 0 to 0.1: mixed, neither is preferred."""
    generator = np.random.default_rng(0)
    arms = [[], []]
    for i in range(20):
        found = generator.random(2) < 0.7
        for arm, low in enumerate((0.9, 0.0)):
            alarms = [(50, 0, 10, low + 0.1 * generator.random(), 0)] if generator.random() < 0.5 else []
            hits = [(0, 0, 10, low + 0.05 + 0.05 * generator.random(), 0)] if found[arm] else []
            arms[arm].append(image(hits + alarms, [(0, 0, 10, 0)], image_id=i, part=i))
    both = recall_at(match_all([*arms[0], *arms[1]]), 0.1, arms=2)
    for arm, offset in zip(arms, (0, 20)):
        assert both(np.arange(20) + offset) == recall_at(match_all(arm), 0.1)(np.arange(20))
    mixed = np.arange(20) + 20 * (np.arange(20) % 2)
    assert both(mixed) > recall_at(match_all([*arms[0], *arms[1]]), 0.1)(mixed)


def test_recall_by_each_rule_comes_from_one_matching():
    images = random_images(12, 3)
    matched = match_all(images)
    for rule, recall in recall_by_rule(matched, 0.4).items():
        alone = measure_detection(match_all(images, rule), 0.4, CLASSES)
        assert recall == alone.by_severity['critical'].recall, rule


# ---------------------------------------------------------------------------------------------- bad input


def coco():
    return dict(
        images=[dict(id=7, part='a'), dict(id=9)],
        categories=[dict(id=1, name='critical'), dict(id=2, name='minor')],
        annotations=[
            dict(image_id=7, category_id=2, bbox=[1, 2, 3, 4], area=5, type='gas_pore', flaw=3, contrast=0.1),
            dict(image_id=7, category_id=1, bbox=[0, 0, 10, 10], iscrowd=1),
        ],
    )


def test_coco_truth_and_detections_are_read():
    detection = dict(image_id=7, category_id=1, bbox=[10, 20, 30, 40], score=0.5)
    first, second = read_images(coco(), [detection])
    assert first.boxes.tolist() == [[10, 20, 40, 60]]
    assert first.labels.tolist() == [0]
    assert first.truth_boxes[0].tolist() == [1, 2, 4, 6]
    assert first.truth_labels.tolist() == [1, 0]
    assert first.truth_types == ['gas_pore', 'critical']
    assert first.truth_areas.tolist() == [5, 100]
    assert first.truth_flaws == ['3', None]
    assert first.truth_contrasts[0] == 0.1
    assert first.ignored.tolist() == [False, True]
    assert (first.part, second.part) == ('a', None)
    assert second.boxes.shape == second.truth_boxes.shape == (0, 4)
    assert [i.image_id for i in read_images(coco(), [], image_ids=[9])] == [9]


@pytest.mark.parametrize(
    ('detection', 'image_ids', 'message'),
    [
        (
            dict(image_id=8, category_id=1, bbox=[0, 0, 1, 1], score=0.5),
            None,
            'image 8: .*another annotation',
        ),
        (dict(image_id=7, category_id=1, bbox=[0, 0, 1, 1], score=0.5), [9], 'image 7: has detections'),
        (dict(image_id=7, category_id=5, bbox=[0, 0, 1, 1], score=0.5), None, 'image 7: .*other classes'),
        (
            dict(image_id=7, category_id=1, bbox=[0, 0, 1, 1], score=math.nan),
            None,
            'image 7: scores .*not finite',
        ),
        (
            dict(image_id=7, category_id=1, bbox=[0, 0, 1, 1], score=None),
            None,
            'image 7: scores .*not finite',
        ),
        (
            dict(image_id=7, category_id=1, bbox=[0, math.inf, 1, 1], score=0.5),
            None,
            'image 7: boxes .*not finite',
        ),
        (dict(image_id=7, category_id=1, bbox=[0, 0, -1, 1], score=0.5), None, 'negative size'),
        (
            dict(image_id=7, category_id=1, bbox=[0, 0, 1, 1], score=0.5),
            [7, 8],
            r'images \[8\] were evaluated',
        ),
        (dict(image_id=7, category_id=1, bbox=[0, 0, 1, 1], score=0.5), [], 'no image'),
    ],
)
def test_bad_detections_are_refused_by_name(detection, image_ids, message):
    with pytest.raises(MeasureError, match=message):
        read_images(coco(), [detection], image_ids)


def test_an_area_below_zero_is_refused_by_name_and_zero_is_that_of_the_box():
    truth = coco()
    truth['annotations'][0]['area'] = -4
    with pytest.raises(MeasureError, match='image 7: an annotation of area -4, expected px² above zero'):
        read_images(truth, [])
    truth['annotations'][0]['area'] = 0
    assert read_images(truth, [])[0].truth_areas.tolist() == [12, 100]


def test_contrast_to_noise_is_read_before_contrast_and_strata_as_text():
    truth = coco()
    for annotation in truth['annotations']:
        annotation['cnr'] = 2.5
    truth['images'][0] |= dict(series='C0001', view=0, batch=None)
    first, second = read_images(truth, [])
    assert first.truth_contrasts.tolist() == [2.5, 2.5]
    assert first.strata == dict(series='C0001', view='0') and second.strata == {}


def test_two_images_with_one_id_are_refused():
    truth = coco()
    truth['images'].append(dict(id=7))
    with pytest.raises(MeasureError, match='3 images share 2 ids'):
        read_images(truth, [])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(scores=[0.5, 0.6]), '2 scores for 1 boxes'),
        (dict(labels=[]), '0 labels for 1 boxes'),
        (dict(boxes=[[0, 0, 1, 1, 0.5]]), r'shape \(1, 5\), expected \(N, 4\)'),
        (dict(truth_labels=[0, 1]), '2 truth_labels for 1 boxes'),
        (dict(truth_types=[]), '0 truth_types for 1 boxes'),
        (dict(truth_boxes=[[0, 0, 0, 1]]), 'without area'),
        (dict(truth_labels=[-1]), 'negative label'),
        (dict(truth_areas=[-5.0]), 'area -5, expected px² above zero'),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    arguments = dict(
        boxes=[[0, 0, 1, 1]], scores=[0.5], labels=[0], truth_boxes=[[0, 0, 1, 1]], truth_labels=[0]
    )
    with pytest.raises(MeasureError, match=f'image 4: .*{message}'):
        InspectedImage(image_id=4, **arguments | change)


def test_arms_on_different_images_are_not_compared():
    first = [image(image_id=1), image(image_id=2)]
    with pytest.raises(
        MeasureError, match=r"in1k and simsiam were tested on different images \(1 differ.*'2'"
    ):
        check_comparable({'in1k': first, 'simsiam': first[:1]})
    with pytest.raises(MeasureError, match='different annotations of image 1'):
        check_comparable({'in1k': first, 'simsiam': [image([], [(0, 0, 5, 0)]), first[1]]})
    counted, ignored = (image([], [(0, 0, 5, 0)], ignored=[value]) for value in (False, True))
    with pytest.raises(MeasureError, match='annotations of image 1'):
        check_comparable({'in1k': [counted], 'simsiam': [ignored]})
    # positions of images are drawn in all arms at once
    with pytest.raises(MeasureError, match='different order'):
        check_comparable({'in1k': first, 'simsiam': first[::-1]})
    check_comparable({'in1k': first, 'simsiam': list(first), 'simmim': list(first)})
