"""A verdict for other programs: one JSON object for the service, the watched folder and a broker."""

from datetime import UTC, datetime
from typing import Any

from projects.radiograph.image import ImagingError

from .inspector import Inspection, Inspector


def as_result(
    name: str, digest: str, outcome: Inspection | ImagingError, inspector: Inspector
) -> dict[str, Any]:
    """Return the findings of an inspection, or the reason why there are none, which is no acceptance.

    Args:
        name: The caller's name of the radiograph.
        digest: SHA-256 of its file; '' if unknown.
        outcome: Result of `Inspector.attempt`.
        inspector: The detector.

    Returns:
        `name`, `radiograph` (its SHA-256), `verdict` ('accept', 'reject' or 'unreadable'), `reason` why it is
        unreadable, `risk`, `boxes` {box [x1, y1, x2, y2] px, class, score} best first, `size` [height, width]
        px, `threshold`, `folder` (SHA-256 of the detector's folder), `engine`, `unusual` (score of the second
        opinion, or None), `flagged` (the second opinion asks an inspector to look at the radiograph, whatever
        the verdict), `seconds` of each stage, `time` (UTC). The boxes of a detector with masks also have
        `mask`, COCO's run lengths, and `area` in px².
    """
    result: dict[str, Any] = dict(
        name=name,
        radiograph=digest,
        verdict='unreadable',
        reason='',
        risk=None,
        boxes=[],
        size=None,
        threshold=inspector.threshold,
        folder=inspector.digest,
        engine=inspector.engine,
        unusual=None,
        flagged=False,
        seconds={},
        time=datetime.now(UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z'),
    )
    if isinstance(outcome, ImagingError):
        return result | dict(reason=str(outcome))
    boxes = [
        {'box': box, 'class': severity, 'score': score}
        for box, severity, score in zip(
            outcome.boxes.tolist(), outcome.severities, outcome.scores.tolist(), strict=True
        )
    ]
    for row, mask in zip(boxes, outcome.masks or []):
        row |= dict(mask=mask.rle(outcome.pixels.shape), area=mask.area)
    return result | dict(
        verdict=outcome.verdict,
        risk=outcome.risk,
        boxes=boxes,
        size=list(outcome.pixels.shape),
        unusual=outcome.unusual,
        flagged=outcome.flagged,
        seconds={stage: round(seconds, 6) for stage, seconds in outcome.seconds.items()},
    )
