"""Probability of detection against flaw size: hit/miss curves after MIL-HDBK-1823A.

Plain numbers in, dataclasses of plain numbers out. If the data do not support a value, it is None, and
`problems` states the reason.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from .bounds import MIN_UNITS, StatisticsError, upper_bound
from .images import Bools, Floats, Ints
from .likelihood import LINKS, Likelihood, fit_binary, hosmer_lemeshow, root_above, separated

MIN_FLAWS = 60  # MIL-HDBK-1823A: with fewer hits and misses a logistic curve is not stable

# The handbook's software reads a90/95 from the bound at the 0.95 quantile of chi-square with one degree of
# freedom, 3.84, nominally 97.5 % one-sided. At the handbook's smallest sample, 95 % coverage needs this
# quantile. In simulations with 60 flaws and a logistic POD, the bound lay above the true a90 in 95.5 % of
# 1,500 data sets (100 flaws: 96.5 %); with the 0.90 quantile, 2.71, it did in 91.8 % (93.6 %).
CRITERION = float(stats.chi2.ppf(0.95, 1))
# One-sided 5 % of an asymptote: 1 is the border of the parameter space, so half of the ratios are zero (Self
# & Liang, J. Am. Stat. Assoc. 82, 1987).
ASYMPTOTE_CRITERION = float(stats.chi2.ppf(0.90, 1))
# Multiple of the largest flaw: a nearly flat curve reaches 90 % at 1e+25 px, which no flaw has.
FARTHEST = 100


@dataclass
class PodPoint:
    """POD at one size with its likelihood-ratio bounds."""

    size: float | None
    pod: float
    low: float
    high: float


@dataclass
class PodFit:
    """Probability-of-detection curve of hit/miss data after MIL-HDBK-1823A.

    Attributes:
        flaws: Number of flaws.
        hits: Flaws that were found.
        parts: Number of parts as clusters; None if the flaws were taken as independent.
        log_size: Whether the link is linear in ln(size) (and ln(contrast)) or in the size itself.
        link: 'logit' or 'probit'.
        deviances: By 'link, scale', -2 log-likelihood of each combination. The model with the smallest is
            used unless one was requested. a90/95 is the largest of the models within `CRITERION` of it. Empty
            without a fit.
        coefficients: Intercept, size, and contrast if given; empty without a fit.
        log_likelihood: Value at the fit; None without a fit.
        a50: Size found with probability 0.5; None if the data do not determine it.
        a90: Size found with probability 0.9; likewise.
        a90_95: Upper 95 % bound of a90; likewise.
        asymptote: Upper asymptote of the POD, fitted as third parameter; None without a fit.
        asymptote_low: Lower 95 % bound of the asymptote.
        asymptote_p: p-value of the asymptote 1, by likelihood ratio.
        goodness_p: p-value of the Hosmer-Lemeshow test that the curve fits; None without a fit.
        at_contrast: Contrast at which a50, a90, a90_95 and curve hold; None without contrasts.
        design_effect: Factor by which clustering widens the bound; 1 for no effect.
        curve: POD and bounds over the observed sizes; empty if the data do not determine them.
        problems: Warnings to read before using a number; empty if all checks passed.
    """

    flaws: int
    hits: int
    parts: int | None
    log_size: bool
    link: str
    deviances: dict[str, float] = field(default_factory=dict)
    coefficients: list[float] = field(default_factory=list)
    log_likelihood: float | None = None
    a50: float | None = None
    a90: float | None = None
    a90_95: float | None = None
    asymptote: float | None = None
    asymptote_low: float | None = None
    asymptote_p: float | None = None
    goodness_p: float | None = None
    at_contrast: float | None = None
    design_effect: float = 1.0
    curve: list[PodPoint] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def model(self) -> str:
        """Return the name of the model: link and scale."""
        return name_model(self.link, self.log_size)

    def predict(self, size: Floats | float, contrast: Floats | float | None = None) -> Floats:
        """Return the fitted POD at sizes, and at contrasts if the fit uses them (broadcast).

        Raises:
            StatisticsError: No fit; contrasts for a fit without contrasts, or none for a fit with contrasts.
        """
        covariates = [size] if contrast is None else [size, contrast]
        if len(self.coefficients) != 1 + len(covariates):
            raise StatisticsError(f'no POD curve in {len(covariates)} variables: {"; ".join(self.problems)}')
        position = self.coefficients[0] + sum(
            slope * (np.log(value) if self.log_size else np.asarray(value))
            for slope, value in zip(self.coefficients[1:], covariates, strict=True)
        )
        curve: Floats = LINKS[self.link].cdf(position)
        return curve


def name_model(link: str, log_size: bool) -> str:
    """Return the name of a combination of link and scale."""
    return f'{link}, {"ln(size)" if log_size else "size"}'


def fit_pod(
    sizes: Sequence[float] | Floats,
    hits: Sequence[bool] | Bools,
    contrasts: Sequence[float] | Floats | None = None,
    parts: Sequence[Hashable] | None = None,
    log_size: bool | None = None,
    link: str | None = None,
    at_contrast: float | None = None,
    points: int = 25,
) -> PodFit:
    """Fit POD against flaw size, one row per physical flaw (MIL-HDBK-1823A, appendix G).

    F⁻¹(POD) = b0 + b1·x(size) [+ b2·x(contrast)] is fitted by maximum likelihood. F is logistic or normal, x
    is ln or the identity. Bounds are profile likelihood-ratio bounds: the values whose best constrained fit
    has a log-likelihood at most `CRITERION` / 2 below the maximum. With `parts`, flaws of one part may be
    correlated: the criterion grows by the ratio of the cluster-robust to the plain variance, at least 1
    (Rotnitzky & Jewell, Biometrika 77, 1990).

    A curve of two parameters rises to one. It is compared with a curve with an upper asymptote. If the latter
    fits better, or an asymptote below 0.9 is not excluded, there is no a90 (Annis et al., Materials
    Evaluation, 2015).

    Args:
        sizes: (N) flaw sizes > 0 in px or mm.
        hits: (N) whether the flaw was found.
        contrasts: (N) contrasts or contrast-to-noise ratios > 0, for a curve in two variables.
        parts: (N) part of each flaw, where a part may carry several.
        log_size: Linear in ln(size) or in size; default, the scale of smaller deviance.
        link: 'logit' or 'probit'; default, the link of smaller deviance.
        at_contrast: Contrast at which a50, a90 and the curve are evaluated; default the median.
        points: Number of points of the curve.

    Returns:
        The fit with its validity checks. Without overlap of hits and misses there is no curve, and every
        value is None.

    Raises:
        StatisticsError: No flaws, unequal lengths, a size or contrast that is not finite and > 0, an unknown
            link.
    """
    found = np.asarray(hits, bool)
    covariates = [np.asarray(c, float) for c in (sizes, contrasts) if c is not None]
    _check(found, covariates, parts, link)
    if contrasts is not None:
        at_contrast = float(np.median(covariates[1]) if at_contrast is None else at_contrast)
        if not 0 < at_contrast < np.inf:
            raise StatisticsError(
                f'expected a contrast above zero to evaluate the curve at, got {at_contrast}'
            )
    clusters = None if parts is None else np.unique([str(part) for part in parts], return_inverse=True)[1]
    fit = PodFit(
        flaws=int(found.size),
        hits=int(found.sum()),
        parts=None if clusters is None else int(clusters.max()) + 1,
        log_size=log_size is not False,
        link=link or 'logit',
        at_contrast=at_contrast,
    )
    if not _has_curve(fit, found, covariates):
        return fit
    noted = list(fit.problems)
    try:
        fit.deviances = _deviances(found, covariates)
        models = _plausible(fit.deviances, link, log_size)
        fits = [
            _Fitted(_Design(covariates, scale), found, each, clusters, fit.at_contrast)
            for each, scale in models
        ]
        fit.link, fit.log_size = models[0]
        _evaluate(fit, fits, points)
    except StatisticsError as error:
        bare = PodFit(fit.flaws, fit.hits, fit.parts, fit.log_size, fit.link, at_contrast=fit.at_contrast)
        bare.problems = [*noted, f'{error}, so there is no curve; {_needed_sizes(found, covariates)}']
        return bare
    return fit


def _plausible(
    deviances: dict[str, float], link: str | None, log_size: bool | None
) -> list[tuple[str, bool]]:
    """Return links and scales by rising deviance: the best requested model and the equally good models."""
    models = [
        (each, scale)
        for each in ([link] if link else LINKS)
        for scale in ((True, False) if log_size is None else (log_size,))
        if name_model(each, scale) in deviances
    ]
    if not models:
        raise StatisticsError('the fit did not converge')
    models.sort(key=lambda model: deviances[name_model(*model)])
    # A model that fits about as well as the best is as plausible: the bound is the largest of these models.
    limit = deviances[name_model(*models[0])] + CRITERION
    return [model for model in models if deviances[name_model(*model)] <= limit]


def _check(
    hits: Bools, covariates: Sequence[Floats], parts: Sequence[Hashable] | None, link: str | None
) -> None:
    """Refuse data that are no hit/miss data."""
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
    if link is not None and link not in LINKS:
        raise StatisticsError(f'unknown link {link!r}, expected one of {tuple(LINKS)}')


def _has_curve(fit: PodFit, hits: Bools, covariates: Sequence[Floats]) -> bool:
    """Note the problems of the data, and return whether they determine a curve."""
    if hits.size < MIN_FLAWS:
        fit.problems.append(f'{hits.size} flaws; a stable curve takes {MIN_FLAWS} or more')
    if fit.parts is not None and fit.parts < MIN_UNITS:
        fit.problems.append(
            f'{fit.parts} parts; widening for alike flaws of a part takes {MIN_UNITS} or more'
        )
    if hits.all() or not hits.any():
        fit.problems.append(f'every flaw is a {"hit" if hits.all() else "miss"}, so there is no curve')
    elif any(np.ptp(covariate) == 0 for covariate in covariates):
        fit.problems.append('all flaws have the same size or contrast, so there is no curve')
    elif any(separated(_Design(covariates, scale).rows, hits) for scale in (True, False)):
        fit.problems.append(
            'hits and misses do not overlap, so that the steepness of the curve is unknown: '
            + _needed_sizes(hits, covariates)
        )
    else:
        return True
    return False


def _needed_sizes(hits: Bools, covariates: Sequence[Floats]) -> str:
    """Return the remedy: flaws that would determine a curve."""
    if len(covariates) > 1:
        return 'add flaws of sizes and contrasts of which some are found and some missed'
    sizes = covariates[0]
    ends = sorted((float(sizes[hits].min()), float(sizes[~hits].max())))
    return (
        f'add flaws of sizes around {ends[0]:.3g} to {ends[1]:.3g}, of which some are found and some missed'
    )


class _Design:
    """Design matrix of a scale, standardised for good conditioning in any unit.

    Args:
        covariates: One or two arrays (N) above zero.
        log_size: Whether the scale is ln.
    """

    def __init__(self, covariates: Sequence[Floats], log_size: bool) -> None:
        self.sizes, self.log_size = covariates[0], log_size
        values = np.column_stack([self.forward(c) for c in covariates])
        self.mean, self.spread = values.mean(0), values.std(0)
        self.rows = np.column_stack([np.ones(len(values)), (values - self.mean) / self.spread])

    def forward(self, value: Floats | float) -> Floats:
        """Return a value on the scale."""
        return np.log(value) if self.log_size else np.asarray(value, float)

    def coefficients(self, best: Floats) -> list[float]:
        """Return the coefficients of the covariates that are not standardised."""
        slopes = best[1:] / self.spread
        return [float(best[0] - slopes @ self.mean), *slopes.tolist()]

    def row(self, position: float, contrast: float | None) -> Floats:
        """Return the design row of a standardised size, and of a contrast if given."""
        fixed = [] if contrast is None else [float((self.forward(contrast) - self.mean[1]) / self.spread[1])]
        return np.array([1.0, position, *fixed])

    def size(self, position: float) -> float | None:
        """Return the size of a standardised size; None if no flaw can have it."""
        value = position * self.spread[0] + self.mean[0]
        with np.errstate(over='ignore'):
            size = float(np.exp(value) if self.log_size else value)
        return size if 0 < size <= FARTHEST * self.sizes.max() else None


def _deviances(hits: Bools, covariates: Sequence[Floats]) -> dict[str, float]:
    """Return -2 log-likelihood of each link on each scale; models that do not converge are left out."""
    deviances = {}
    for link in LINKS:
        for log_size in (True, False):
            try:
                fitted = fit_binary(_Design(covariates, log_size).rows, hits, LINKS[link])
            except StatisticsError:
                continue
            deviances[name_model(link, log_size)] = -2 * fitted.log_likelihood
    return deviances


class _Fitted:
    """One model at its maximum likelihood.

    Args:
        design: Design matrix of its scale.
        hits: (N) bool.
        link: Name of its link.
        clusters: (N) cluster of each flaw, int from 0, or None.
        contrast: Contrast at which sizes are read; None for a curve in size alone.

    Raises:
        StatisticsError: The fit did not converge.
    """

    def __init__(
        self, design: _Design, hits: Bools, link: str, clusters: Ints | None, contrast: float | None
    ) -> None:
        self.design, self.contrast, self.link = design, contrast, LINKS[link]
        self.likelihood = Likelihood(design.rows, hits, self.link, clusters)
        self.best = self.likelihood.best
        self.rises = bool(self.best[1] > 0)

    def position(self, probability: float) -> float:
        """Return the standardised size that is found with a probability."""
        offset = self.design.row(0.0, self.contrast) @ self.best
        return float((self.link.quantile(probability) - offset) / self.best[1])

    def design_effect(self) -> float:
        """Return the factor by which clustering widens the bound of a90."""
        return self.likelihood.design_effect(self.design.row(self.position(0.9), self.contrast))

    def bound(self) -> float | None:
        """Return a90/95; None where the data allow a flat curve."""
        criterion = CRITERION * self.design_effect()
        # A larger a90 means a flatter curve: a90 has a bound exactly if the data exclude a flat curve.
        if not self.rises or self.likelihood.ratio(np.eye(self.best.size)[1], 0.0) <= criterion:
            return None
        target = self.link.quantile(0.9)
        return self.design.size(
            root_above(
                self.position(0.9),
                lambda p: self.likelihood.ratio(self.design.row(p, self.contrast), target) - criterion,
            )
        )


def _evaluate(fit: PodFit, fits: Sequence[_Fitted], points: int) -> None:
    """Read the sizes with their bounds from the best model, check the model, and trace its curve."""
    model = fits[0]
    design, likelihood = model.design, model.likelihood
    fit.coefficients, fit.log_likelihood = design.coefficients(model.best), likelihood.maximum
    if not model.rises:
        fit.problems.append('larger flaws are not found more often, so there is no a90')
        return
    fit.a50, fit.a90 = (design.size(model.position(probability)) for probability in (0.5, 0.9))
    if fit.a50 is None or fit.a90 is None:
        fit.problems.append('the curve is so flat that a50 or a90 is no possible size')
    fit.design_effect = model.design_effect()
    bounds = [each.bound() for each in fits]
    sizes = [bound for bound in bounds if bound is not None]
    if len(sizes) == len(bounds):
        fit.a90_95 = max(sizes)
    else:
        fit.problems.append('the data allow a flat curve, so a90 has no upper bound')
    _check_range(fit, design, likelihood)
    _check_asymptote(fit, likelihood)
    _check_fit(fit, design, likelihood)
    for position in np.linspace(design.rows[:, 1].min(), design.rows[:, 1].max(), points):
        row = design.row(position, fit.at_contrast)
        curve = likelihood.bounds(row, CRITERION * likelihood.design_effect(row))
        fit.curve.append(PodPoint(design.size(position), *(float(model.link.cdf(bound)) for bound in curve)))


def _check_range(fit: PodFit, design: _Design, likelihood: Likelihood) -> None:
    """Note extrapolations, and large flaws that are missed more often than the curve predicts."""
    sizes, hits = design.sizes, likelihood.hits
    if any(v and not sizes.min() <= v <= sizes.max() for v in (fit.a50, fit.a90, fit.a90_95)):
        fit.problems.append('a50, a90 or a90/95 lies outside the sizes of the flaws: an extrapolation')
    large = sizes >= (fit.a90 or np.inf)
    if large.any():
        expected = float(LINKS[fit.link].cdf(design.rows[large] @ likelihood.best).mean())
        if upper_bound(int(hits[large].sum()), int(large.sum())) < expected:
            fit.problems.append(
                f'flaws above a90 are found in {hits[large].mean():.0%}, the curve says {expected:.0%}: '
                'large flaws are missed at random, and the curve does not describe them'
            )


def _check_asymptote(fit: PodFit, likelihood: Likelihood) -> None:
    """Fit an upper asymptote, and withdraw a90 unless the curve certainly reaches 0.9."""
    top, low, ratio = likelihood.asymptote(ASYMPTOTE_CRITERION * fit.design_effect)
    fit.asymptote, fit.asymptote_low = top, low
    fit.asymptote_p = 1.0 if ratio <= 0 else float(stats.chi2.sf(ratio / fit.design_effect, 1) / 2)
    if low >= 0.9 and fit.asymptote_p > 0.05:
        return
    fit.a90 = fit.a90_95 = None
    if fit.asymptote_p <= 0.05:
        fit.problems.append(
            f'the curve levels off at {top:.0%} (p = {fit.asymptote_p:.2g} that it rises to one): no a90'
        )
    else:
        fit.problems.append(
            f'a curve that levels off at {low:.0%} is not excluded, so there is no a90; more large flaws '
            'would tell'
        )


def _check_fit(fit: PodFit, design: _Design, likelihood: Likelihood) -> None:
    """Test the goodness of fit, with the design effect of correlated flaws, as for the bounds."""
    predicted = LINKS[fit.link].cdf(design.rows @ likelihood.best)
    statistic, freedom = hosmer_lemeshow(predicted, likelihood.hits)
    fit.goodness_p = float(stats.chi2.sf(statistic / fit.design_effect, freedom))
    if fit.goodness_p < 0.05:
        fit.problems.append(f'the curve does not fit (Hosmer-Lemeshow p = {fit.goodness_p:.2g})')
