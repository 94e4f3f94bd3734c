"""What a decision may be: a verdict, part and boxes that the next training can take for the truth."""

from projects.line.runtime.folder import Exported

from .items import LONGEST_PART, Item


def check_decision(
    exported: Exported, item: Item, verdict: str, boxes: list[dict], part: str, digest: str | None
) -> list[dict]:
    """Check what an inspector decided.

    Args:
        exported: The detector.
        item: The radiograph.
        verdict: 'accept' or 'reject'.
        boxes: What is there, {box [x1, y1, x2, y2], label} each.
        part: Id of the physical part.
        digest: Of the file that the inspector saw; None for what the item is now.

    Returns:
        The boxes, with a score of None.

    Raises:
        ValueError: A verdict, part, label or box that cannot be; a part accepted with a box that rejects
            it, or rejected without one; or the decision is on another file.
    """
    if item.state != 'found':
        raise ValueError('this radiograph has not been inspected')
    if digest not in (None, item.digest):
        raise ValueError('this is not the radiograph that was decided on: open it again')
    if verdict not in ('accept', 'reject'):
        raise ValueError("expected a verdict of 'accept' or 'reject'")
    if len(part) > LONGEST_PART:
        raise ValueError(f'expected a part of at most {LONGEST_PART} characters')
    kept = [_checked_box(exported, item, verdict, entry) for entry in boxes]
    if verdict == 'reject' and not any(exported.classes[b['label']] in exported.rejecting for b in kept):
        raise ValueError(
            f'expected a box of {" or ".join(exported.rejecting)} around what rejects the part: draw it, '
            'or lower the threshold until it shows'
        )
    return kept


def _checked_box(exported: Exported, item: Item, verdict: str, entry: dict) -> dict:
    label = entry.get('label')
    try:
        x1, y1, x2, y2 = (float(v) for v in entry.get('box', ()))
    except (TypeError, ValueError):
        raise ValueError('expected boxes of four numbers') from None
    if type(label) is not int or not 0 <= label < len(exported.classes):
        raise ValueError('expected a label of a class')
    if verdict == 'accept' and exported.classes[label] in exported.rejecting:
        raise ValueError(f'a {exported.classes[label]} defect is still marked: take its box away, or reject')
    height, width = item.size
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ValueError(f'expected boxes within {width} x {height} px')
    return dict(box=[x1, y1, x2, y2], label=label, score=None)
