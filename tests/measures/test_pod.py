import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy import optimize, special, stats

from projects.measures.bounds import StatisticsError
from projects.measures.likelihood import LINKS, Likelihood
from projects.measures.pod import CRITERION, fit_pod

# MIL-HDBK-1823A, example 3: crack lengths in thousandths of an inch, missed and found.
MISSED = """19 23 25 25 34 34 50 50 57 65 65 67 67 70 70 70 75 75 79 80 80 82 82 84 85 85 87 90 91 95 97
102 115 117 125 125 125 142 150 155 177 182"""
FOUND = """45 80 80 85 90 95 110 111 116 125 125 130 130 137 138 140 141 144 145 150 152 152 155 157 165 167
175 176 179 180 180 182 185 187 187 188 190 194 195 195 200 200 202 205 207 207 207 210 210 210 210
211 212 212 213 215 215 216 216 220 225 227 235 235 235 240 240 240 242 247 250 250 255 257 260 262
262 265 275 300 300 315 317 320 320 320 324 325 345 352 355 407"""
SIZES = np.array([int(text) / 1000 for text in (MISSED + ' ' + FOUND).split()])
HITS = np.repeat([False, True], [42, 92])


def fit_logit(*arguments, **options):
    """The log-odds model of Berens, whichever fits best."""
    return fit_pod(*arguments, **dict(log_size=True, link='logit') | options)


# Example 4: a flaw every 2 thousandths of an inch up to 99, then from 102 to 200; by number, those found.
SIZES_4 = np.array([*range(1, 100, 2), *range(102, 201, 2)]) / 1000
FOUND_4 = {
    4,
    6,
    12,
    15,
    24,
    25,
    27,
    35,
    36,
    37,
    40,
    45,
    47,
    48,
    49,
    52,
    53,
    54,
    56,
    57,
    59,
    60,
    *range(62, 101),
}
HITS_4 = np.array([number in FOUND_4 for number in range(1, 101)])


def synthetic(count=200, seed=0):
    """Sizes, contrasts and hits with logit POD = -3 + 2 ln size + 1.5 ln contrast."""
    generator = np.random.default_rng(seed)
    sizes, contrasts = np.exp(generator.uniform(0, 3, count)), np.exp(generator.uniform(-1, 1, count))
    chance = special.expit(-3 + 2 * np.log(sizes) + 1.5 * np.log(contrasts))
    return sizes, contrasts, generator.random(count) < chance


def test_handbook_example_3():
    """The figures of R's glm and of the mh1823 7.3.7 routines, which read a90/95 off a contour of 51 x 51."""
    fit = fit_logit(SIZES, HITS, log_size=False, points=2)
    assert (fit.flaws, fit.hits) == (134, 92)
    assert fit.coefficients == pytest.approx([-4.59736656561765, 39.7654286840476], rel=1e-7)
    assert fit.log_likelihood == pytest.approx(-38.7469053178524, rel=1e-9)
    assert fit.a50 == pytest.approx(0.115612146473903, rel=1e-7)
    assert fit.a90 == pytest.approx(0.170866789767052, rel=1e-7)
    assert fit.a90_95 == pytest.approx(0.197340414521742, rel=2e-4)
    assert fit.problems == []


def test_handbook_example_4():
    """The example whose flaws fit ln(size) badly: log-likelihood -48.4, of the size itself -41.2."""
    by_log, by_size = (fit_logit(SIZES_4, HITS_4, log_size=scale, points=2) for scale in (True, False))
    assert (by_size.flaws, by_size.hits) == (100, 61)
    assert by_log.log_likelihood == pytest.approx(-48.4, abs=0.05)
    assert by_size.log_likelihood == pytest.approx(-41.2, abs=0.05)
    assert any('does not fit' in problem for problem in by_log.problems) and by_log.goodness_p < 0.05
    assert by_size.problems == [] and by_size.goodness_p > 0.5
    assert (by_log.a90, by_size.a90) == pytest.approx((0.1967, 0.1399), abs=1e-4)


