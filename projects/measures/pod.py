"""Probability of detection against flaw size: hit/miss curves after MIL-HDBK-1823A.

Plain numbers in, dataclasses of plain numbers out; a value that the data do not support is None, and
`problems` says why.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from .bounds import MIN_UNITS, StatisticsError, upper_bound

MIN_FLAWS = 60  # MIL-HDBK-1823A: with fewer hits and misses a logistic curve is not stable

# The handbook's software reads a90/95 from the bound at the 0.95 quantile of chi-square with one degree of
# freedom, 3.84, nominally 97.5 % one-sided. At the handbook's smallest sample, 95 % takes that: simulated
# with 60 flaws and a logistic POD, the bound lay above the true a90 in 95.5 % of 1,500 data sets (100 flaws:
# 96.5 %), with the 0.90 quantile, 2.71, in 91.8 % (93.6 %).
CRITERION = float(stats.chi2.ppf(0.95, 1))
# Of the largest flaw: a curve that is nearly flat reaches 90 % at 1e+25 px, which is no size of a flaw.
FARTHEST = 100


@dataclass
class PodPoint:
    """POD at one size with its likelihood-ratio bounds."""

    size: float
    pod: float
    low: float
    high: float


@dataclass
class PodFit:
    """Logistic probability-of-detection curve of hit/miss data after MIL-HDBK-1823A.

    Attributes:
        flaws: Flaws in all.
        hits: Flaws that were found.
        parts: Parts the flaws were clustered by; None when they were taken as independent.
        log_size: Whether the logit is linear in ln(size) (and ln(contrast)) or in the size itself.
        coefficients: Intercept, size, and contrast if given; empty without a fit.
        log_likelihood: At the fit; None without one.
        a50: Size found with probability 0.5; None when the data do not give it.
        a90: Size found with probability 0.9; likewise.
        a90_95: Upper 95 % bound of a90; likewise.
        at_contrast: Contrast at which a50, a90, a90_95 and curve hold; None without contrasts.
        design_effect: Factor by which clustering widens the bound (1: not at all).
        curve: POD and bounds over the observed sizes; empty when the data do not give it.
        problems: What a reader must know before using a number; empty when the checks passed.
    """

    flaws: int
    hits: int
    parts: int | None
    log_size: bool
    coefficients: list[float]
    log_likelihood: float | None
    a50: float | None
    a90: float | None
    a90_95: float | None
    at_contrast: float | None
    design_effect: float
    curve: list[PodPoint]
    problems: list[str]

    def predict(self, size: np.ndarray, contrast: np.ndarray | None = None) -> np.ndarray:
        """Return the fitted POD at sizes, and contrasts if the curve was fitted with them (broadcast).

        Raises:
            StatisticsError: There is no fit, or contrasts are given to one without, or the other way round.
        """
        covariates = [size] if contrast is None else [size, contrast]
        if len(self.coefficients) != 1 + len(covariates):
            raise StatisticsError(f'no POD curve in {len(covariates)} variables: {"; ".join(self.problems)}')
        transform = np.log if self.log_size else np.asarray
        slopes = zip(self.coefficients[1:], covariates, strict=True)
        return special.expit(self.coefficients[0] + sum(slope * transform(value) for slope, value in slopes))


def fit_pod(
    sizes: Sequence[float],
    hits: Sequence[bool],
    contrasts: Sequence[float] | None = None,
    parts: Sequence[Hashable] | None = None,
    log_size: bool = True,
    at_contrast: float | None = None,
    points: int = 25,
) -> PodFit:
    """Fit POD against flaw size, one row per physical flaw (MIL-HDBK-1823A, appendix G).

    logit POD = b0 + b1·x(size) [+ b2·x(contrast)], x being ln or the identity, by maximum likelihood.
    Bounds are profile likelihood-ratio bounds: the values whose best constrained fit has a log-likelihood at
    most `CRITERION` / 2 below the maximum. With `parts`, flaws of one part may be alike: the criterion grows
    by the ratio of the cluster-robust to the plain variance of the logit, at least 1 (Rotnitzky & Jewell,
    Biometrika 77, 1990).

    Args:
        sizes: (N) flaw sizes > 0 in px or mm.
        hits: (N) whether the flaw was found.
        contrasts: (N) contrasts > 0, for a curve in two variables.
        parts: (N) part of each flaw, where a part may carry several.
        log_size: The log-odds model of Berens, or linear in size; the larger log-likelihood fits better.
        at_contrast: Where to evaluate a50, a90 and the curve; default the median.
        points: Of the curve.

    Returns:
        The fit with its validity checks. Without overlap of hits and misses there is no curve, and every
        value is None.

    Raises:
        StatisticsError: No flaws, unequal lengths, a size or contrast that is not finite and > 0.
    """
    hits = np.asarray(hits, bool)
    covariates = [np.asarray(c, float) for c in (sizes, contrasts) if c is not None]
    if hits.ndim != 1 or not hits.size or any(c.shape != hits.shape for c in covariates):
        raise StatisticsError(
            'expected one size (and contrast) and one hit or miss per flaw, and a flaw at least'
        )
    if not all((np.isfinite(c) & (c > 0)).all() for c in covariates):
        raise StatisticsError('flaw sizes and contrasts must be finite and above zero')
    if parts is not None and (len(parts) != hits.size or any(part is None for part in parts)):
        raise StatisticsError(
            'expected the part id of every flaw; leave `parts` out to take flaws as independent'
        )
    if contrasts is not None:
        at_contrast = float(np.median(covariates[1]) if at_contrast is None else at_contrast)
        if not 0 < at_contrast < np.inf:
            raise StatisticsError(
                f'expected a contrast above zero to evaluate the curve at, got {at_contrast}'
            )
    clusters = None if parts is None else np.unique([str(part) for part in parts], return_inverse=True)[1]

    fit = PodFit(
        flaws=int(hits.size),
        hits=int(hits.sum()),
        parts=None if clusters is None else int(clusters.max()) + 1,
        log_size=log_size,
        coefficients=[],
        log_likelihood=None,
        a50=None,
        a90=None,
        a90_95=None,
        at_contrast=at_contrast,
        design_effect=1.0,
        curve=[],
        problems=[],
    )
    if hits.size < MIN_FLAWS:
        fit.problems.append(f'{hits.size} flaws; a stable curve takes {MIN_FLAWS} or more')
    if fit.parts is not None and fit.parts < MIN_UNITS:
        fit.problems.append(
            f'{fit.parts} parts; widening for alike flaws of a part takes {MIN_UNITS} or more'
        )
    if hits.all() or not hits.any():
        fit.problems.append(f'every flaw is a {"hit" if hits.all() else "miss"}, so there is no curve')
        return fit

    forward, backward = (np.log, np.exp) if log_size else (np.asarray, np.asarray)
    values = np.column_stack([forward(c) for c in covariates])
    mean, spread = values.mean(0), values.std(0)
    if not (spread > 0).all():
        fit.problems.append('all flaws have the same size or contrast, so there is no curve')
        return fit
    design = np.column_stack([np.ones(hits.size), (values - mean) / spread])  # well conditioned in any unit
    if _separated(design, hits):
        fit.problems.append('hits and misses do not overlap, so that the steepness of the curve is unknown')
        return fit
    try:
        likelihood = _Likelihood(design, hits, clusters)
    except StatisticsError as error:
        fit.problems.append(f'{error}, so there is no curve')
        return fit
    best = likelihood.best
    slopes = best[1:] / spread
    fit.coefficients = [float(best[0] - slopes @ mean), *slopes.tolist()]
    fit.log_likelihood = likelihood.maximum
    if slopes[0] <= 0:
        fit.problems.append('larger flaws are not found more often, so there is no a90')
        return fit

    # The contrast at which the curve holds, standardised as the design is.
    fixed = [] if contrasts is None else [(forward(at_contrast) - mean[1]) / spread[1]]

    def row(position):
        return np.array([1.0, position, *fixed])

    def position_of(probability):
        return (special.logit(probability) - row(0.0) @ best) / best[1]

    sizes = covariates[0]

    def size_of(position):
        with np.errstate(over='ignore'):
            size = float(backward(position * spread[0] + mean[0]))
        return size if 0 < size <= FARTHEST * sizes.max() else None

    fit.a50, fit.a90 = size_of(position_of(0.5)), size_of(position_of(0.9))
    if fit.a50 is None or fit.a90 is None:
        fit.problems.append('the curve is so flat that a50 or a90 is no size at all')
    fit.design_effect = likelihood.design_effect(row(position_of(0.9)))
    criterion = CRITERION * fit.design_effect
    # The farther out a90, the flatter the curve: it has a bound exactly when a flat curve is excluded.
    if likelihood.ratio(np.eye(best.size)[1], 0.0) > criterion:
        target = special.logit(0.9)
        fit.a90_95 = size_of(
            _root_above(position_of(0.9), lambda p: likelihood.ratio(row(p), target) - criterion)
        )
    if fit.a90_95 is None:
        fit.problems.append('the data allow a flat curve, so a90 has no upper bound')
    if any(v and not sizes.min() <= v <= sizes.max() for v in (fit.a50, fit.a90, fit.a90_95)):
        fit.problems.append('a50, a90 or a90/95 lies outside the sizes of the flaws: an extrapolation')
    large = sizes >= (fit.a90 or np.inf)
    if large.any():
        expected = special.expit(design[large] @ best).mean()
        if upper_bound(int(hits[large].sum()), int(large.sum())) < expected:
            fit.problems.append(
                f'flaws above a90 are found in {hits[large].mean():.0%}, the curve says {expected:.0%}: '
                'large ones are missed at random, and the curve is not theirs'
            )
    for position in np.linspace(design[:, 1].min(), design[:, 1].max(), points):
        logit, low, high = likelihood.bounds(row(position))
        fit.curve.append(PodPoint(size_of(position), *special.expit([logit, low, high]).tolist()))
    return fit


class _Likelihood:
    """Likelihood of a logistic regression around its maximum.

    Args:
        design: (N, K) float, not separated (see `_separated`), so that every level set of the likelihood is
            bounded and every bound below is finite.
        hits: (N) bool.
        clusters: (N) int from 0, or None.
    """

    def __init__(self, design, hits, clusters):
        self.design, self.hits, self.clusters = design, hits, clusters
        self.best, self.maximum, self.information = _fit_logistic(design, hits)

    def ratio(self, direction, value):
        """Likelihood-ratio statistic of the hypothesis direction·beta = value."""
        particular = direction * value / (direction @ direction)
        free = np.linalg.svd(direction[None])[2][1:].T  # (K, K - 1), orthogonal to `direction`
        constrained = _fit_logistic(
            self.design @ free, self.hits, self.design @ particular, start=free.T @ self.best
        )
        return 2 * (self.maximum - constrained[1])

    def design_effect(self, direction):
        """Cluster-robust over plain variance of direction·beta, at least 1; 1 without clusters."""
        if self.clusters is None:
            return 1.0
        scores = self.design * (self.hits - special.expit(self.design @ self.best))[:, None]
        sums = np.stack([np.bincount(self.clusters, column) for column in scores.T])  # (K, clusters)
        influence = np.linalg.solve(self.information, direction) @ sums
        plain = direction @ np.linalg.solve(self.information, direction)
        count = sums.shape[1]
        return float(max(1.0, count / max(count - 1, 1) * (influence**2).sum() / plain))

    def bounds(self, direction):
        """Estimate of direction·beta with its lower and upper bound."""
        estimate, criterion = direction @ self.best, CRITERION * self.design_effect(direction)
        step = np.sqrt(criterion * direction @ np.linalg.solve(self.information, direction))  # Wald's bound
        low, high = (
            _root_above(
                0.0, lambda d, s=sign: self.ratio(direction, estimate + s * d) - criterion, 1.2 * step
            )
            for sign in (-1, 1)
        )
        return estimate, estimate - low, estimate + high


def _root_above(start: float, excess: Callable[[float], float], step: float = 0.25) -> float:
    """Root of `excess` above `start`, where it is negative; it must rise above zero somewhere."""
    while excess(start + step) < 0:
        step *= 2
    return optimize.brentq(excess, start, start + step, xtol=1e-9)


def _separated(design: np.ndarray, hits: np.ndarray) -> bool:
    """Whether a plane parts hits from misses, touching allowed: then no maximum of the likelihood exists.

    Albert & Anderson, Biometrika 71, 1984; found by linear programming (Konis, 2007).
    """
    signed = np.where(hits[:, None], design, -design)
    result = optimize.linprog(
        -signed.sum(0), A_ub=-signed, b_ub=np.zeros(hits.size), bounds=[(-1, 1)] * design.shape[1]
    )
    return -result.fun > 1e-7


def _fit_logistic(
    design: np.ndarray,
    hits: np.ndarray,
    offset: np.ndarray | float = 0.0,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, float, np.ndarray]:
    """Maximum-likelihood logistic regression by Newton's method with step halving.

    Args:
        design: (N, K) float.
        hits: (N) bool.
        offset: Added to the logit, (N) or a number.
        start: (K) where to begin; default zeros.

    Returns:
        Coefficients (K), log-likelihood, and information matrix (K, K).

    Raises:
        StatisticsError: No convergence.
    """

    def likelihood(beta):
        logit = design @ beta + offset
        return float(logit[hits].sum() - np.logaddexp(0, logit).sum())

    beta = np.zeros(design.shape[1]) if start is None else start
    current = likelihood(beta)
    for _ in range(100):
        found = special.expit(design @ beta + offset)
        gradient = design.T @ (hits - found)
        information = (design * (found * (1 - found))[:, None]).T @ design
        step = np.linalg.lstsq(information, gradient)[0]
        if gradient @ step < 1e-14 * max(1.0, abs(current)):  # Newton decrement
            return beta, current, information
        while (proposed := likelihood(beta + step)) < current and abs(step).max() > 1e-12:
            step = step / 2
        beta, current = beta + step, proposed
    raise StatisticsError('the logistic fit did not converge')
