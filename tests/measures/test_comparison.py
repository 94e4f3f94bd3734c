"""Two arms compared: what the swap test, the expanded percentile interval and Holm's correction promise."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from projects.measures.bounds import StatisticsError
from projects.measures.comparison import compare, compare_seeds, expanded_tail, holm, summarise_seeds


def means(baseline, candidate):
    """Mean over the drawn images of both arms, one arm after the other."""
    values = np.array([*baseline, *candidate], float)
    return lambda positions: values[positions].mean()


def p_of(differences):
    return compare(list(range(len(differences))), means([0.0] * len(differences), differences)).p_value


def test_swap_test_by_hand():
    # |sums| over the signs of (1, 2, 3, 4): of the sixteen, two reach 10; a p-value is at least 2^(1-4)
    assert p_of([1, 2, 3, 4]) == 2 / 16
    # (3, -1, 1) sums to 3; |sums|: 3 1 5 3 3 5 1 3; six of the eight reach 3
    assert p_of([3, -1, 1]) == 6 / 8
    assert p_of([0.0, 0.0]) == 1


def test_swap_test_is_not_fooled_by_rounding():
    # of the 16 sums two are 0.4 and eight 0.2 in size, as is the observed one, but not to the last digit
    assert p_of([0.1, 0.1, 0.1, -0.1]) == 10 / 16


def test_random_swaps_agree_with_all_of_them():
    differences = np.random.default_rng(2).normal(0.4, 1, 12)
    signs = np.array(np.meshgrid(*[[1, -1]] * 12)).reshape(12, -1).T
    exact = (abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean()
    result = compare(list(range(12)), means(np.zeros(12), differences), resamples=4000)
    assert result.method == 'Monte Carlo arm-swap test'
    assert result.p_value == pytest.approx(exact, abs=0.02)


def test_few_units_get_differences_per_unit_and_the_exact_test():
    baseline = [0.5, 0.5, 0.2, 0.4, 0.1, 0.6, 0.3]
    candidate = [0.7, 0.9, 0.3, 0.5, 0.2, 0.7, 0.4]
    result = compare(list('aabcdef'), means(baseline, candidate))
    assert result.method == 'exact arm-swap test'
    assert result.units == 6
    assert result.per_unit == pytest.approx({'a': 0.3, 'b': 0.1, 'c': 0.1, 'd': 0.1, 'e': 0.1, 'f': 0.1})
    assert result.p_value == result.smallest_p_value == 2 / 64
    assert result.low is None
    assert result.verdict == 'candidate higher'
    assert result.difference == pytest.approx(0.6 / 7 + 5 * 0.1 / 7)  # over all images: 1.1 / 7
    json.dumps(asdict(result), allow_nan=False)


def test_the_difference_over_all_images_is_tested():
    # Part a loses 0.1 on each of its ten images, eight parts of one image gain 0.11: 0.007 down in all.
    candidate = [-0.1] * 10 + [0.11] * 8
    result = compare(['a'] * 10 + list('bcdefghi'), means([0.0] * 18, candidate))
    assert result.difference == pytest.approx(-0.12 / 18)
    assert result.p_value > 0.5 and result.verdict == 'no difference shown'


def test_parts_1_and_text_1_are_one():
    assert compare([1, '1', 2, 3], means([0.0] * 4, [1.0] * 4)).units == 3


def test_five_units_never_show_a_difference():
    result = compare(list('abcde'), means([0.0] * 5, [1.0] * 5))
    assert result.smallest_p_value == 2 / 32
    assert result.verdict == 'no difference shown'


def recall_of(carrying, baseline, candidate, images=60):
    """Mean over the carrying units alone, as recall is over those with a defect."""
    values = np.concatenate([baseline, candidate])

    def measure(positions):
        arm, image = np.divmod(positions, images)
        drawn = (arm * carrying + image)[image < carrying]
        return values[drawn].mean() if drawn.size else None

    return measure


def test_good_parts_do_not_make_an_interval_of_few_defective_ones():
    # Recall rises from 0 to 1 on four of six critical parts, among 60: p = 2 * 2^-4.
    found = np.array([1.0, 1, 1, 1, 0, 0])
    result = compare(list(range(60)), recall_of(6, np.zeros(6), found))
    assert (result.units, result.low, len(result.per_unit)) == (6, None, 6)
    assert result.p_value == pytest.approx(0.125, abs=0.03)
    assert result.verdict == 'no difference shown'


def test_no_p_value_is_below_that_of_the_units_that_carry_the_measure():
    result = compare(
        list(range(60)), recall_of(3, np.zeros(3), np.ones(3)), carrying=[True] * 3 + [False] * 57
    )
    assert (result.units, result.p_value, result.smallest_p_value) == (3, 0.25, 0.25)
    # a mean over classes that is known as well as from four parts
    result = compare(list(range(60)), means(np.zeros(60), np.ones(60)), independent=4)
    assert (result.units, result.low, result.p_value) == (4, None, 0.125)


def test_fifteen_defective_parts_make_an_interval():
    result = compare(list(range(60)), recall_of(15, np.zeros(15), np.ones(15)), resamples=100)
    assert (result.units, result.low, result.per_unit) == (15, 1, {})


def test_without_a_true_difference_few_defective_parts_seldom_show_one():
    generator = np.random.default_rng(0)
    sets = [
        compare(list(range(20)), recall_of(6, *generator.normal(0, 1, (2, 6)), images=20), resamples=200)
        for _ in range(200)
    ]
    assert sum(result.verdict != 'no difference shown' for result in sets) <= 0.05 * len(sets)


def test_bootstrap_draws_parts_with_all_their_images():
    # 20 parts of five images about the part's value; drawn one by one, they would give another interval
    values = np.random.default_rng(1).normal(0.3, 1, 20)
    images = (values[:, None] + [-4, -2, 0, 2, 4]).ravel()
    result = compare(np.repeat(np.arange(20), 5).tolist(), means(np.zeros(100), images))
    by_part = compare(list(range(20)), means(np.zeros(20), values))
    assert result.units == 20
    assert (result.low, result.high) == pytest.approx((by_part.low, by_part.high))
    # the bootstrap's standard error of a mean, times the normal quantile of the expanded tail
    expected = 2 * -stats.norm.ppf(expanded_tail(20)) * values.std() / np.sqrt(20)
    assert result.high - result.low == pytest.approx(expected, rel=0.1)


def test_the_tail_is_expanded_after_hesterberg():
    # sqrt(15 / 14) * 2.14479 = 2.2201, whose normal tail is 1.32 %
    assert expanded_tail(15) == pytest.approx(0.01321, abs=1e-4)
    assert expanded_tail(10**6) == pytest.approx(0.025, abs=1e-4)


def test_bootstrap_is_paired():
    # The arms vary widely over parts but differ by the same 0.1 in each: paired, nothing is uncertain.
    baseline = np.random.default_rng(0).normal(0, 10, 30)
    result = compare(list(range(30)), means(baseline, baseline + 0.1))
    assert (result.low, result.high) == pytest.approx((0.1, 0.1))
    assert result.verdict == 'candidate higher'


def test_no_difference_where_swaps_reach_as_far():
    generator = np.random.default_rng(0)
    baseline, candidate = generator.normal(0, 1, (2, 40))
    result = compare(list(range(40)), means(baseline, candidate), resamples=500)
    assert result.low < 0 < result.high
    assert result.p_value > 0.05 and result.verdict == 'no difference shown'
    again = compare(list(range(40)), means(baseline, candidate), resamples=500)
    assert asdict(again) == asdict(result)
    json.dumps(asdict(result), allow_nan=False)


def test_compare_refuses_images_without_a_part():
    with pytest.raises(StatisticsError, match='1 of 3 images'):
        compare(['a', None, 'b'], means([0] * 3, [1] * 3))


@pytest.mark.parametrize('nothing', [None, math.nan])
def test_compare_refuses_a_measure_without_a_value(nothing):
    with pytest.raises(StatisticsError, match='no value over all images'):
        compare(list('abc'), lambda positions: nothing if positions[0] < 3 else 0.5)


def test_a_measure_that_depends_on_one_part_shows_nothing():
    result = compare(list(range(20)), recall_of(1, np.zeros(1), np.ones(1), images=20))
    assert (result.units, result.p_value, result.verdict) == (1, 1, 'no difference shown')


def test_compare_refuses_a_bootstrap_of_a_measure_that_many_draws_lack():
    def alone_or_with_part_0(positions):
        images = positions % 20
        return 0.5 + 0.1 * (positions >= 20).mean() if 0 in images or len(set(images)) == 1 else None

    with pytest.raises(
        StatisticsError, match='no value in .* of 200 draws of 20 parts, although it has one on'
    ):
        compare(list(range(20)), alone_or_with_part_0, resamples=200)


def test_holm_by_hand():
    # sorted 0.01, 0.03, 0.04 times 3, 2, 1: 0.03, 0.06, 0.04, which may not fall below the one before
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.7]) == [1, 1] and holm([]) == [] and holm([0.02]) == [0.02]


def null_differences(kind, units, generator):
    """Hits of two equal detectors on the flaws of some parts, and the flaws: true difference zero."""
    flaws = 1 + (generator.geometric(0.25, units) if kind == 'skew' else generator.poisson(1.5, units))
    ease = generator.normal(0.5, 1, units)
    hits = [
        generator.binomial(flaws, 1 / (1 + np.exp(-(ease + generator.normal(0, 0.8, units)))))
        for _ in range(2)
    ]
    return hits, flaws


@pytest.mark.parametrize('kind', ['even', 'skew'])
def test_fifteen_equal_parts_show_a_difference_in_one_of_twenty_sets(kind):
    """The plain percentile interval, which the verdict was read from, excluded zero in 7 to 12 %."""
    generator = np.random.default_rng(0)
    shown = missed = plain = 0
    for seed in range(150):
        hits, flaws = null_differences(kind, 15, generator)
        found, total = np.concatenate(hits), np.concatenate([flaws, flaws])
        result = compare(
            list(range(15)),
            lambda positions, found=found, total=total: found[positions].sum() / total[positions].sum(),
            resamples=200,
            seed=seed,
        )
        shown += result.verdict != 'no difference shown'
        missed += not result.low <= 0 <= result.high
        drawn = generator.integers(15, size=(400, 15))
        ratios = (hits[1] - hits[0])[drawn].sum(1) / flaws[drawn].sum(1)
        low, high = np.quantile(ratios, [0.025, 0.975])
        plain += not low <= 0 <= high
    assert shown <= 0.06 * 150  # 5 % and half a standard error
    if kind == 'even':  # few parts with many flaws are beyond any percentile of 15
        assert missed <= min(0.06 * 150, plain)


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