@pytest.mark.parametrize(('sizes', 'hits'), [(SIZES, HITS), (SIZES_4, HITS_4)], ids=(3, 4))
def test_link_and_scale_are_chosen_by_deviance_and_named(sizes, hits):
    fit = fit_pod(sizes, hits, points=2)
    assert set(fit.deviances) == {'logit, ln(size)', 'logit, size', 'probit, ln(size)', 'probit, size'}
    assert fit.model == 'probit, size' == min(fit.deviances, key=fit.deviances.get)
    assert fit.deviances[fit.model] == pytest.approx(-2 * fit.log_likelihood)
    assert fit.predict(np.array([fit.a50, fit.a90])) == pytest.approx([0.5, 0.9])
    asked = fit_pod(sizes, hits, link='logit', points=2)
    assert asked.model == 'logit, size' and asked.deviances == fit.deviances


def test_probit_by_another_optimiser():
    fit = fit_pod(SIZES, HITS, link='probit', log_size=False, points=2)

    def negative(beta):
        position = beta[0] + beta[1] * SIZES
        return -special.log_ndtr(np.where(HITS, position, -position)).sum()

    best = optimize.minimize(negative, [0, 1], tol=1e-10)
    assert fit.coefficients == pytest.approx(best.x, rel=1e-4)
    assert fit.log_likelihood == pytest.approx(-best.fun)


def levelling(ceiling, count=150, seed=0):
    generator = np.random.default_rng(seed)
    sizes = np.exp(generator.uniform(np.log(3), np.log(40), count))
    return sizes, generator.random(count) < ceiling * special.expit(4 * np.log(sizes / 8))


def test_where_pod_levels_off_below_90_percent_there_is_no_a90():
    """At 85 % and 150 flaws an a90/95 was printed in every case, without any warning in 40 %."""
    fits = [fit_pod(*levelling(0.85, seed=seed), points=2) for seed in range(40)]
    assert sum(fit.a90_95 is not None for fit in fits) <= 2
    assert all(fit.problems for fit in fits if fit.a90_95 is None)
    assert np.median([fit.asymptote for fit in fits]) == pytest.approx(0.85, abs=0.05)


def test_where_pod_rises_to_one_a90_is_kept():
    fits = [fit_pod(*levelling(1.0, seed=seed), points=2) for seed in range(20)]
    assert sum(fit.a90_95 is not None for fit in fits) >= 16
    assert all(fit.asymptote_low <= fit.asymptote <= 1 for fit in fits)


def test_an_asymptote_that_is_not_excluded_takes_a90_back():
    """Twelve large flaws, all found: 0.9 to the 12th is 28 %, so that a curve may level off there."""
    sizes = np.array([*np.linspace(1, 5, 50), *np.linspace(20, 30, 12)])
    hits = np.array([*([False] * 24 + [True, False] * 2 + [False] * 22), *[True] * 12])
    fit = fit_pod(sizes, hits, points=2)
    assert (fit.a90, fit.a90_95) == (None, None) and fit.asymptote == 1 and fit.asymptote_low < 0.9
    assert any('is not excluded' in problem for problem in fit.problems)


def test_the_asymptote_by_brute_force():
    sizes, hits = levelling(0.8, 400)
    fit = fit_logit(sizes, hits, points=2)

    def negative(beta):
        chance = special.expit(beta[2]) * special.expit(beta[0] + beta[1] * np.log(sizes))
        return -np.log(np.where(hits, chance, 1 - chance)).sum()

    best = optimize.minimize(
        negative, [-8, 4, 2], method='Nelder-Mead', options=dict(maxiter=9000, xatol=1e-6)
    )
    assert fit.asymptote == pytest.approx(special.expit(best.x[2]), abs=2e-3)
    ratio = 2 * (-best.fun - fit.log_likelihood)
    assert fit.asymptote_p == pytest.approx(stats.chi2.sf(ratio, 1) / 2, rel=0.02)


def likelihood(beta, design, hits):
    logit = design @ beta
    return logit[hits].sum() - np.logaddexp(0, logit).sum()


@pytest.mark.parametrize('log_size', [True, False])
def test_bound_of_a90_by_brute_force(log_size):
    """Of all curves within the criterion of the best, none has a larger a90, and one has it."""
    fit = fit_logit(SIZES, HITS, log_size=log_size, points=2)
    covariate = np.log(SIZES) if log_size else SIZES
    design = np.column_stack([np.ones(134), covariate])
    least = fit.log_likelihood - CRITERION / 2
    farthest = -math.inf
    # along each ray from the best curve to the border of the plausible ones
    for angle in np.linspace(0, 2 * np.pi, 1001):
        ray = np.array([np.cos(angle), np.sin(angle) / abs(covariate).mean()])

        def slack(t, ray=ray):
            return likelihood(np.array(fit.coefficients) + t * ray, design, HITS) - least

        intercept, slope = fit.coefficients + optimize.brentq(slack, 0, 1000) * ray
        farthest = max(farthest, (special.logit(0.9) - intercept) / slope)
    assert fit.a90_95 == pytest.approx(math.exp(farthest) if log_size else farthest, rel=1e-4)


