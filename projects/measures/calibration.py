"""Calibration of a classifier's probabilities, and its confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bounds import StatisticsError
from .images import Bools, Floats

DRAWS = 1000  # simulated calibrated models


@dataclass
class Calibration:
    """Expected calibration error and the bins of its reliability diagram.

    The error is never zero: with few predictions the share of correct predictions differs from the confidence
    by chance. `expected` and `high` state the error of a calibrated model.

    Attributes:
        error: Mean |accuracy - confidence| over bins, weighted by their counts, in [0, 1].
        expected: Mean error of a calibrated model with these confidences.
        high: 95 % quantile of the error of such models.
        counts: Predictions per bin.
        confidences: Mean confidence per bin; None in an empty bin.
        accuracies: Share of correct predictions per bin; None in an empty bin.
    """

    error: float
    expected: float
    high: float
    counts: list[int]
    confidences: list[float | None]
    accuracies: list[float | None]


def calibration(
    confidences: Sequence[float] | Floats, correct: Sequence[bool] | Bools, bins: int = 15, seed: int = 0
) -> Calibration:
    """Return the expected calibration error over equal-width bins (Guo et al., ICML 2017, eq. 3).

    The result also holds the error of a calibrated model with the same confidences. In `DRAWS` simulations,
    each prediction is correct with a probability equal to its confidence (Bröcker & Smith, Weather and
    Forecasting 22, 2007).

    Args:
        confidences: (N) probability of the predicted class, in [0, 1].
        correct: (N) whether the prediction is correct.
        bins: Number of bins over [0, 1], each closed on its right.
        seed: Seed of the draws.

    Raises:
        StatisticsError: No predictions, unequal lengths, or confidences outside [0, 1] or nan.
    """
    confidence, right = np.asarray(confidences, float), np.asarray(correct, bool)
    if confidence.shape != right.shape or confidence.ndim != 1 or not confidence.size:
        raise StatisticsError(
            f'expected as many confidences as outcomes, got {confidence.shape} and {right.shape}'
        )
    if not ((confidence >= 0) & (confidence <= 1)).all():  # False for nan
        raise StatisticsError('confidences must lie in [0, 1]; give probabilities, not logits')
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    confidence_sums = np.bincount(index, confidence, bins)
    correct_sums = np.bincount(index, right, bins)
    generator = np.random.default_rng(seed)
    drawn = [
        abs(
            confidence_sums
            - np.bincount(index[generator.random(confidence.size) < confidence], minlength=bins)
        ).sum()
        / confidence.size
        for _ in range(DRAWS)
    ]
    return Calibration(
        error=float(abs(confidence_sums - correct_sums).sum() / confidence.size),
        expected=float(np.mean(drawn)),
        high=float(np.quantile(drawn, 0.95)),
        counts=counts.tolist(),
        confidences=[s / n if n else None for s, n in zip(confidence_sums.tolist(), counts.tolist())],
        accuracies=[s / n if n else None for s, n in zip(correct_sums.tolist(), counts.tolist())],
    )


def confusion(truth: Sequence[int], predicted: Sequence[int], classes: int) -> list[list[int]]:
    """Return the confusion matrix: rows are true classes, columns are predicted classes.

    Raises:
        StatisticsError: Unequal lengths, or a label outside 0..classes - 1.
    """
    rows, columns = np.asarray(truth, int), np.asarray(predicted, int)
    if rows.shape != columns.shape or not ((rows >= 0) & (rows < classes)).all():
        raise StatisticsError(f'expected one true label below {classes} per prediction')
    if not ((columns >= 0) & (columns < classes)).all():
        raise StatisticsError(f'expected predicted labels below {classes}')
    matrix: list[list[int]] = (
        np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes).tolist()
    )
    return matrix
