"""Binary regression by maximum likelihood: links, an upper asymptote, profile bounds, separation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import optimize, special

from .bounds import StatisticsError
from .images import Bools, Floats, Ints

STEPS = 100  # maximum steps of Newton's method
LOG_ROOT_TAU = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Link:
    """A link of binary regression: the log-distribution of its error, and its quantile."""

    log_cdf: Callable[[Floats], Any]
    # Arguments: the position, and the logarithms of the distribution at plus and minus the position.
    log_density: Callable[[Floats, Floats, Floats], Any]
    quantile: Callable[[float], float]
    # Minus the second derivative of a log-likelihood, from its first derivative and the position; None where
    # it equals the expected information, as for the canonical link.
    curvature: Callable[[Floats, Floats], Floats] | None = None

    def cdf(self, position: Any) -> Any:
        """Return the probability at positions on the link's scale."""
        return np.exp(self.log_cdf(np.asarray(position, float)))


def _log_expit(position: Floats) -> Any:
    return -np.logaddexp(0, -position)


LINKS = {
    'logit': Link(
        _log_expit,
        lambda position, log_hit, log_miss: log_hit + log_miss,
        lambda probability: float(special.logit(probability)),
    ),
    'probit': Link(
        special.log_ndtr,
        lambda position, log_hit, log_miss: -0.5 * position**2 - LOG_ROOT_TAU,
        lambda probability: float(special.ndtri(probability)),
        lambda score, position: np.clip(score * (score + position), 0.0, 1.0),
    ),
}


@dataclass
class Binary:
    """A fitted binary regression.

    Attributes:
        coefficients: (K) float.
        log_likelihood: Value at the fit.
        information: (K, K) expected information.
        scores: (N) derivative of each log-likelihood with respect to its linear predictor.
    """

    coefficients: Floats
    log_likelihood: float
    information: Floats
    scores: Floats


def fit_binary(
    design: Floats,
    hits: Bools,
    link: Link,
    asymptote: float = 1.0,
    offset: Floats | float = 0.0,
    start: Floats | None = None,
    strict: bool = True,
) -> Binary:
    """Fit P(hit) = asymptote · F(design · beta + offset) by Newton's method with step halving.

    With the asymptote 1 the log-likelihood is concave, and its observed curvature gives the step. The
    expected curvature vanishes where a steep curve is far from the data, as at a bound of nearly separated
    data, and its steps diverge there. With an asymptote below 1 the expected curvature is used (Fisher
    scoring).

    Args:
        design: (N, K) float.
        hits: (N) bool.
        link: F.
        asymptote: In (0, 1]; 1 is the plain regression.
        offset: Added to the linear predictor, (N) or a number.
        start: (K) initial coefficients; default zeros.
        strict: Whether a failure to converge is an error. With an asymptote below 1 the likelihood may rise
            towards a step function without reaching it; its value after the last step is then close enough.

    Raises:
        StatisticsError: No convergence.
    """
    log_top = math.log(asymptote)

    def evaluate(beta: Floats) -> tuple[float, Floats, Floats, Floats]:
        position = design @ beta + offset
        log_cdf, log_rest = link.log_cdf(position), link.log_cdf(-position)
        log_hit = log_top + log_cdf
        log_miss = log_rest if asymptote == 1 else np.log1p(-np.exp(log_hit))
        log_density = log_top + link.log_density(position, log_cdf, log_rest)
        with np.errstate(over='ignore'):  # overflow in the branch that `where` discards
            scores = np.where(hits, np.exp(log_density - log_hit), -np.exp(log_density - log_miss))
        weights = np.exp(2 * log_density - log_hit - log_miss)
        own = asymptote == 1 and link.curvature is not None
        curved = link.curvature(scores, position) if own and link.curvature else weights
        return float(np.where(hits, log_hit, log_miss).sum()), scores, weights, curved

    def fitted() -> Binary:
        return Binary(beta, current, (design * weights[:, None]).T @ design, scores)

    beta = np.zeros(design.shape[1]) if start is None else start
    current, scores, weights, curved = evaluate(beta)
    for _ in range(STEPS):
        gradient = design.T @ scores
        step = _newton_step((design * curved[:, None]).T @ design, gradient)
        if gradient @ step < 1e-14 * max(1.0, abs(current)):  # Newton decrement
            return fitted()
        while (proposed := evaluate(beta + step))[0] < current and abs(step).max() > 1e-12:
            step = step / 2
        if not np.isfinite(proposed[0]):
            break
        beta, (current, scores, weights, curved) = beta + step, proposed
    if strict:
        raise StatisticsError('the fit did not converge')
    return fitted()


def _newton_step(information: Floats, gradient: Floats) -> Floats:
    """Solve information · step = gradient; with several solutions, return the shortest step.

    A profile needs thousands of fits with one coefficient, so this case has a fast path.
    """
    if gradient.size == 1:
        return gradient / information[0] if information[0, 0] else np.zeros_like(gradient)
    return np.asarray(np.linalg.lstsq(information, gradient)[0], float)


def _orthogonal(direction: Floats) -> Floats:
    """Return an orthonormal basis (K, K - 1) of the space orthogonal to a direction (K)."""
    if direction.size == 2:
        turned = np.array([-direction[1], direction[0]])
        return (turned / math.hypot(*turned))[:, None]
    return np.asarray(np.linalg.svd(direction[None])[2][1:].T, float)


