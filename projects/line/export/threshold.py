"""The score from which a part is rejected."""

from collections.abc import Sequence

import numpy as np

from projects.line.runtime import Exported
from projects.measures.matching import CRITICAL, MeasureError, match_all
from projects.measures.parts import gather_parts, measure_parts, operating_point

from .parity import inspected


def choose_threshold(exported: Exported, truth: dict, found: Sequence[tuple], max_escape: float) -> None:
    """Set a folder's threshold and its curve from validation parts, by the rule of the runtime.

    A part is as bad as the highest score of its critical boxes. The study's report lets a box of any severity
    suppress those that it overlaps first; the runtime does not, see `Inspection.risk`.

    The highest threshold that these parts show the escape rate at, which is an estimate, as they also chose
    the model; where they are too few, the highest at which none of the critical parts that the detector can
    catch escapes.
    """
    try:
        parts = gather_parts(match_all(inspected(truth, found)))
    except MeasureError as error:
        exported.threshold_reason = f'0.5, not chosen: {error}'
        return
    risks = {part.part: [] for part in parts}
    for image, (_, scores, labels) in zip(truth['images'], found, strict=True):
        risks[str(image['part'])] += scores[labels == CRITICAL].tolist()
    for part in parts:
        part.score = max(risks[part.part], default=None)
    point = operating_point(parts, max_escape, of='validation')
    scores = [part.score for part in parts if part.truth == 'critical' and part.score is not None]
    if point.threshold is not None:
        exported.threshold, exported.threshold_reason = point.threshold, point.statement
    elif scores:
        exported.threshold = min(scores)
        exported.threshold_reason = f'{point.statement} Taken: the lowest score of a critical part.'
    else:
        exported.threshold_reason = f'0.5, not chosen: {point.statement}'
    # Down, so that rounding does not let the part escape whose score this is.
    exported.threshold = float(np.floor(exported.threshold * 1e4) / 1e4)
    for threshold in np.linspace(0.05, 1, 39).round(4).tolist():
        said = measure_parts(parts, threshold)
        exported.curve.append(
            dict(threshold=threshold, escape=said.escape.rate, false_reject=said.false_reject.rate)
        )
