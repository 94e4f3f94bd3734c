"""False calls on what is sound: counted per image and part, with an interval clustered by part."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from helpers.inspected import image
from scipy import stats

from projects.measures.bounds import StatisticsError, clustered_rate
from projects.measures.false_calls import measure_false_calls
from projects.measures.matching import match_all


def test_independent_counts_have_garwoods_interval():
    """Poisson counts that vary no more than Poisson ones: exact limits, widened by t over normal alone."""
    result = clustered_rate([1, 0, 1, 0, 1, 0], [1] * 6)
    widened = (stats.t.ppf(0.975, 5) / stats.norm.ppf(0.975)) ** 2
    assert result.design_effect == 1 and result.rate == 0.5
    assert result.low == pytest.approx(stats.chi2.ppf(0.025, 2 * 3 / widened) / 2 / (6 / widened))
    assert result.high == pytest.approx(stats.chi2.ppf(0.975, 2 * (3 / widened + 1)) / 2 / (6 / widened))


def test_views_of_a_part_that_are_called_together_widen_the_interval():
    alone = clustered_rate([1] * 10 + [0] * 90, [1] * 100)
    together = clustered_rate([5, 5] + [0] * 18, [5] * 20)  # the same calls on the same images, in two parts
    assert alone.rate == together.rate == 0.1
    assert together.design_effect > 4 and together.high - together.low > 2 * (alone.high - alone.low)


def test_without_a_call_each_part_counts_once():
    by_image, by_part = clustered_rate([0] * 60, [1] * 60), clustered_rate([0] * 20, [3] * 20)
    assert by_image.low == by_part.low == 0
    assert by_part.high == pytest.approx(clustered_rate([0] * 20, [1] * 20).high / 3 * 3)
    assert by_part.high > 2.5 * by_image.high


def test_too_few_parts_have_no_interval():
    assert (clustered_rate([3], [4]).rate, clustered_rate([3], [4]).high) == (0.75, None)
    assert clustered_rate([], []).rate is None and str(clustered_rate([], [])) == 'not estimable'
    for broken in (([1], [0]), ([-1], [1]), ([1, 2], [1])):
        with pytest.raises(StatisticsError, match='of each cluster'):
            clustered_rate(*broken)


@pytest.mark.parametrize('alike', [0.0, 1.0])
def test_the_interval_keeps_what_it_promises(alike):
    generator = np.random.default_rng(0)
    missed = 0
    for _ in range(300):
        level = generator.gamma(1 / alike, alike, 40) if alike else np.ones(40)
        views = generator.integers(1, 5, 40)
        result = clustered_rate(generator.poisson(0.3 * level * views).tolist(), views.tolist())
        missed += not result.low <= 0.3 <= result.high
    assert missed <= 0.07 * 300


def test_false_calls_by_hand():
    images = [
        image([(0, 0, 10, 0.9, 0), (40, 0, 10, 0.8, 0), (80, 0, 10, 0.7, 1)], [], 1, 'a'),
        image([(0, 0, 10, 0.4, 0)], [], 2, 'a'),
        image([], [], 3, 'b'),
        image([(50, 0, 10, 0.9, 0)], [], 4, 'c'),  # a sound view of a part with a defect
        image([(50, 0, 10, 0.9, 0)], [(0, 0, 10, 0)], 5, 'c'),
    ]
    result = measure_false_calls(match_all(images), 0.5)
    assert (result.per_image.events, result.per_image.exposure, result.per_image.clusters) == (3, 4, 3)
    assert (result.per_part.events, result.per_part.exposure, result.parts_known) == (2, 2, True)
    assert measure_false_calls(match_all(images), 0.5, label=1).per_image.events == 1
    json.dumps(asdict(result), allow_nan=False)
    unknown = measure_false_calls(match_all([image([], [], 1, None), image([], [], 2, None)]), 0.5)
    assert (unknown.per_image.clusters, unknown.per_part, unknown.parts_known) == (2, None, False)
    assert measure_false_calls(match_all(images[4:]), 0.5).per_image.rate is None
