"""A radiograph with its defects drawn on it."""

import cv2
import numpy as np

from projects.xray.classes import PALETTE

from .inspector import Inspection

_GAP = 3
"""Pixels around a label."""


def overlay(inspection: Inspection, threshold: float, line: int = 1) -> np.ndarray:
    """Draw boxes and masks that count, with severity and score; labels of overlapping boxes lie side by side.

    Args:
        inspection: What an `Inspector` returned.
        threshold: Lowest score to draw.
        line: Width of a box's sides, px.

    Returns:
        (H, W, 3) uint8, BGR as OpenCV writes it.
    """
    pixels = inspection.pixels
    gray = pixels // 257 if pixels.dtype == np.uint16 else np.clip(pixels, 0, 255)
    picture = cv2.cvtColor(gray.astype(np.uint8), cv2.COLOR_GRAY2BGR)
    size = max(max(pixels.shape) / 1600, 0.35)
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
    taken: list[tuple[int, int, int, int]] = []
    # Highest score first: the worst defect has its label at its own box.
    for k, box, colour in zip(shown, boxes, colours):
        text = f'{inspection.severities[k]} {inspection.scores[k]:.2f}'
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        room = width + 2 * _GAP, height + below + 2 * _GAP
        left, top = place_label(box, room, picture.shape[1::-1], taken)
        taken.append((left, top, left + room[0], top + room[1]))
        cv2.rectangle(picture, (left, top), (left + room[0] - 1, top + room[1] - 1), (0, 0, 0), cv2.FILLED)
        at = left + _GAP, top + _GAP + height
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
    return picture


def place_label(
    box: list[int], room: tuple[int, int], picture: tuple[int, int], taken: list[tuple[int, int, int, int]]
) -> tuple[int, int]:
    """Where a label goes: above its box, else below it or beside it, else the next free line.

    Args:
        box: x1, y1, x2, y2, px.
        room: Width and height of the label, px.
        picture: Width and height of the picture, px.
        taken: Labels that are there already, x1, y1, x2, y2.

    Returns:
        Left and upper border of the label, px, within the picture. Where nothing is free it covers another.
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

    def is_free(x: int, y: int) -> bool:
        return all(x + width <= a or x >= c or y + height <= b or y >= d for a, b, c, d in taken)

    return next((spot for spot in inside if is_free(*spot)), inside[0])
