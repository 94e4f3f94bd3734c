"""Two readers of the same radiographs: agreement of parts and boxes, and a model at an inspector's rate."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from helpers.inspected import image
from sklearn.metrics import cohen_kappa_score

from projects.measures.bounds import StatisticsError
from projects.measures.images import MeasureError
from projects.measures.readers import at_false_calls_of, compare_readers, kappa

CATEGORIES = [dict(id=1, name='critical'), dict(id=2, name='minor')]


def reader(boxes, parts=4, categories=CATEGORIES, **more):
    """COCO of one view of each part with boxes (part, x, category id)."""
    images = [dict(id=i + 1, file_name=f'{i}.png', part=f'p{i}') | more for i in range(parts)]
    annotations = [
        dict(id=k, image_id=part + 1, category_id=category, bbox=[x, 0, 10, 10], area=100)
        for k, (part, x, category) in enumerate(boxes)
    ]
    return dict(images=images, annotations=annotations, categories=categories)


def test_boxes_and_severities_by_hand():
    first = reader([(0, 0, 1), (0, 50, 1), (1, 0, 2), (2, 0, 2)])
    second = reader([(0, 2, 1), (0, 52, 2), (1, 90, 2), (2, 1, 2)])
    result = compare_readers(first, second)
    assert (result.images, result.boxes, result.matched) == (4, (4, 4), 3)
    assert (result.first_only, result.second_only) == (1, 1)
    assert result.severities == [[1, 1], [0, 1]] and result.classes == ['critical', 'minor']
    # verdicts of both: critical, minor, minor, defect-free
    assert (result.kappa.parts, result.kappa.agreement, result.kappa.kappa) == (4, 1, 1)
    assert result.kappa.low is None and result.problems == []
    json.dumps(asdict(result), allow_nan=False)


def test_two_files_alike_agree_on_every_box():
    """A critical box in a minor one that it nearly fills: as detections, one of them would be suppressed."""
    both = reader([(0, 0, 1), (0, 1, 2), (1, 0, 1), (1, 0, 1)])
    result = compare_readers(both, both)
    assert (result.boxes, result.matched, result.first_only, result.second_only) == ((4, 4), 4, 0, 0)
    assert (result.severities, result.kappa.kappa) == ([[3, 0], [0, 1]], 1)


def drawn(seed, crowds):
    """Two readers of 30 parts, drawn close together: boxes of any size, severity and number."""
    generator = np.random.default_rng(seed)
    files = []
    for _ in range(2):
        boxes = [
            (int(part), *generator.integers(0, 30, 2), *generator.integers(4, 25, 2))
            for part in generator.integers(30, size=60)
        ]
        file = reader([], parts=30)
        file['annotations'] = [
            dict(
                id=k,
                image_id=part + 1,
                category_id=int(generator.integers(1, 3)),
                bbox=[int(v) for v in box],
                iscrowd=int(crowds and generator.random() < 0.2),
            )
            for k, (part, *box) in enumerate(boxes)
        ]
        files.append(file)
    return files


@pytest.mark.parametrize('crowds', [False, True])
@pytest.mark.parametrize('seed', range(4))
def test_no_reader_stands_above_the_other_and_the_order_of_boxes_says_nothing(seed, crowds):
    first, second = drawn(seed, crowds)
    result, turned = compare_readers(first, second), compare_readers(second, first)
    assert result.boxes == turned.boxes[::-1] and result.again == turned.again[::-1]
    assert (result.first_only, result.second_only) == (turned.second_only, turned.first_only)
    assert np.array_equal(result.severities, np.transpose(turned.severities))
    assert result.kappa.kappa == pytest.approx(turned.kappa.kappa)
    assert np.array_equal(result.kappa.table, np.transpose(turned.kappa.table))
    assert result.boxes[0] == result.matched + result.first_only + result.again[0]
    shuffled = dict(second, annotations=second['annotations'][::-1])
    assert compare_readers(first, shuffled) == result
    if not crowds:
        assert result.boxes == (60, 60)


def test_as_many_boxes_are_paired_as_can_be():
    """Of two marks side by side, the first takes the flaw that lies under both, and leaves the other none."""
    result = compare_readers(reader([(0, 0, 1), (0, 6, 1)]), reader([(0, 5, 1), (0, 11, 1)]))
    assert (result.matched, result.first_only, result.second_only, result.again) == (2, 0, 0, (0, 0))


def test_two_boxes_within_one_large_one_are_one_flaw_and_one_more():
    large = reader([(0, 0, 1)])
    large['annotations'][0]['bbox'] = [0, 0, 100, 10]
    result = compare_readers(large, reader([(0, 5, 2), (0, 80, 1)]))
    assert (result.boxes, result.matched, result.severities) == ((1, 2), 1, [[1, 0], [0, 0]])
    assert (result.first_only, result.second_only, result.again) == (0, 0, (0, 1))


def test_boxes_with_a_score_all_count_and_it_is_said():
    second = reader([(0, 0, 1)])
    second['annotations'][0]['score'] = 0.1
    result = compare_readers(reader([(0, 0, 1)]), second)
    assert result.matched == 1 and 'each counts, whatever its score' in result.problems[0]


def test_a_box_that_cannot_be_read_names_its_reader():
    second = reader([(0, 0, 1)])
    second['annotations'][0]['bbox'] = [0, 0, 0, 10]
    with pytest.raises(MeasureError, match='the second reader: image 1: an annotated box without area'):
        compare_readers(reader([(0, 0, 1)]), second)


def test_categories_are_matched_by_name_and_images_by_file():
    first = reader([(0, 0, 1)])
    second = reader([(0, 0, 7)], categories=[dict(id=7, name='critical'), dict(id=1, name='minor')])
    second['images'] = second['images'][:3] + [dict(id=99, file_name='other.png')]
    result = compare_readers(first, second)
    assert (result.images, result.matched, result.severities) == (3, 1, [[1, 0], [0, 0]])
    assert [problem[:25] for problem in result.problems] == [
        '1 images of the first rea',
        '1 images of the second re',
    ]
    for image_ in first['images']:
        image_.pop('part')
    result = compare_readers(first, second)
    assert result.kappa is None and any('parts are not known' in problem for problem in result.problems)


def test_readers_that_cannot_be_compared_are_refused():
    with pytest.raises(MeasureError, match='no image .* in common'):
        compare_readers(reader([]), reader([], file_name='x.png'))
    with pytest.raises(MeasureError, match='name them alike'):
        compare_readers(reader([]), reader([], categories=CATEGORIES[:1]))


@pytest.mark.parametrize(
    ('name', 'matched'),
    [
        ('day/0.png', 1),
        ('day/0-0123456789ab.png', 1),
        ('0-0123456789ab.png', 1),
        ('images/day/0.png', 1),
        ('night/0.png', 0),
        ('0-0123456789xy.png', 0),
        ('0.tif', 0),
    ],
)
def test_an_image_is_known_from_another_folder_and_with_the_hash_of_the_page(name, matched):
    first, second = reader([(0, 0, 1)]), reader([(0, 0, 1)])
    first['images'][0]['file_name'] = 'day/0.png'
    second['images'][0]['file_name'] = name
    result = compare_readers(first, second)
    assert (result.images, result.matched) == (3 + matched, matched)


def test_a_name_that_two_images_end_in_is_neither():
    first, second = reader([(0, 0, 1)]), reader([(0, 0, 1)])
    first['images'][0]['file_name'], first['images'][1]['file_name'] = 'day/0.png', 'night/0.png'
    assert compare_readers(first, second).images == 2


@pytest.mark.parametrize('which', ['first', 'second'])
def test_an_image_with_two_records_is_refused(which):
    """The last record of a name would stand for both, without the boxes of the other."""
    files = dict(first=reader([(0, 0, 1)]), second=reader([(0, 0, 1)]))
    files[which]['images'][3]['file_name'] = '0.png'
    with pytest.raises(MeasureError, match=f'the {which} reader has 0.png more than once'):
        compare_readers(**files)


@pytest.mark.parametrize('turned', [False, True])
def test_what_a_reader_ignores_counts_as_neither(turned):
    first, second = reader([(0, 0, 2), (0, 50, 1), (1, 0, 1)]), reader([(0, 0, 2), (0, 51, 1)])
    for k in (1, 2):
        first['annotations'][k]['iscrowd'] = 1
    result = compare_readers(*((second, first) if turned else (first, second)))
    assert (result.boxes, result.matched, result.first_only, result.second_only) == ((1, 1), 1, 0, 0)
    # A part of which one says `iscrowd` alone has no verdict of that reader.
    assert (result.kappa.agreement, result.kappa.parts) == (1, 3)


def test_parts_of_which_nothing_but_crowds_is_said_have_no_kappa():
    first = reader([(0, 0, 1)], parts=1)
    first['annotations'][0]['iscrowd'] = 1
    result = compare_readers(first, reader([], parts=1))
    assert result.kappa is None and 'no part has a verdict of both readers' in result.problems[0]


@pytest.mark.parametrize('seed', range(3))
def test_kappa_agrees_with_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    first = generator.integers(3, size=40)
    second = np.where(generator.random(40) < 0.7, first, generator.integers(3, size=40))
    result = kappa(first, second, 3)
    assert result.kappa == pytest.approx(cohen_kappa_score(first, second))
    assert result.low < result.kappa < result.high <= 1
    assert np.array(result.table).sum() == result.parts == 40


def test_kappa_where_chance_alone_makes_readers_agree():
    result = kappa(np.zeros(20, int), np.zeros(20, int), 3)
    assert (result.agreement, result.kappa, result.low) == (1, None, None)
    with pytest.raises(StatisticsError, match='one at least'):
        kappa(np.array([], int), np.array([], int), 3)


def test_a_model_at_the_false_call_rate_of_an_inspector():
    truth = [[(0, 0, 10, 0)], [(0, 0, 10, 0)], [], []]
    # the inspector finds one of two and calls one sound image: 1 / 4 an image
    inspector = [
        image(found, real, i)
        for i, (found, real) in enumerate(
            zip([[(0, 0, 10, 1, 0)], [], [(40, 0, 10, 1, 0)], []], truth, strict=True)
        )
    ]
    scores = [[(0, 0, 10, 0.9, 0)], [(0, 0, 10, 0.5, 0)], [(40, 0, 10, 0.7, 0)], [(40, 0, 10, 0.3, 0)]]
    model = [image(found, real, i) for i, (found, real) in enumerate(zip(scores, truth, strict=True))]
    inspection = at_false_calls_of(inspector, model, ('critical', 'minor'))
    assert (inspection.defects, inspection.inspector_found, inspection.model_found) == (2, 1, 2)
    assert (inspection.inspector_rate, inspection.inspector_recall) == (0.25, 0.5)
    assert (inspection.threshold, inspection.model_rate, inspection.model_recall) == (0.5, 0.25, 1.0)
    silent = [image([], real, i) for i, real in enumerate(truth)]
    quiet = at_false_calls_of(silent, model, ('critical', 'minor'))
    assert (quiet.inspector_rate, quiet.threshold, quiet.model_recall) == (0, 0.9, 0.5)
    nothing = at_false_calls_of(silent, silent, ('critical', 'minor'))
    assert (nothing.threshold, nothing.model_recall) == (None, 0)
