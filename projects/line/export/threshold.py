"""The threshold of an exported detector: the score from which a part is rejected."""

from collections.abc import Sequence

import numpy as np

from projects.line.runtime import Exported
from projects.measures.images import MeasureError
from projects.measures.matching import match_all
from projects.measures.parts import gather_parts, measure_parts
from projects.measures.proof import choose_threshold as choose_part_threshold

from .parity import inspected


def choose_threshold(exported: Exported, truth: dict, found: Sequence[tuple], max_escape: float) -> None:
    """Set a folder's threshold and its curve from validation parts.

    The report chooses its threshold by the same rule: the highest threshold with a sufficient predictive
    probability of proof on a test set of as many critical parts.
    """
    try:
        parts = gather_parts(match_all(inspected(truth, found)))
    except MeasureError as error:
        exported.threshold_reason = f'0.5, not chosen; no proof: {error}'
        return
    choice = choose_part_threshold(parts, max_escape, of='validation')
    if choice.threshold is None:
        exported.threshold_reason = f'0.5, not chosen: {choice.statement}'
    else:
        exported.threshold, exported.threshold_reason = choice.threshold, choice.statement
    false_reject = measure_parts(parts, exported.threshold).false_reject
    if false_reject.units:
        exported.cost = dict(
            rejected=false_reject.events,
            sound=false_reject.units,
            rate=false_reject.rate,
            upper=false_reject.upper,
            confidence=false_reject.confidence,
        )
    for threshold in np.linspace(0.05, 1, 39).round(4).tolist():
        measures = measure_parts(parts, threshold)
        row: dict = dict(threshold=threshold)
        for key, rate in (('escape', measures.escape), ('false_reject', measures.false_reject)):
            row |= {
                key: rate.rate,
                f'{key}_events': rate.events,
                f'{key}_units': rate.units,
                f'{key}_upper': rate.upper,
                f'{key}_words': str(rate),
            }
        exported.curve.append(row)
