"""A radiograph with its defects drawn on it."""

from collections.abc import Sequence

import cv2
import numpy as np

from projects.xray.classes import PALETTE

from .inspector import Inspection

_GAP = 3
"""Pixels around a label."""


def overlay(inspection: Inspection, threshold: float, line: int = 1) -> np.ndarray:
    """Draw boxes and masks at or above the threshold, with severity and score; labels do not overlap.

    Args:
        inspection: Result of an `Inspector`.
        threshold: Lowest score to draw.
        line: Line width of a box, px.

    Returns:
        (H, W, 3) uint8, BGR as OpenCV writes it.
    """
    pixels = inspection.pixels
    gray = pixels // 257 if pixels.dtype == np.uint16 else np.clip(pixels, 0, 255)
    picture = cv2.cvtColor(gray.astype(np.uint8), cv2.COLOR_GRAY2BGR)
    shown = np.flatnonzero(inspection.scores.astype(float) >= threshold)
    colours = [tuple(reversed(PALETTE[inspection.labels[k] % len(PALETTE)])) for k in shown]
    boxes = [[round(float(v)) for v in inspection.boxes[k]] for k in shown]
    # Lowest score first, so that the worst defect lies on top.
    for (x1, y1, x2, y2), colour in reversed(list(zip(boxes, colours))):
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, line)
    masks = inspection.masks or []
    for mask, colour in [(masks[k], colour) for k, colour in zip(shown, colours)][::-1] if masks else []:
        for outline in mask.outlines():
            cv2.polylines(picture, [np.rint(outline).astype(np.int32)], True, colour, 1)
    texts = [f'{inspection.severities[k]} {inspection.scores[k]:.2f}' for k in shown]
    _name(picture, list(zip(boxes, texts, colours, strict=True)))
    return picture


def _name(picture: np.ndarray, rows: list[tuple[list[int], str, tuple[int, ...]]]) -> None:
    """Write the label of each box, highest score first: the worst defect's label is at its own box."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, max(max(picture.shape) / 1600, 0.35)
    taken: list[tuple[int, int, int, int]] = []
    for k, (box, text, colour) in enumerate(rows):
        (width, height), below = cv2.getTextSize(text, font, size, 1)
        room = width + 2 * _GAP, height + below + 2 * _GAP
        others = [other for j, (other, _, _) in enumerate(rows) if j != k]
        place = place_label(box, room, picture.shape[1::-1], taken, others)
        if place is None:
            continue  # overlapping labels are unreadable; the box still has the colour of its class
        left, top = place
        taken.append((left, top, left + room[0], top + room[1]))
        at = left + _GAP, top + _GAP + height
        # A halo instead of a plate, which would cover the radiograph behind it.
        for line, drawn in ((3, (0, 0, 0)), (1, colour)):
            cv2.putText(picture, text, at, font, size, drawn, line, cv2.LINE_AA)


def place_label(
    box: list[int],
    room: tuple[int, int],
    picture: tuple[int, int],
    taken: list[tuple[int, int, int, int]],
    others: Sequence[Sequence[int]] = (),
) -> tuple[int, int] | None:
    """Place a label above its box, else below or beside the box, else in the next free line; as on the page.

    Args:
        box: x1, y1, x2, y2, px.
        room: Width and height of the label, px.
        picture: Width and height of the picture, px.
        taken: Labels already placed, x1, y1, x2, y2; the label never covers them.
        others: The other boxes; the label avoids them if possible.

    Returns:
        Left and upper border of the label, px, within the picture; None if no place is free.
    """
    x1, y1, x2, y2 = box
    width, height = room
    lines = range(0, max(picture[1] - height, 0) + 1, height)
    spots = [(x1, y1 - height), (x1, y2 + 1), (x2 + 1, y1), (x1 - width, y1)]
    spots += sorted(((x1, y) for y in lines), key=lambda spot: abs(spot[1] - y1))
    inside = [
        (min(max(x, 0), max(picture[0] - width, 0)), min(max(y, 0), max(picture[1] - height, 0)))
        for x, y in spots
    ]

    def is_off(all_: Sequence[Sequence[int]], x: int, y: int) -> bool:
        return all(x + width <= a or x >= c or y + height <= b or y >= d for a, b, c, d in all_)

    free = [spot for spot in inside if is_off(taken, *spot)]
    return next((spot for spot in free if is_off(others, *spot)), free[0] if free else None)
