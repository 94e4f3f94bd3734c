import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from projects.measures.bounds import (
    StatisticsError,
    allowed_events,
    calibration,
    compare,
    compare_seeds,
    confusion,
    parts_needed,
    rate,
    sign_flip_test,
    summarise_seeds,
    upper_bound,
)


def test_upper_bound_without_events_is_the_rule_of_three_made_exact():
    # (1 - p)^59 = 0.05
    assert upper_bound(0, 59) == pytest.approx(1 - 0.05 ** (1 / 59))


@pytest.mark.parametrize(('events', 'units'), [(1, 20), (3, 40), (7, 12)])
def test_bounds_solve_the_binomial_tail(events, units):
    assert stats.binom.cdf(events, units, upper_bound(events, units)) == pytest.approx(0.05)


def test_bounds_at_the_ends():
    assert upper_bound(5, 5) == 1
    assert upper_bound(0, 5) == pytest.approx(1 - 0.05 ** (1 / 5))


@pytest.mark.parametrize(('events', 'units'), [(0, 0), (-1, 5), (6, 5)])
def test_bounds_refuse_impossible_counts(events, units):
    with pytest.raises(StatisticsError, match='events'):
        upper_bound(events, units)


def test_rate_without_units_is_not_estimable():
    empty = rate(0, 0)
    assert empty.rate is None
    assert empty.upper is None
    assert str(empty) == 'not estimable'


@pytest.mark.parametrize(
    ('events', 'units', 'words'),
    [
        (1, 20, '1 of 20 = 5.00%, at most 21.62% with 95% confidence'),  # 21.6106
        (0, 59, '0 of 59 = 0.00%, at most 4.96% with 95% confidence'),  # 4.9508
        (5, 5, '5 of 5 = 100.00%, at most 100.00% with 95% confidence'),
    ],
)
def test_a_bound_is_never_printed_below_itself(events, units, words):
    assert str(rate(events, units)) == words


@pytest.mark.parametrize(('max_rate', 'parts'), [(0.05, 59), (0.01, 299), (0.001, 2995)])
def test_parts_needed_without_escapes(max_rate, parts):
    assert parts_needed(max_rate) == parts


@pytest.mark.parametrize('events', [0, 1, 4])
def test_parts_needed_is_the_smallest_that_proves_it(events):
    parts = parts_needed(0.1, events)
    assert upper_bound(events, parts) <= 0.1 < upper_bound(events, parts - 1)
    assert allowed_events(parts, 0.1) == events
    assert allowed_events(parts - 1, 0.1) == events - 1


@pytest.mark.parametrize(('max_rate', 'events'), [(0, 0), (1, 0), (0.1, -1)])
def test_parts_needed_refuses_what_has_no_answer(max_rate, events):
    with pytest.raises(StatisticsError, match='rate in'):
        parts_needed(max_rate, events)


def test_sign_flip_by_hand():
    # |sums| over the signs of (1, 2, 3): 6 4 2 0 0 2 4 6; two of the eight reach 6
    assert sign_flip_test([1, 2, 3]) == 2 / 8
    # (3, -1, 1) sums to 3; |sums|: 3 1 5 3 3 5 1 3; six of the eight reach 3
    assert sign_flip_test([3, -1, 1]) == 6 / 8
    assert sign_flip_test([0.0, 0.0]) == 1


def test_sign_flip_is_not_fooled_by_rounding():
    # of the 16 sums two are 0.4 and eight 0.2 in size, as is the observed one, but not to the last digit
    assert sign_flip_test([0.1, 0.1, 0.1, -0.1]) == 10 / 16


@pytest.mark.parametrize('differences', [[], [1.0, math.nan], [0.0] * 21])
def test_sign_flip_refuses(differences):
    with pytest.raises(StatisticsError, match='finite differences'):
        sign_flip_test(differences)


def means(baseline, candidate):
    baseline, candidate = np.array(baseline), np.array(candidate)
    return lambda positions: (baseline[positions].mean(), candidate[positions].mean())


def test_few_units_get_differences_per_unit_and_the_exact_test():
    baseline = [0.5, 0.5, 0.2, 0.4, 0.1, 0.6, 0.3]
    candidate = [0.7, 0.9, 0.3, 0.5, 0.2, 0.7, 0.4]
    result = compare(list('aabcdef'), means(baseline, candidate))
    assert result.method == 'exact sign-flip test'
    assert result.units == 6
    assert result.per_unit == pytest.approx({'a': 0.3, 'b': 0.1, 'c': 0.1, 'd': 0.1, 'e': 0.1, 'f': 0.1})
    assert result.p_value == 2 / 64
    assert result.smallest_p_value == 2 / 64
    assert result.low is None
    assert result.verdict == 'candidate higher'
    assert result.difference == pytest.approx((0.3 + 5 * 0.1) / 6)  # what is tested, not that of the images
    json.dumps(asdict(result), allow_nan=False)