def test_bounds_of_the_curve_by_brute_force():
    fit = fit_logit(SIZES, HITS, points=5)
    point = fit.curve[2]
    centred = np.log(SIZES / point.size)  # the intercept is now the logit of the POD at this size

    def lack_of_fit(logit):
        best = optimize.minimize_scalar(
            lambda slope: (
                -likelihood(np.array([logit, slope]), np.column_stack([np.ones(134), centred]), HITS)
            ),
            bracket=(1, 5),
        )
        return 2 * (fit.log_likelihood + best.fun) - CRITERION

    middle = special.logit(point.pod)
    assert lack_of_fit(middle) == pytest.approx(-CRITERION)
    assert special.logit(point.low) == pytest.approx(
        optimize.brentq(lack_of_fit, middle - 5, middle), rel=1e-5
    )
    assert special.logit(point.high) == pytest.approx(
        optimize.brentq(lack_of_fit, middle, middle + 5), rel=1e-5
    )
    assert fit.curve[0].size == pytest.approx(0.019)
    assert fit.curve[-1].size == pytest.approx(0.407)


def test_curve_and_bound_agree():
    """The lower bound of the curve reaches 90 % at a90/95."""
    fit = fit_logit(SIZES, HITS, points=60)
    size = np.interp(
        special.logit(0.9), [special.logit(p.low) for p in fit.curve], [p.size for p in fit.curve]
    )
    assert size == pytest.approx(fit.a90_95, rel=5e-3)


def test_unit_of_size_does_not_matter():
    inches, millimetres = fit_logit(SIZES, HITS, points=2), fit_logit(SIZES * 25.4, HITS, points=2)
    assert millimetres.a90_95 == pytest.approx(25.4 * inches.a90_95)
    assert millimetres.log_likelihood == pytest.approx(inches.log_likelihood)


def test_two_variables():
    sizes, contrasts, hits = synthetic(600)
    fit = fit_logit(sizes, hits, contrasts, at_contrast=0.8, points=2)
    design = np.column_stack([np.ones(600), np.log(sizes), np.log(contrasts)])
    best = optimize.minimize(lambda beta: -likelihood(beta, design, hits), np.zeros(3), tol=1e-9)
    assert fit.coefficients == pytest.approx(best.x, rel=1e-3)
    assert fit.predict(fit.a90, 0.8) == pytest.approx(0.9)
    assert fit.predict(fit.a50, 0.8) == pytest.approx(0.5)
    assert fit.a90 < fit.a90_95
    # the constrained optimum at a90/95 lies on the criterion
    beyond = fit.a90_95

    def constrained(slopes):
        intercept = special.logit(0.9) - slopes @ np.log([beyond, 0.8])
        return -likelihood(np.array([intercept, *slopes]), design, hits)

    worst = optimize.minimize(constrained, fit.coefficients[1:], tol=1e-9)
    assert 2 * (fit.log_likelihood + worst.fun) == pytest.approx(CRITERION, rel=1e-3)
    # more contrast, smaller flaws are found; by default the curve is that of the median contrast
    assert fit_logit(sizes, hits, contrasts, at_contrast=2.0, points=2).a90 < fit.a90
    assert fit_logit(sizes, hits, contrasts, points=2).at_contrast == np.median(contrasts)


def test_predict_takes_what_the_curve_was_fitted_with():
    fit = fit_logit(SIZES, HITS)
    assert fit.predict(np.array([fit.a50, fit.a90])) == pytest.approx([0.5, 0.9])
    with pytest.raises(StatisticsError, match='no POD curve in 2 variables'):
        fit.predict(0.1, 0.2)


