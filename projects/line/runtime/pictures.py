"""A radiograph with its defects drawn on it."""

import cv2
import numpy as np

from projects.xray.classes import PALETTE

from .inspector import Inspection


def overlay(inspection: Inspection, threshold: float) -> np.ndarray:
    """Draw the boxes that count, with severity and score.

    Args:
        inspection: What an `Inspector` returned.
        threshold: Lowest score to draw.

    Returns:
        (H, W, 3) uint8, BGR as OpenCV writes it.
    """
    pixels = inspection.pixels
    gray = pixels // 257 if pixels.dtype == np.uint16 else np.clip(pixels, 0, 255)
    picture = cv2.cvtColor(gray.astype(np.uint8), cv2.COLOR_GRAY2BGR)
    size = max(max(pixels.shape) / 1600, 0.35)
    # Lowest score first, so that the worst defect lies on top.
    for k in np.flatnonzero(inspection.scores.astype(float) >= threshold)[::-1]:
        colour = tuple(reversed(PALETTE[inspection.labels[k] % len(PALETTE)]))
        x1, y1, x2, y2 = (round(float(v)) for v in inspection.boxes[k])
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, 1)
        text = f'{inspection.severities[k]} {inspection.scores[k]:.2f}'
        at = (x1, y1 - 3 if y1 > 12 else y2 + 12)
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
    return picture