def test_a_sign_that_the_whole_contradicts_is_no_difference():
    # Part a loses 0.1 on each of its ten images, eight parts of one image gain 0.11: 0.087 up on average over
    # the parts, 0.007 down over the images.
    units = ['a'] * 10 + list('bcdefghi')
    candidate = [-0.1] * 10 + [0.11] * 8
    result = compare(units, means([0.0] * 18, candidate))
    assert result.candidate < 0 < result.difference == pytest.approx((-0.1 + 8 * 0.11) / 9)
    assert result.p_value <= 0.05 and result.verdict == 'no difference shown'


def test_five_units_never_show_a_difference():
    result = compare(list('abcde'), means([0.0] * 5, [1.0] * 5))
    assert result.smallest_p_value == 2 / 32
    assert result.verdict == 'no difference shown'


def test_units_without_a_value_are_left_out_and_counted():
    def recall(positions):
        return (None, None) if set(positions) == {1} else (0.5, 0.25)

    result = compare(list('abcdefgh'), recall)
    assert result.units == 7
    assert result.undefined == 1
    assert result.verdict == 'candidate lower'


def recall_of(carrying, baseline, candidate):
    """Mean over the carrying units alone, as recall is over those with a defect."""

    def measure(positions):
        drawn = positions[positions < carrying]
        return (baseline[drawn].mean(), candidate[drawn].mean()) if drawn.size else (None, None)

    return measure


def test_good_parts_do_not_make_an_interval_of_few_defective_ones():
    # Recall rises from 0 to 1 on four of six critical parts, among 60: p = 2 * 2^-4.
    found = np.array([1.0, 1, 1, 1, 0, 0])
    result = compare(list(range(60)), recall_of(6, np.zeros(6), found))
    assert result.method == 'exact sign-flip test'
    assert (result.units, result.undefined, result.p_value) == (6, 54, 0.125)
    assert result.verdict == 'no difference shown'


def test_fifteen_defective_parts_make_an_interval():
    result = compare(list(range(60)), recall_of(15, np.zeros(15), np.ones(15)), resamples=100)
    assert (result.method, result.units, result.low) == ('paired bootstrap over parts', 15, 1)


def test_without_a_true_difference_few_defective_parts_seldom_show_one():
    generator = np.random.default_rng(0)
    sets = [compare(list(range(60)), recall_of(6, *generator.normal(0, 1, (2, 6)))) for _ in range(300)]
    assert sum(result.verdict != 'no difference shown' for result in sets) <= 0.05 * len(sets)


def test_bootstrap_draws_parts_with_all_their_images():
    # 20 parts of five images about the part's value; drawn one by one, they would give another interval
    values = np.random.default_rng(1).normal(0.3, 1, 20)
    images = (values[:, None] + [-4, -2, 0, 2, 4]).ravel()
    result = compare(np.repeat(np.arange(20), 5).tolist(), means(np.zeros(100), images))
    by_part = compare(list(range(20)), means(np.zeros(20), values))
    assert result.method == 'paired bootstrap over parts'
    assert result.units == 20
    assert (result.low, result.high) == pytest.approx((by_part.low, by_part.high))
    expected = 2 * 1.96 * values.std() / np.sqrt(20)  # the bootstrap's standard error of a mean
    assert result.high - result.low == pytest.approx(expected, rel=0.1)


def test_bootstrap_is_paired():
    # The arms vary widely over parts but differ by the same 0.1 in each: paired, nothing is uncertain.
    baseline = np.random.default_rng(0).normal(0, 10, 30)
    result = compare(list(range(30)), means(baseline, baseline + 0.1))
    assert (result.low, result.high) == pytest.approx((0.1, 0.1))
    assert result.verdict == 'candidate higher'


def test_bootstrap_says_no_difference_where_zero_is_not_excluded():
    generator = np.random.default_rng(0)
    baseline, candidate = generator.normal(0, 1, (2, 40))
    result = compare(list(range(40)), means(baseline, candidate), resamples=500)
    assert result.low < 0 < result.high
    assert result.verdict == 'no difference shown'
    again = compare(list(range(40)), means(baseline, candidate), resamples=500)
    assert asdict(again) == asdict(result)
    json.dumps(asdict(result), allow_nan=False)


def test_compare_refuses_images_without_a_part():
    with pytest.raises(StatisticsError, match='1 of 3 images have no part id'):
        compare(['a', None, 'b'], means([0] * 3, [1] * 3))


@pytest.mark.parametrize('nothing', [None, math.nan])
def test_compare_refuses_a_measure_without_a_value(nothing):
    with pytest.raises(StatisticsError, match='no value over all images'):
        compare(list('abc'), lambda positions: (nothing, 0.5))


def test_a_measure_that_hangs_on_one_part_shows_nothing():
    result = compare(list(range(20)), recall_of(1, np.zeros(1), np.ones(1)))
    assert (result.units, result.p_value, result.verdict) == (1, 1, 'no difference shown')


def test_compare_refuses_a_bootstrap_of_a_measure_that_many_draws_lack():
    def alone_or_with_part_0(positions):
        return (0.5, 0.6) if 0 in positions or len(set(positions)) == 1 else (None, None)

    with pytest.raises(
        StatisticsError, match='no value in .* of 200 draws of 20 parts, although it has one on'
    ):
        compare(list(range(20)), alone_or_with_part_0, resamples=200)


