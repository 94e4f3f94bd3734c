"""The threshold of parts with the power of its proof, and what test parts prove."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from helpers.inspected import image, parts_with
from scipy import stats

from projects.measures.bounds import StatisticsError, proof_power
from projects.measures.matching import match_all
from projects.measures.parts import gather_parts, measure_parts
from projects.measures.proof import choose_threshold, judge_parts


def spread(count, low=0.0, high=1.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, count).tolist()


# ------------------------------------------------------------------------------------------- the threshold


@pytest.mark.parametrize(('val', 'test'), [(59, 59), (100, 200), (200, 200), (1000, 2000)])
def test_the_highest_threshold_that_val_proves_is_a_coin_flip_on_test(val, test):
    """What the power is for: at the most escapes that val allows, test proves in half of the cases."""
    allowed = {59: 0, 100: 1, 200: 4, 1000: 38}[val]
    assert proof_power(allowed, val, test, 0.05) == pytest.approx(0.5, abs=0.2)
    assert stats.beta.cdf(0.05, allowed + 1, val - allowed) > 0.94  # the true rate is within it


def test_power_agrees_with_drawn_sets():
    generator = np.random.default_rng(0)
    proven = 0
    for _ in range(4000):
        threshold = np.sort(generator.random(200))[1]
        proven += (generator.random(200) < threshold).sum() <= 4  # allowed among 200
    assert proof_power(1, 200, 200, 0.05) == pytest.approx(proven / 4000, abs=0.02)
    assert proof_power(0, 200, 58, 0.05) == proof_power(3, 3, 200, 0.05) == proof_power(0, 9, 0, 0.05) == 0


@pytest.mark.parametrize(('val', 'test'), [(200, 200), (300, 300), (300, 600), (1000, 1000)])
def test_the_chosen_threshold_proves_in_nine_of_ten_test_sets(val, test):
    choice = choose_threshold(parts_with(spread(val)), 0.05, test)
    assert choice.power >= 0.9
    escapes = choice.measures.escape.events
    assert proof_power(escapes + 1, val, test, 0.05) < 0.9  # the next one up has less
    assert choice.power == proof_power(escapes, val, test, 0.05)
    proven = 0
    for seed in range(1, 201):
        point = judge_parts(parts_with(spread(test, seed=seed)), 0.05, choice.threshold)
        proven += point.proven
    true_rate = choice.threshold  # of uniform scores
    assert proven / 200 == pytest.approx(stats.binom.cdf(round(allowed(test)), test, true_rate), abs=0.08)


def allowed(units):
    return max(n for n in range(units) if stats.beta.ppf(0.95, n + 1, units - n) <= 0.05)


def test_power_is_said_before_test_is_opened_with_the_parts_that_it_takes():
    scores = spread(36, 0.6, 0.95)
    choice = choose_threshold(parts_with(scores), 0.05, 150)
    assert choice.threshold == math.floor(1e4 * min(scores)) / 1e4  # most power
    assert choice.power == pytest.approx(stats.betabinom.cdf(allowed(150), 150, 1, 36))
    assert choice.power < 0.9 and choice.test_parts_needed is None
    assert proof_power(0, choice.parts_needed, choice.parts_needed, 0.05) >= 0.9
    assert f'{choice.parts_needed} critical parts in each of val and test' in choice.statement
    few = choose_threshold(parts_with(spread(100)), 0.05, 59)
    assert few.power < 0.9 and proof_power(0, 100, few.test_parts_needed, 0.05) >= 0.9
    assert f'{few.test_parts_needed} critical test parts give 90%' in few.statement
    json.dumps(asdict(choice), allow_nan=False)


def test_what_a_threshold_costs_is_said():
    parts = parts_with(spread(300)) + parts_with([0.0, 0.5, None, 0.9], 'defect-free')
    choice = choose_threshold(parts, 0.05)
    assert (choice.measures.false_reject.events, choice.measures.false_reject.units) == (2, 4)
    assert 'Sound parts of val rejected there: 2 of 4 = 50.00%, at most 90.24%' in choice.statement
    assert choice.test_parts == 300


def test_parts_that_no_threshold_catches_count_as_escapes():
    choice = choose_threshold(parts_with([None, None, *spread(298)]), 0.05)
    assert choice.measures.escape.events >= 2
    none = choose_threshold(parts_with([None] * 60), 0.05)
    assert (none.threshold, none.measures, none.power) == (None, None, 0)
    assert 'no critical part of val has a score' in none.statement
    assert choose_threshold([], 0.01).threshold is None


def test_tied_scores_do_not_let_more_escape_than_said():
    choice = choose_threshold(parts_with([0.4] * 300), 0.05)
    assert (choice.threshold, choice.measures.escape.events) == (0.4, 0)


def test_report_and_folder_have_one_threshold_below_59_critical_parts():
    """36 critical parts on val: a box threshold of 0.0 was proven, and the exported folder ran at 0.60."""
    generator = np.random.default_rng(0)

    def parts(count, low, name):
        drawn = generator.uniform(low, 0.95, count)
        images = [
            image([(10, 10, 30, s, 0)], [(10, 10, 30, 0)], i, f'{name}{i}') for i, s in enumerate(drawn)
        ]
        return gather_parts(match_all(images))

    val, test = parts(36, 0.6, 'v'), parts(150, 0.3, 't')
    choice = choose_threshold(val, 0.05, len(test))
    assert choice.threshold == math.floor(1e4 * min(part.score for part in val)) / 1e4
    point = judge_parts(test, 0.05, choice.threshold)
    assert not point.proven and point.measures.escape.events > 60


# ------------------------------------------------------------------------------------------------ the proof


def test_a_proof_carries_both_rates_with_their_bounds():
    parts = parts_with([0.3] + [0.8] * 58) + parts_with([0.2, 0.31, 0.9, None], 'defect-free')
    point = judge_parts(parts, 0.05, 0.3)
    assert point.proven and point.reason == ''
    assert (point.measures.escape.events, point.measures.false_reject.events) == (0, 2)
    assert point.statement == (
        'Proven: critical escape <= 0.05 with 95% confidence at score >= 0.3; '
        'escaped: 0 of 59 = 0.00%, at most 4.96% with 95% confidence; '
        'sound parts rejected: 2 of 4 = 50.00%, at most 90.24% with 95% confidence. '
        '0 of 59 rejections of critical parts (0%) are by another detection alone.'
    )
    assert 'sound parts rejected: not estimable' in judge_parts(parts_with([0.8] * 59), 0.05, 0.3).statement
    json.dumps(asdict(point), allow_nan=False)


def test_a_box_in_the_corner_of_every_image_proves_nothing():
    """A detector with box recall 0 that rejects every part was proven to let none escape."""
    images = [image([(0, 0, 9, 0.9, 0)], [(50, 50, 20, 0)], i, i) for i in range(100)]
    images += [image([(0, 0, 9, 0.9, 0)], [], 100 + i, 100 + i) for i in range(50)]
    point = judge_parts(gather_parts(match_all(images)), 0.05, 0.5)
    assert not point.proven and point.reason == 'luck'
    assert '100 of 100 rejections of critical parts (100%) are by another detection alone' in point.statement


@pytest.mark.parametrize(
    ('lucky', 'sound', 'reason'),
    [
        (40, [0.1] * 5, ''),
        (51, [0.1] * 5, 'luck'),
        (0, [0.9] * 5, 'all rejected'),
        (0, [0.9] * 5 + [None], ''),
        (0, [], ''),
    ],
)
def test_luck_and_rejecting_everything_are_no_proof(lucky, sound, reason):
    parts = parts_with([0.8] * lucky, hits=False) + parts_with([0.8] * (100 - lucky))
    point = judge_parts(parts + parts_with(sound, 'defect-free'), 0.05, 0.5)
    assert (point.reason, point.proven) == (reason, not reason)


def test_too_few_parts_say_so_and_how_many_it_takes():
    point = judge_parts(parts_with([0.9] * 58), 0.05, 0.5)
    assert (point.proven, point.reason, point.parts_needed) == (False, 'too few parts', 59)
    assert 'has 58 critical parts' in point.statement and 'takes 59' in point.statement
    assert judge_parts([], 0.01, 0.5).parts_needed == 299


def test_too_few_parts_do_not_hide_what_escapes():
    point = judge_parts(parts_with([0.1] + [0.9] * 49), 0.05, 0.5)
    assert point.parts_needed == 93
    assert 'escaped: 1 of 50 = 2.00%, at most 9.14%' in point.statement
    assert point.statement.endswith('With as many escapes it takes 93 critical parts.')
    # 3 of 50 are more than 5 %: more parts would not prove it
    hopeless = judge_parts(parts_with([0.1] * 3 + [0.9] * 47), 0.05, 0.5)
    assert hopeless.parts_needed is None and 'With as' not in hopeless.statement


def test_the_printed_threshold_rejects_the_parts_it_is_said_to():
    parts = parts_with([0.45678] + [0.8] * 58)
    printed = float(judge_parts(parts, 0.05, 0.45678).statement.split('score >= ')[1].split(';')[0])
    assert measure_parts(parts, printed).escape.events == 0


def test_parts_without_a_detection_are_named():
    point = judge_parts(parts_with([None, None] + [0.9] * 91), 0.05, 0.5)
    assert point.reason == 'too many escapes'
    assert point.statement.endswith(
        ' 2 of 93 critical parts have no detection that rejects them, at any threshold.'
    )
    assert judge_parts(parts_with([None] + [0.9] * 92), 0.05, 0.5).proven


@pytest.mark.parametrize(
    ('scores', 'reason', 'begins'),
    [
        ([0.9] * 59, 'estimate', 'Estimated: critical escape <= 0.05'),
        ([0.1] * 9 + [0.9] * 59, 'too many escapes', 'Not proven: '),
        ([0.9] * 9, 'too few parts', 'Not proven: '),
    ],
    ids=range(3),
)
def test_parts_that_chose_the_model_prove_nothing(scores, reason, begins):
    point = judge_parts(parts_with(scores), 0.05, 0.5, of='validation')
    assert (point.proven, point.reason) == (False, reason)
    assert point.statement.startswith(begins)
    assert point.statement.endswith(
        ' The validation parts also chose the model, so what they say is an estimate: prove it on test parts '
        '(tools/test.py --val, tools/report.py).'
    )


def test_a_threshold_from_val_is_judged_on_test():
    parts = parts_with([0.2, 0.4] + [0.9] * 120)
    assert judge_parts(parts, 0.05, 0.3).proven
    point = judge_parts(parts_with([0.2, 0.2] + [0.9] * 91), 0.05, 0.3)
    assert not point.proven
    assert point.measures.escape.events == 2
    assert point.parts_needed == 124  # smallest n with the upper bound of 2 of n at most 5 %
    assert 'takes 124 critical parts' in point.statement
    hopeless = judge_parts(parts_with([0.2] * 30 + [0.9] * 63), 0.05, 0.3)
    assert hopeless.parts_needed is None


@pytest.mark.parametrize('judge', [judge_parts, choose_threshold])
def test_escape_rate_to_prove_must_be_a_rate(judge):
    with pytest.raises(StatisticsError, match='rate in'):
        judge(parts_with([0.9] * 60), 5, 1)


# ---------------------------------------------------------------------------------------------- refused views


def with_refused(critical, refused, sound=20, refused_sound=0):
    parts = parts_with([0.9] * critical) + parts_with([0.1] * sound, 'defect-free')
    for number, part in enumerate(parts):
        part.refused = number < refused or critical <= number < critical + refused_sound
    return parts


def test_a_proof_holds_with_every_refused_critical_part_counted_as_escaped():
    point = judge_parts(with_refused(100, 1, refused_sound=2), 0.05, 0.5)
    assert point.proven
    assert 'escaped: 1 of 100 = 1.00%, at most 4.66% with 95% confidence' in point.statement
    assert 'sound parts rejected: 2 of 20' in point.statement
    assert (
        '. Parts with a refused view, on which an inspector decides: 3 of 120 = 2.50%, at most 6.34% with '
        '95% confidence; both rates count them against the detector (1 critical as escaped, 2 sound as '
        'rejected). Escaped of the critical parts without a refused view: 0 of 99 = 0.00%, at most 2.99%'
        in point.statement
    )
    assert 'no detection' not in point.statement


def test_parts_that_would_be_proven_without_their_refused_views_are_not():
    """Five of 100 critical parts are refused: what is proven of the other 95 is not proven of the line."""
    point = judge_parts(with_refused(100, 5), 0.05, 0.5)
    assert (point.proven, point.reason) == (False, 'refused')
    assert point.statement.startswith(
        'Not proven: critical escape <= 0.05 with 95% confidence at score >= 0.5, as critical parts with '
        'a refused view count as escaped; the others alone would prove it; escaped: 5 of 100'
    )


def test_a_folder_that_refuses_every_sound_part_proves_nothing():
    point = judge_parts(with_refused(100, 0, sound=20, refused_sound=20), 0.05, 0.5)
    assert (point.proven, point.reason) == (False, 'all rejected')


def test_parts_with_ignored_boxes_alone_are_said():
    """Marking a missed defect as crowd takes its part out of the rate: the reader must see how many."""
    parts = parts_with([0.9] * 100) + parts_with([0.1] * 7, 'ignored')
    statement = judge_parts(parts, 0.05, 0.5).statement
    assert '. Parts with ignored boxes (iscrowd) alone, which are in neither rate: 7.' in statement
