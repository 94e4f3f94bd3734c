"""Benchmark of a data set's gray-level window: the estimate of the check beside the exact percentiles."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from projects.prepare.check_window import gray_levels
from projects.prepare.scan import Scans
from projects.radiograph.window import count_codes

SIDE = 512  # px; a power of two, as detectors have it
FULL = 4095  # of 12 bits


def draw_radiographs(folder: Path, count: int) -> np.ndarray:
    """Draw 12-bit radiographs of parts in front of air, each with a different exposure, and write them.

    Args:
        folder: Where the files go, as 16-bit PNG.
        count: How many.

    Returns:
        (65536,) int64, the number of pixels with each value in all radiographs.
    """
    rng, counts = np.random.default_rng(0), np.zeros(2**16, np.int64)
    for number in range(count):
        thick = cv2.resize(rng.random((6, 6), np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        margin = int(rng.integers(SIDE // 16, SIDE // 4))
        part = np.zeros((SIDE, SIDE), np.float32)
        part[margin:-margin, margin:-margin] = 0.3 + np.clip(thick, 0, 1)[margin:-margin, margin:-margin]
        image = 3600 * rng.uniform(0.8, 1) * np.exp(-1.5 * part)
        image += rng.standard_normal(image.shape, np.float32) * np.sqrt(image)
        pixels = np.clip(image, 0, FULL).astype(np.uint16)
        counts += count_codes(pixels)
        cv2.imwrite(str(folder / f'{number:06d}.png'), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return counts


def measure_levels(count: int) -> dict[str, float]:
    """Find the window of drawn radiographs with the method of the check, and the exact window.

    Returns:
        'images', the estimated 'low' and 'high', 'exact_low', 'exact_high', 'off' (the larger of the two
        differences, in gray levels of the exact window) and processor seconds 'cpu_s' with decoding.
    """
    with tempfile.TemporaryDirectory(prefix='benchmark-') as folder:
        counts = draw_radiographs(Path(folder), count)
        paths = sorted(map(str, Path(folder).iterdir()))
        begin = _processor()
        scans = Scans(dict.fromkeys(paths, dict(type='full')), 1, lambda done: None)
        found = gray_levels(paths, scans)
        cpu = _processor() - begin
    reached = np.cumsum(counts)
    exact = np.searchsorted(reached, np.array([0.005, 0.995]) * reached[-1])
    off = np.abs(np.array([found.low, found.high]) - exact).max() * 255 / (exact[1] - exact[0])
    return dict(
        images=count,
        low=found.low,
        high=found.high,
        exact_low=float(exact[0]),
        exact_high=float(exact[1]),
        off=float(off),
        cpu_s=cpu,
    )


def measure_all(counts: Sequence[int]) -> list[dict[str, float]]:
    """Return `measure_levels` of each count."""
    return [measure_levels(count) for count in counts]


def _processor() -> float:
    """Processor seconds of this process and of its finished child processes."""
    spent = os.times()
    return sum(spent[:4])


def levels_table(rows: list[dict[str, float]]) -> str:
    """Return the measurements as a table."""
    lines = ['window of a data set: images   found            exact            off by   processor s']
    for row in rows:
        found, exact = (
            f'{row[a]:.1f} to {row[b]:.1f}' for a, b in (('low', 'high'), ('exact_low', 'exact_high'))
        )
        lines.append(
            f'{row["images"]:28,}   {found:<16} {exact:<16} {row["off"]:.2f} gray {row["cpu_s"]:9.2f}'
        )
    return '\n'.join(lines)