def test_seeds_by_hand():
    seeds = summarise_seeds([0.5, 0.7, 0.9])
    assert seeds.mean == pytest.approx(0.7)
    assert seeds.std == pytest.approx(0.2)  # (0.04 + 0 + 0.04) / 2 = 0.04
    assert summarise_seeds([0.5]).std is None
    for broken in ([], [0.5, math.nan]):
        with pytest.raises(StatisticsError, match='finite values'):
            summarise_seeds(broken)


def test_compare_seeds_by_hand():
    # Means 2 and 5, variances 1 and 1: standard error sqrt(2/3), Welch's degrees of freedom 4, t = 2.776
    result = compare_seeds([1, 2, 3], [4, 5, 6])
    assert result.difference == 3
    margin = stats.t.ppf(0.975, 4) * math.sqrt(2 / 3)
    assert (result.low, result.high) == pytest.approx((3 - margin, 3 + margin))
    assert result.verdict == 'candidate higher'
    # Means 2 and 6, variances 1 and 2.5: squared error 1/3 + 1/2, degrees of freedom
    # (5/6)^2 / ((1/3)^2 / 2 + (1/2)^2 / 4) = 5.88
    uneven = compare_seeds([1, 2, 3], [4, 5, 6, 7, 8])
    assert uneven.high == pytest.approx(
        4 + stats.t.ppf(0.975, (25 / 36) / (1 / 18 + 1 / 16)) * math.sqrt(5 / 6)
    )
    assert compare_seeds([4, 5, 6], [1, 2, 3]).verdict == 'candidate lower'
    assert compare_seeds([1, 2, 3], [1.5, 2.5, 3.5]).verdict == 'no difference shown'
    json.dumps(asdict(result), allow_nan=False)


def test_seeds_of_one_pretraining_count_once_where_there_are_several():
    values = [0.1, 0.2, 0.3], [0.6, 0.7, 0.9, 1.0]
    result = compare_seeds(*values, starts=([None] * 3, list('aabb')))
    by_pretraining = compare_seeds(values[0], [0.65, 0.95])
    assert (result.difference, result.low) == pytest.approx((by_pretraining.difference, by_pretraining.low))
    assert result.candidate.values == values[1]  # what is reported stays that of the seeds
    assert result.low < 0 < compare_seeds(*values).low
    for alone in ([None] * 4, ['a'] * 4, list('abcd')):
        assert asdict(compare_seeds(*values, starts=([None] * 3, alone))) == asdict(compare_seeds(*values))
    uneven = compare_seeds([0.0, 0.2], [0.4, 0.6, 0.8], starts=([None] * 2, list('aab')))
    assert uneven.difference == pytest.approx((0.5 + 0.8) / 2 - 0.1)


@pytest.mark.parametrize(
    ('baseline', 'candidate', 'reason'),
    [([0.1, 0.2], [0.9], 'one seed'), ([0.1, 0.1], [0.9, 0.9], 'counted several times')],
)
def test_compare_seeds_shows_nothing_without_a_spread(baseline, candidate, reason):
    result = compare_seeds(baseline, candidate)
    assert result.verdict == 'no difference shown'
    assert result.low is None
    assert reason in result.reason


def test_calibration_by_hand():
    # two bins: (0, 0.5] holds 0.2 and 0.4, one right; (0.5, 1] holds 0.9 and 1.0, both right
    result = calibration([0.2, 0.4, 0.9, 1.0], [True, False, True, True], bins=2)
    assert result.counts == [2, 2]
    assert result.confidences == pytest.approx([0.3, 0.95])
    assert result.accuracies == [0.5, 1.0]
    assert result.error == pytest.approx(0.5 * 0.2 + 0.5 * 0.05)


def test_calibration_bins_are_closed_on_the_right_and_may_be_empty():
    result = calibration([0.0, 0.5], [False, True], bins=4)
    assert result.counts == [1, 1, 0, 0]
    assert result.accuracies[2] is None
    json.dumps(asdict(result), allow_nan=False)


@pytest.mark.parametrize(
    ('confidences', 'correct', 'message'),
    [
        ([], [], 'as many confidences'),
        ([0.5], [True, False], 'as many confidences'),
        ([0.5, math.nan], [True, False], r'in \[0, 1\]'),
        ([3.2], [True], 'not logits'),
    ],
)
def test_calibration_refuses(confidences, correct, message):
    with pytest.raises(StatisticsError, match=message):
        calibration(confidences, correct)


def test_confusion_by_hand():
    assert confusion([0, 0, 0, 1, 1], [0, 1, 1, 1, 0], 2) == [[1, 2], [1, 1]]
    for truth, predicted in (([0], [0, 1]), ([2], [0]), ([0], [2]), ([-1], [0])):
        with pytest.raises(StatisticsError, match='label'):
            confusion(truth, predicted, 2)