class Likelihood:
    """Likelihood of a binary regression around its maximum.

    Args:
        design: (N, K) float, not separated (see `separated`), so that every level set of the likelihood is
            bounded and every bound is finite.
        hits: (N) bool.
        link: Link of the regression.
        clusters: (N) cluster of each row, int from 0, or None.
    """

    def __init__(self, design: Floats, hits: Bools, link: Link, clusters: Ints | None = None) -> None:
        self.design, self.hits, self.link, self.clusters = design, hits, link, clusters
        self.fit = fit_binary(design, hits, link)
        self.best, self.maximum = self.fit.coefficients, self.fit.log_likelihood

    def ratio(self, direction: Floats, value: float) -> float:
        """Return the likelihood-ratio statistic of the hypothesis direction·beta = value."""
        particular = direction * value / (direction @ direction)
        free = _orthogonal(direction)
        constrained = fit_binary(
            self.design @ free,
            self.hits,
            self.link,
            offset=self.design @ particular,
            start=free.T @ self.best,
        )
        return 2 * (self.maximum - constrained.log_likelihood)

    def design_effect(self, direction: Floats) -> float:
        """Return cluster-robust over plain variance of direction·beta, at least 1; 1 without clusters."""
        if self.clusters is None:
            return 1.0
        scores = self.design * self.fit.scores[:, None]
        sums = np.stack([np.bincount(self.clusters, column) for column in scores.T])  # (K, clusters)
        influence = np.linalg.solve(self.fit.information, direction) @ sums
        plain = direction @ np.linalg.solve(self.fit.information, direction)
        count = sums.shape[1]
        return float(max(1.0, count / max(count - 1, 1) * (influence**2).sum() / plain))

    def bounds(self, direction: Floats, criterion: float) -> tuple[float, float, float]:
        """Return the estimate of direction·beta, and the values on both sides with a ratio of `criterion`."""
        estimate = float(direction @ self.best)
        step = float(np.sqrt(criterion * direction @ np.linalg.solve(self.fit.information, direction)))
        low, high = (
            root_above(0.0, partial(self._excess, direction, estimate, sign, criterion), 1.2 * step)
            for sign in (-1, 1)
        )
        return estimate, estimate - low, estimate + high

    def _excess(
        self, direction: Floats, estimate: float, sign: int, criterion: float, distance: float
    ) -> float:
        """Return the ratio minus the criterion at a distance from the estimate."""
        return self.ratio(direction, estimate + sign * distance) - criterion

    def asymptote(self, criterion: float) -> tuple[float, float, float]:
        """Fit an upper asymptote as third parameter.

        Args:
            criterion: Likelihood ratio at the lower bound.

        Returns:
            The asymptote in (0, 1], its lower bound, and the likelihood-ratio statistic of the asymptote 1.
        """

        def profile(top: float) -> float:
            return self._below(top).log_likelihood

        lowest = max(0.02, 0.5 * float(self.hits.mean()))
        found = optimize.minimize_scalar(
            lambda top: -profile(top), bounds=(lowest, 1 - 1e-6), method='bounded', options=dict(xatol=1e-3)
        )
        best, highest = 1.0, self.maximum
        if profile(float(found.x)) > highest:
            best, highest = float(found.x), profile(float(found.x))

        def excess(top: float) -> float:
            return 2 * (highest - profile(top)) - criterion

        low = optimize.brentq(excess, lowest, best, xtol=1e-3) if excess(lowest) > 0 else lowest
        return best, float(low), 2 * (highest - self.maximum)

    def _below(self, asymptote: float) -> Binary:
        if asymptote >= 1:
            return self.fit
        return fit_binary(self.design, self.hits, self.link, asymptote, start=self.best, strict=False)


def root_above(start: float, excess: Callable[[float], float], step: float = 0.25) -> float:
    """Return the root of `excess` above `start`: it is negative at `start` and positive somewhere above."""
    while excess(start + step) < 0:
        step *= 2
    return float(optimize.brentq(excess, start, start + step, xtol=1e-9))


def separated(design: Floats, hits: Bools) -> bool:
    """Whether a plane separates hits from misses, touching allowed; then the likelihood has no maximum.

    Albert & Anderson, Biometrika 71, 1984; tested by linear programming (Konis, 2007).
    """
    signed = np.where(hits[:, None], design, -design)
    result = optimize.linprog(
        -signed.sum(0), A_ub=-signed, b_ub=np.zeros(hits.size), bounds=[(-1, 1)] * design.shape[1]
    )
    return result.fun is not None and bool(result.fun < -1e-7)


def hosmer_lemeshow(predicted: Floats, hits: Bools, groups: int = 10) -> tuple[float, int]:
    """Return the Hosmer-Lemeshow statistic over equal groups by predicted probability, and its freedom.

    Args:
        predicted: (N) probabilities.
        hits: (N) bool.
        groups: Number of groups; fewer if a group would hold fewer than five rows.
    """
    groups = max(3, min(groups, len(hits) // 5))
    statistic = 0.0
    for members in np.array_split(np.argsort(predicted, kind='stable'), groups):
        expected, size = float(predicted[members].sum()), len(members)
        spread = expected * (1 - expected / size) if size else 0.0
        if spread > 0:
            statistic += (float(hits[members].sum()) - expected) ** 2 / spread
    return statistic, groups - 2
