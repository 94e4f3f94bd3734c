"""Drawn plates with bright round defects."""

import numpy as np


def draw_radiograph(
    rng: np.random.Generator, size: int, defects: int
) -> tuple[np.ndarray, list[list[float]]]:
    """Draw a plate with bright round defects.

    Returns:
        Radiograph (size, size) float32 in [0, 1] and one box [x, y, w, h] in px per defect.
    """
    yy, xx = np.mgrid[:size, :size].astype(np.float32)
    image = 0.25 + 0.2 * xx / size + rng.normal(0, 0.01, (size, size)).astype(np.float32)
    boxes = []
    for _ in range(defects):
        a, b = rng.uniform(size / 16, size / 8, 2)
        cx, cy = rng.uniform(size / 8 + 1, size - size / 8 - 1, 2)
        image += 0.4 * np.clip(1 - ((xx - cx) / a) ** 2 - ((yy - cy) / b) ** 2, 0, None) ** 0.5
        boxes.append([round(float(v), 2) for v in (cx - a, cy - b, 2 * a, 2 * b)])
    return np.clip(image, 0, 1), boxes


def outline_of(box: list[float]) -> list[float]:
    """Return the polygon x1, y1, x2, … of the ellipse in a box [x, y, w, h]."""
    x, y, w, h = box
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    points = np.stack([x + w / 2 * (1 + np.cos(turn)), y + h / 2 * (1 + np.sin(turn))], 1)
    return [round(float(value), 2) for value in points.ravel()]
