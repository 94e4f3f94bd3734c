"""Escapes, false rejects and recall by group of images, and the worst group."""

import json
from dataclasses import asdict

from helpers.inspected import image

from projects.measures.matching import match_all
from projects.measures.strata import describe_worst, stratify, too_many, worst_stratum


def inspected():
    """Parts of two series with two views; of series B the detector misses what view 1 alone shows."""
    images = []
    for number in range(12):
        series = 'AB'[number % 2]
        for view in range(2):
            seen = series == 'A' or view == 0
            truth = [] if number < 4 else [(0, 0, 10, 0)] if view or series == 'A' else []
            found = [(0, 0, 10, 0.9, 0)] if truth and seen else []
            strata = dict(series=series, view=str(view), batch='7')
            images.append(image(found, truth, len(images), f'p{number}', strata=strata))
    return match_all(images)


def test_strata_by_hand():
    strata = {(s.key, s.value): s for s in stratify(inspected(), 0.5)}
    assert set(strata) == {
        ('series', 'A'),
        ('series', 'B'),
        ('view', '0'),
        ('view', '1'),
    }
    a, b = strata['series', 'A'], strata['series', 'B']
    assert (a.images, a.parts, a.escape.events, a.escape.units, a.recall, a.defects) == (12, 6, 0, 4, 1, 8)
    assert (b.escape.events, b.escape.units, b.recall, b.false_reject.units) == (4, 4, 0, 2)
    # by view a part is judged by that view alone
    assert strata['view', '0'].escape.units == 4 and strata['view', '1'].escape.events == 4
    json.dumps([asdict(s) for s in strata.values()], allow_nan=False)


def test_the_worst_stratum_is_named_with_its_bound():
    strata = stratify(inspected(), 0.5)
    assert (worst_stratum(strata).key, worst_stratum(strata).value) == ('series', 'B')
    assert describe_worst(strata).startswith(
        'Worst of 4 strata: series B, escaped: 4 of 4 = 100.00%, at most'
    )
    quiet = describe_worst(stratify(inspected(), 0.5, keys=('series',))[:1])
    assert quiet.startswith('No critical part escaped; highest bound of 1 strata: series A')
    assert worst_stratum([]) is None and describe_worst([]) == ''


def test_without_parts_the_recall_of_each_stratum_is_left():
    images = [
        image([(0, 0, 10, 0.9, 0)] if k else [], [(0, 0, 10, 0)], k, None, strata=dict(series=str(k)))
        for k in range(2)
    ]
    strata = stratify(match_all(images), 0.5)
    assert [(s.parts, str(s.escape), s.recall) for s in strata] == [
        (None, 'not estimable', 0.0),
        (None, 'not estimable', 1.0),
    ]
    assert describe_worst(strata) == ''


def test_a_value_of_each_image_is_a_name_and_no_group():
    many = match_all([image([], [], i, i, strata=dict(batch=str(i), view=str(i % 2))) for i in range(60)])
    assert {s.key for s in stratify(many, 0.5)} == {'view'}
    (result,) = too_many(many)
    assert result.startswith('strata: 60 values of batch are left out')
    assert too_many(many[:50]) == []