def test_flaws_alike_within_a_part_widen_the_bound():
    """Each flaw counted five times adds nothing: clustered by part, the bound stays that of single rows."""
    single = fit_logit(SIZES, HITS, points=2)
    copied = fit_logit(np.tile(SIZES, 5), np.tile(HITS, 5), points=2)
    clustered = fit_logit(np.tile(SIZES, 5), np.tile(HITS, 5), parts=list(range(134)) * 5, points=2)
    assert clustered.parts == 134
    assert clustered.a90 == pytest.approx(single.a90)
    assert copied.a90_95 < clustered.a90_95
    # the factor 5, except for the scatter of the sandwich estimate
    assert clustered.design_effect == pytest.approx(5, rel=0.2)
    assert clustered.a90_95 == pytest.approx(single.a90_95, rel=0.03)


def test_design_effect_is_that_of_an_independent_sandwich():
    """That of statsmodels 0.15.0, G/(G-1) times GLM.fit(cov_type='cluster') without its own correction."""
    groups = np.arange(134) // 7
    fit = fit_logit(np.tile(SIZES, 2), np.tile(HITS, 2), parts=np.tile(groups, 2).tolist(), points=2)
    assert fit.parts == 20
    assert fit.design_effect == pytest.approx(8.86541260623756 * 20 / 19, rel=1e-6)


def test_independent_flaws_are_not_narrowed_by_clustering():
    fit = fit_logit(SIZES, HITS, parts=list(range(134)), points=2)
    assert fit.design_effect >= 1
    assert fit.a90_95 >= fit_logit(SIZES, HITS, points=2).a90_95 * (1 - 1e-9)


@pytest.mark.parametrize(
    ('sizes', 'hits', 'problem'),
    [
        ([1, 2, 3, 4], [False, False, True, True], 'do not overlap'),
        ([1, 2, 2, 4], [False, False, True, True], 'do not overlap'),
        ([1, 2, 3, 4], [True] * 4, 'every flaw is a hit'),
        ([1, 2, 3, 4], [False] * 4, 'every flaw is a miss'),
        ([2, 2, 2, 2], [True, False, True, False], 'same size'),
        ([1, 2, 3, 4, 5, 6], [True, True, False, True, False, False], 'not found more often'),
    ],
)
def test_no_number_where_the_data_hold_none(sizes, hits, problem):
    fit = fit_logit(sizes, hits)
    assert (fit.a50, fit.a90, fit.a90_95, fit.curve) == (None, None, None, [])
    assert any(problem in line for line in fit.problems)
    assert any('60 or more' in line for line in fit.problems)
    json.dumps(asdict(fit), allow_nan=False)


def nearly_separated(seed, flaws=60):
    """Flaws of which one or a few near 10 px are found or missed out of turn."""
    generator = np.random.default_rng(seed)
    while True:
        sizes = np.exp(generator.uniform(np.log(3), np.log(40), flaws))
        hits = generator.random(flaws) < special.expit(30 * np.log(sizes / 10))
        if sizes[hits].min() < sizes[~hits].max():
            return sizes, hits


@pytest.mark.parametrize('seed', range(12))
def test_a_nearly_separated_set_has_its_curve_and_bounds(seed):
    """Far from its maximum the expected curvature of a steep probit vanishes, and Fisher scoring stopped."""
    sizes, hits = nearly_separated(seed)
    fit = fit_pod(sizes, hits, points=5)
    assert not any('converge' in line for line in fit.problems)
    assert len(fit.curve) == 5 and fit.a50 < fit.a90
    assert all(0 <= point.low <= point.pod <= point.high <= 1 for point in fit.curve)


@pytest.mark.parametrize('link', ['logit', 'probit'])
@pytest.mark.parametrize('value', [-20.0, -6.0, -1.0, 1.0, 6.0, 20.0])
def test_the_likelihood_ratio_is_that_of_a_search_without_derivatives(link, value):
    sizes, hits = nearly_separated(3)
    x = np.log(sizes)
    design = np.column_stack([np.ones(60), (x - x.mean()) / x.std()])
    likelihood = Likelihood(design, hits, LINKS[link])
    row = np.array([1.0, 1.2])
    cdf = dict(logit=special.log_expit, probit=special.log_ndtr)[link]

    def lost(slope):  # the intercept follows from row @ beta = value
        position = value + slope * (design[:, 1] - row[1])
        return -np.where(hits, cdf(position), cdf(-position)).sum()

    best = min(
        optimize.minimize_scalar(lost, bounds=(low, low + 50), method='bounded').fun
        for low in range(-100, 100, 25)
    )
    assert likelihood.ratio(row, value) == pytest.approx(2 * (likelihood.maximum + best), rel=1e-5, abs=1e-6)


