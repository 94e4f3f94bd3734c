"""Fields common to label formats: text, numbers, flags, sizes, polygons and turned boxes."""

import math
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from projects.radiograph.safe_parse import MAX_JSON, FormatError, _show, decode_text, parse_json

MAX_TEXT = 8 * 2**20
"""Largest XML or text file."""

TURNED = 'turned box read as the upright box around it'
"""Text of the ledger for a turned box."""


def read_bytes(path: Path, limit: int = MAX_TEXT) -> bytes:
    """Return the content of a file of at most `limit` bytes.

    Raises:
        FormatError: the file is larger, or not readable.
    """
    try:
        if path.stat().st_size > limit:
            raise FormatError(f'at most {limit >> 20} MiB')
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f'a readable file ({error.strerror})') from None


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark, which is dropped.

    Raises:
        FormatError: the file is larger than `MAX_TEXT`, not readable, or in another encoding.
    """
    return decode_text(read_bytes(path), path.name)


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        FormatError: see `parse_json`; or the file holds another value.
    """
    value = parse_json(read_bytes(path, MAX_JSON))
    if not isinstance(value, dict):
        raise FormatError('a JSON object')
    return value


def numbers_of(values: Iterable, what: str) -> list[float]:
    """Return finite floats; else raise a FormatError that names `what`."""
    try:
        numbers = [float(v) for v in values]
    except (TypeError, ValueError, OverflowError):
        numbers = [math.nan]
    if not numbers or not all(math.isfinite(v) and abs(v) < 1e7 for v in numbers):
        raise FormatError(f'finite numbers for {what}, found {_show(values)}')
    return numbers


def label_of(value) -> str:
    """Return the name of a type, without surrounding blanks."""
    if not isinstance(value, str) or not value.strip():
        raise FormatError(f'a type name, found {_show(value)}')
    return value.strip()


def size_of(width, height) -> tuple[int, int] | None:
    """Return the size in px of the annotated image; None unless both are whole numbers above 0."""
    return (width, height) if all(type(v) is int and v > 0 for v in (width, height)) else None


def polygon_object(label: str, points: Sequence[float]) -> dict:
    """Return an object with a polygon x1 y1 x2 y2 … and the box around it."""
    xs, ys = points[::2], points[1::2]
    return dict(type=label, corners=[min(xs), min(ys), max(xs), max(ys)], segmentation=[list(points)])


def turned_object(label: str, points: Sequence[float]) -> dict:
    """Return an object with a turned box of four corners x1 y1 … x4 y4 and the upright box around it."""
    return polygon_object(label, points) | dict(repairs=(TURNED,))


def turn(x: float, y: float, width: float, height: float, degrees: float) -> list[float]:
    """Return the four corners of a box that is turned about its centre.

    Args:
        x: left border, px.
        y: upper border, px.
        width: in px.
        height: in px.
        degrees: clockwise, as seen in the image.

    Returns:
        x1 y1 … x4 y4, px.
    """
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    points = []
    for dx, dy in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        dx, dy = dx * width / 2, dy * height / 2
        points += [x + width / 2 + dx * cos - dy * sin, y + height / 2 + dx * sin + dy * cos]
    return [round(v, 3) for v in points]


def is_turned_box(points: Sequence[float]) -> bool:
    """Whether four corners x1 y1 … x4 y4 in px are a rectangle that is not parallel to the axes."""
    corners = np.reshape(points, (-1, 2))
    if len(corners) != 4:
        return False
    sides = np.roll(corners, -1, axis=0) - corners
    along = np.minimum(np.abs(sides[:, 0]), np.abs(sides[:, 1])).max()
    # The diagonals of a rectangle have the same middle and length. Tools round to whole px.
    middles = np.abs(corners[0] + corners[2] - corners[1] - corners[3]).max() / 2
    first, second = corners[2] - corners[0], corners[3] - corners[1]
    lengths = abs(np.hypot(*first) - np.hypot(*second))
    return bool(along > 1 and middles <= 1 and lengths <= 2)


def stem_of(name: str) -> str:
    """Return a file's name without folders and suffix."""
    return posixpath.splitext(posixpath.basename(name))[0]
