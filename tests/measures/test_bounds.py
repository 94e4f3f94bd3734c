import pytest
from scipy import stats

from projects.measures.bounds import (
    StatisticsError,
    allowed_events,
    parts_needed,
    rate,
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
