"""Checks of a decision: verdict, part and boxes must be usable as ground truth of the next training."""

from typing import Any

from projects.errors import MMXrayError
from projects.line.runtime.folder import Exported

from .items import LONGEST_PART, Item

VERDICTS = ('accept', 'reject', 'withdraw')  # 'withdraw' takes a decision back
MOST_BOXES = 1_000
MOST_FACTS = 20
LONGEST_FACT = 200  # characters


class ConflictError(MMXrayError, ValueError):
    """Somebody decided on the radiograph after the inspector saw it."""


def check_decision(
    exported: Exported, item: Item, verdict: str, boxes: list[dict], part: str, digest: str | None
) -> list[dict]:
    """Check an inspector's decision.

    Args:
        exported: The detector.
        item: The radiograph.
        verdict: 'accept', 'reject', or 'withdraw' for a decision taken back.
        boxes: The inspector's boxes, {box [x1, y1, x2, y2], label} each; empty on an unreadable radiograph.
        part: Id of the physical part.
        digest: SHA-256 of the file that the inspector saw; None for the item's present file.

    Returns:
        The boxes, with a score of None.

    Raises:
        ValueError: The verdict, part, a label or a box is invalid; the part is accepted with a rejecting box
            or rejected without one; or the decision is on another file.
    """
    if item.state == 'waiting':
        raise ValueError('this radiograph has not been inspected')
    if digest not in (None, item.digest):
        raise ValueError('this is not the radiograph that was decided on: open it again')
    if verdict not in VERDICTS:
        raise ValueError("expected a verdict of 'accept', 'reject' or 'withdraw'")
    if verdict == 'withdraw' and not item.decision:
        raise ValueError('there is no decision to withdraw')
    if len(part) > LONGEST_PART:
        raise ValueError(f'expected a part of at most {LONGEST_PART} characters')
    if len(boxes) > MOST_BOXES:
        raise ValueError(f'expected at most {MOST_BOXES} boxes, found {len(boxes)}')
    if item.state == 'unreadable' and boxes:
        raise ValueError('expected no boxes on a radiograph that cannot be read')
    if item.state == 'unreadable' or verdict == 'withdraw':
        return []
    kept = [_checked_box(exported, item, verdict, entry) for entry in boxes]
    if verdict == 'reject' and not any(exported.classes[b['label']] in exported.rejecting for b in kept):
        raise ValueError(
            f'expected a box of {" or ".join(exported.rejecting)} around what rejects the part: draw it, '
            'or lower the threshold until it shows'
        )
    return kept


def _checked_box(exported: Exported, item: Item, verdict: str, entry: dict) -> dict:
    label, box = entry.get('label'), entry.get('box')
    # JSON numbers only: a numeric string is a fault of the client, and `true` is not a number.
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) for v in box):
        raise ValueError('expected boxes of four numbers')
    if type(label) is not int or not 0 <= label < len(exported.classes):
        raise ValueError('expected a label of a class')
    if verdict == 'accept' and exported.classes[label] in exported.rejecting:
        raise ValueError(f'a {exported.classes[label]} defect is still marked: take its box away, or reject')
    height, width = item.size
    x1, y1, x2, y2 = map(float, box)
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ValueError(f'expected boxes within {width} x {height} px')
    return dict(box=[x1, y1, x2, y2], label=label, score=None)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -1e9 < value < 1e9  # nan is not


def check_facts(viewed: dict[str, Any]) -> dict[str, Any]:
    """Check a page's facts on how a radiograph was viewed: names with numbers, short texts or booleans.

    Raises:
        ValueError: There are too many facts, or one is too long or of another type.
    """
    for key, value in viewed.items():
        plain = _is_number(value) or type(value) is bool or isinstance(value, str)
        if not plain or len(key) > LONGEST_FACT or len(str(value)) > LONGEST_FACT:
            raise ValueError(
                f'viewed: expected numbers, short texts or true and false, found {str(key)[:40]!r}'
            )
    if len(viewed) > MOST_FACTS:
        raise ValueError(f'viewed: expected at most {MOST_FACTS} facts')
    return viewed
