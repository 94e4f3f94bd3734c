"""Parts: judged by their worst view, counted with bounds over the threshold."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from helpers.inspected import image, parts_with

from projects.measures.detection import measure_detection
from projects.measures.false_calls import measure_false_calls
from projects.measures.images import MeasureError
from projects.measures.matching import match_all
from projects.measures.parts import Part, floored, gather_parts, measure_parts, part_curve
from projects.measures.ranking import froc, recall_at


def views():
    return [
        image([(0, 0, 10, 0.4, 0)], [(0, 0, 10, 0)], image_id=1, part='a'),
        image([(0, 0, 10, 0.7, 0)], [(0, 0, 10, 0)], image_id=2, part='a'),
        image([(0, 0, 10, 0.8, 1)], [(0, 0, 10, 0)], image_id=3, part='b'),  # critical called minor
        image([(50, 0, 10, 0.9, 0)], [(0, 0, 10, 0)], image_id=4, part='c'),  # rejected by a false alarm
        image([(0, 0, 10, 0.8, 1)], [(0, 0, 10, 1)], image_id=5, part='d'),
        image([(0, 0, 10, 0.6, 0)], [], image_id=6, part='e'),
        image([], [], image_id=7, part='e'),
        image([(0, 0, 10, 0.9, 1)], [], image_id=8, part='f'),
    ]


def test_parts_are_judged_by_their_worst_view():
    parts = {part.part: part for part in gather_parts(match_all(views()))}
    assert parts['a'] == Part('a', 2, 'critical', 0.7, 0.7)
    assert parts['b'] == Part('b', 1, 'critical', None, None)
    assert parts['c'] == Part('c', 1, 'critical', 0.9, None)
    assert parts['d'].truth == 'minor'
    assert parts['e'] == Part('e', 2, 'defect-free', 0.6, None)


def test_part_measures_by_hand():
    result = measure_parts(gather_parts(match_all(views())), 0.6)
    assert (result.escape.events, result.escape.units) == (1, 3)  # b; c only by luck
    assert result.caught_elsewhere == 1
    assert (result.false_reject.events, result.false_reject.units) == (1, 2)
    assert (result.minor_reject.events, result.minor_reject.units) == (0, 1)
    assert measure_parts(gather_parts(match_all(views())), 0.71).escape.events == 2
    json.dumps(asdict(result), allow_nan=False)


def test_part_curve_by_hand():
    parts = gather_parts(match_all(views()))  # critical a 0.7, b none, c 0.9; defect-free e 0.6, f none
    curve = part_curve(parts, [0.75])
    assert curve.thresholds == [0.6, 0.7, 0.75, 0.9]
    assert (curve.critical, curve.escapes) == (3, [1, 1, 2, 2])
    assert (curve.defect_free, curve.rejects) == (2, [1, 0, 0, 0])
    assert curve.escape == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert curve.false_reject == [0.5, 0, 0, 0]
    # One-sided 95 %: (1 - p)^3 + 3 p (1 - p)^2 = 0.05, 1 - p^3 = 0.05; 1 - p^2 = 0.05, (1 - p)^2 = 0.05.
    assert curve.escape_upper == pytest.approx([0.8646, 0.8646, 0.9830, 0.9830], abs=1e-4)
    assert curve.false_reject_upper == pytest.approx([0.95**0.5, *[1 - 0.05**0.5] * 3])
    json.dumps(asdict(curve), allow_nan=False)


@pytest.mark.parametrize('seed', range(3))
def test_part_curve_agrees_with_judging_each_threshold(seed):
    rng = np.random.default_rng(seed)
    kinds = ('critical', 'minor', 'defect-free', 'ignored')
    parts = [
        Part(str(i), 1, rng.choice(kinds), score if score > 0.2 else None, None)
        for i, score in enumerate(rng.random(60).round(1))  # with ties
    ]
    curve = part_curve(parts, [0.05, 0.55, 2])
    assert {0.05, 0.55, 2} < set(curve.thresholds)
    for k, threshold in enumerate(curve.thresholds):
        at = measure_parts(parts, threshold)
        assert (curve.escapes[k], curve.critical) == (at.escape.events, at.escape.units)
        assert (curve.rejects[k], curve.defect_free) == (at.false_reject.events, at.false_reject.units)
        assert (curve.escape[k], curve.escape_upper[k]) == (at.escape.rate, at.escape.upper)
        assert curve.false_reject_upper[k] == at.false_reject.upper


def test_part_curve_without_parts_of_a_kind_is_not_estimable():
    curve = part_curve(gather_parts(match_all(views()[:5])), [0.5])
    assert curve.defect_free == 0 and curve.false_reject is None and curve.false_reject_upper is None
    blind = part_curve(parts_with([None, None], 'defect-free'))
    assert blind.thresholds == [] and blind.escape is None and blind.false_reject == []


def test_policy_for_minor_defects():
    result = measure_parts(gather_parts(match_all(views()), reject_minor=True), 0.6)
    assert result.escape.events == 0  # b is rejected, if for the wrong reason
    assert result.caught_elsewhere == 2
    assert result.minor_reject.events == 1
    assert result.false_reject.events == 2


def test_without_defect_free_parts_false_reject_is_not_estimable():
    result = measure_parts(gather_parts(match_all(views()[:5])), 0.6)
    assert result.false_reject.rate is None
    assert str(result.false_reject) == 'not estimable'


def test_parts_are_refused_without_ids():
    images = [image(image_id='C0001_0007.png', part=None), image()]
    with pytest.raises(
        MeasureError, match=r"parts not known: 1 of 2 images have no part id, such as \['C0001_0007.png'\]"
    ):
        gather_parts(match_all(images))


def test_a_minor_detection_on_top_does_not_let_a_part_pass():
    """The runtime has no suppression across severities, and the parts of a report are judged by its rule."""
    (part,) = gather_parts(match_all([image([(0, 0, 10, 0.9, 1), (0, 0, 10, 0.6, 0)], [(0, 0, 10, 0)])]))
    assert (part.score, part.hit_score) == (0.6, None)


@pytest.mark.parametrize(
    ('threshold', 'printed'),
    [
        (0.56789, '0.5678'),
        (0.9999999, '0.9999'),
        (0.3, '0.3'),
        (0.57, '0.57'),
        (np.nextafter(0.25, 1), '0.2500'),
        (0.000012349, '0.00001234'),
        (0.0, '0.0'),
    ],
)
def test_thresholds_are_printed_rounded_down(threshold, printed):
    assert floored(threshold) == printed
    assert float(printed) <= threshold


# ------------------------------------------------------------------------------------------- refused frames


def refused_views():
    """Two views of each part: critical 'a' rejected by one view, 'b' by both, sound 'c' and 'd'."""
    hit = [(10, 10, 20, 0.9, 0)]
    flaw = [(10, 10, 20, 0)]
    return match_all(
        [
            image(hit, flaw, 1, 'a'),
            image((), flaw, 2, 'a', refused='too dark'),
            image(hit, flaw, 3, 'b'),
            image(hit, flaw, 4, 'b'),
            image((), (), 5, 'c', refused='too dark'),
            image((), (), 6, 'c'),
            image((), (), 7, 'd'),
        ]
    )


@pytest.mark.parametrize('threshold', [0.0, 0.5, 1.0])
def test_a_part_with_a_refused_view_counts_against_the_detector_at_every_threshold(threshold):
    """'a' is rejected by its other view, yet the detector decides nothing on it: so it counts as escaped."""
    measures = measure_parts(gather_parts(refused_views()), threshold)
    assert (measures.refused.events, measures.refused.units) == (2, 4)
    assert (measures.refused_critical, measures.refused_sound) == (1, 1)
    assert measures.escape.units == 2 and measures.escape.events == 1 + (threshold > 0.9)
    assert (measures.false_reject.events, measures.false_reject.units) == (1, 2)
    assert (measures.decided_escape.events, measures.decided_escape.units) == (int(threshold > 0.9), 1)
    assert measures.caught_elsewhere == 0


def test_the_curve_of_parts_counts_a_refused_view_at_every_threshold():
    curve = part_curve(gather_parts(refused_views()), also=[0, 1])
    assert curve.thresholds == [0, 0.9, 1]
    assert curve.escapes == [1, 1, 2] and curve.rejects == [1, 1, 1]


def test_an_image_that_was_refused_has_no_detections():
    with pytest.raises(MeasureError, match='1 detections, expected none of an image that was refused'):
        image([(0, 0, 9, 0.5, 0)], (), refused='too dark')


def test_a_refused_frame_is_in_favour_of_no_measure_of_boxes():
    """Its defects are missed, and it is no image without a false alarm."""
    views = refused_views() + match_all([image([(50, 50, 9, 0.8, 0)], (), 8, 'e')])
    detection = measure_detection(views, 0.5, ('critical', 'minor'))
    assert detection.by_severity['critical'].missed == 1
    assert detection.false_alarms['critical'].per_image == pytest.approx(1 / 6)
    assert detection.false_alarms['critical'].per_defect_free_image == pytest.approx(1 / 3)
    assert froc(views).images == 6 and froc(views).recall[-1] == pytest.approx(3 / 4)
    calls = measure_false_calls(views, 0.5)
    assert calls.per_image.exposure == 3 and calls.per_part.exposure == 2
    # Half a false alarm an image of one inspected and two refused images allows none, of three it would.
    few = match_all(
        [image([(50, 50, 9, 0.8, 0), (10, 10, 20, 0.7, 0)], [(10, 10, 20, 0)], 1)]
        + [image((), (), k, refused='too dark') for k in (2, 3)]
    )
    assert recall_at(few, 0.5)(np.arange(3)) == 0