def test_separated_data_say_which_flaws_would_give_a_curve():
    fit = fit_logit([1, 2, 3, 4.5], [False, False, True, True])
    assert fit.problems[-1].endswith(
        'unknown: add flaws of sizes around 2 to 3, of which some are found and some missed'
    )


def test_a_fit_that_does_not_converge_is_named_with_its_remedy(monkeypatch):
    """Whatever stops it, also halfway through the bounds: no number is left, and no traceback."""
    monkeypatch.setattr(Likelihood, 'bounds', lambda *_: (_ for _ in ()).throw(StatisticsError('no end')))
    fit = fit_logit(SIZES, HITS)
    assert (fit.a50, fit.a90, fit.a90_95, fit.curve, fit.coefficients) == (None, None, None, [], [])
    assert fit.problems[-1].startswith('no end, so there is no curve; add flaws of sizes around ')


def test_separation_in_two_variables_is_seen():
    """Neither size nor contrast alone parts hits from misses, their product does."""
    sizes, contrasts, _ = synthetic(60)
    fit = fit_logit(sizes, sizes * contrasts > 4, contrasts)
    assert any('do not overlap' in line for line in fit.problems)
    assert fit.a90 is None


def test_no_bound_when_a_flat_curve_fits_as_well():
    generator = np.random.default_rng(0)
    sizes = generator.uniform(1, 10, 80)
    hits = generator.random(80) < 0.4 + 0.02 * sizes
    fit = fit_logit(sizes, hits)
    assert len(fit.coefficients) == 2
    assert fit.a90_95 is None
    assert any('flat curve' in line for line in fit.problems)
    json.dumps(asdict(fit), allow_nan=False)


def test_a_bound_beyond_any_flaw_is_none():
    """A slope that is barely excluded from zero puts the bound at 2e11 px (seed 3)."""
    generator = np.random.default_rng(3)
    sizes = generator.uniform(5, 30, 120)
    hits = generator.random(120) < special.expit(0.5 * np.log(sizes) - 1.5)
    fit = fit_logit(sizes, hits)
    assert (fit.a90, fit.a90_95) == (None, None)  # the curve reaches 0.9 at 214 px
    assert fit.predict(214.0) == pytest.approx(0.9, abs=1e-3)
    assert any('no upper bound' in line for line in fit.problems)


@pytest.mark.parametrize(('ceiling', 'reported'), [(0.85, True), (1.0, False)])
def test_large_flaws_missed_at_random_are_reported(ceiling, reported):
    """A detector that misses 15 % at any size contradicts a curve that rises to one."""
    generator = np.random.default_rng(0)
    sizes = np.exp(generator.uniform(0, 4, 600))
    hits = generator.random(600) < ceiling * special.expit(8 * np.log(sizes / 5))
    fit = fit_logit(sizes, hits, points=2)
    assert any('missed at random' in line for line in fit.problems) == reported


def test_extrapolation_is_reported():
    few = SIZES < 0.18
    fit = fit_logit(SIZES[few], HITS[few], points=2)
    assert fit.a90_95 is None or fit.a90_95 > SIZES[few].max()
    assert any('extrapolation' in line for line in fit.problems)


def test_result_is_json():
    fit = fit_logit(SIZES, HITS, parts=list(range(134)), points=3)
    assert json.loads(json.dumps(asdict(fit), allow_nan=False))['a90'] == fit.a90


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(sizes=[], hits=[]), 'a flaw at least'),
        (dict(sizes=[1, 2], hits=[True]), 'per flaw'),
        (dict(sizes=[1, math.nan], hits=[True, False]), 'finite and above zero'),
        (dict(sizes=[1, 0], hits=[True, False]), 'finite and above zero'),
        (dict(sizes=[1, 2], hits=[True, False], contrasts=[1, -1]), 'finite and above zero'),
        (dict(sizes=[1, 2], hits=[True, False], contrasts=[1, 2], at_contrast=0), 'contrast above zero'),
        (dict(sizes=[1, 2], hits=[True, False], parts=['a', None]), 'part id of every flaw'),
        (dict(sizes=[1, 2], hits=[True, False], parts=['a']), 'part id of every flaw'),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(StatisticsError, match=message):
        fit_logit(**arguments)
