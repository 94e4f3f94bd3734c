import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from projects.measures.bounds import (
    StatisticsError,
)
from projects.measures.calibration import calibration, confusion


def test_calibration_by_hand():
    # two bins: (0, 0.5] holds 0.2 and 0.4, one right; (0.5, 1] holds 0.9 and 1.0, both right
    result = calibration([0.2, 0.4, 0.9, 1.0], [True, False, True, True], bins=2)
    assert result.counts == [2, 2]
    assert result.confidences == pytest.approx([0.3, 0.95])
    assert result.accuracies == [0.5, 1.0]
    assert result.error == pytest.approx(0.5 * 0.2 + 0.5 * 0.05)


def test_the_error_of_a_calibrated_model_of_that_size_stands_beside_it():
    """With 60 predictions a calibrated model has an error of 12 %, which alone reads as a bad one."""
    generator = np.random.default_rng(1)
    confidences = generator.uniform(0.5, 1, 60)
    result = calibration(confidences, generator.random(60) < confidences)
    assert result.error < result.high and 0.1 < result.expected < 0.14
    large = generator.uniform(0.5, 1, 20000)
    many = calibration(large, generator.random(20000) < large)
    assert many.expected < 0.015
    over = calibration(large, generator.random(20000) < 0.8 * large)
    assert over.error > over.high
    sure = calibration([1.0, 1.0], [True, True])
    assert (sure.error, sure.expected, sure.high) == (0, 0, 0)


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
