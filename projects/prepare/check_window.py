"""Gray levels of a data set, and the fit of its window."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from projects.radiograph.quantiles import GraySketch

from .findings import ERROR, WARNING, Finding, ImageSet
from .scan import Scans


@dataclass
class GrayLevels:
    """Gray levels of a set of images.

    Attributes:
        histogram: (256,) counts after windowing.
        mean: mean of the windowed gray levels.
        std: standard deviation of the windowed gray levels.
        low: 0.5th percentile of an equal sample of pixels all over each image, in the file's units; nan if
            all images come from a packed store, which are windowed already.
        high: 99.5th percentile.
    """

    histogram: np.ndarray
    mean: float
    std: float
    low: float
    high: float


def gray_levels(paths: Iterable[str], scans: Scans) -> GrayLevels | None:
    """Sum up the gray levels of images; None if no image is readable."""
    good = [path for path in paths if not scans[path].error]
    if not good:
        return None
    histogram, sketch = np.zeros(256, np.int64), GraySketch()
    for path in good:
        histogram += scans.histogram(path)
        if scans[path].format != 'store':
            sketch.add(scans.sample(path))
    share, level = histogram / histogram.sum(), np.arange(256)
    mean = float((share * level).sum())
    low, high = sketch.percentiles([0.5, 99.5]) if len(sketch) else (math.nan, math.nan)
    return GrayLevels(histogram, mean, math.sqrt(float((share * (level - mean) ** 2).sum())), low, high)


def check_windows(sets: Sequence[ImageSet], levels: dict[str, GrayLevels | None]) -> list[Finding]:
    """Check that all sets have one window, and that it neither wastes nor cuts the gray scale.

    Args:
        sets: all sets.
        levels: see `gray_levels`, by set name.
    """
    findings = []
    if not sets:
        return findings
    for s in sets[1:]:
        if s.window != sets[0].window:
            findings.append(
                Finding(
                    ERROR,
                    'window',
                    f'{s.name} is loaded with {s.window}, {sets[0].name} with {sets[0].window}',
                    'give every LoadXray the same window: xray_load in configs/_base_/xray_runtime.py',
                )
            )
    first = levels.get(sets[0].name)
    if first is None:
        return findings
    share = np.cumsum(first.histogram) / first.histogram.sum()
    span = int(np.searchsorted(share, 0.995) - np.searchsorted(share, 0.005))
    cut = float(first.histogram[[0, 255]].sum() / first.histogram.sum())
    window = suggested_window(first)
    suggestion = (
        f'window={window} in xray_load' if window else 'pack the images again with a --window that fits them'
    )
    if span < 64:
        findings.append(
            Finding(
                WARNING,
                'window',
                f'{sets[0].name}: 99 % of the pixels fill {span + 1} of 256 gray levels',
                suggestion,
            )
        )
    elif cut > 0.05 and sets[0].window['type'] != 'full':
        findings.append(
            Finding(WARNING, 'window', f'{sets[0].name}: the window cuts {cut:.0%} of the pixels', suggestion)
        )
    return findings


def suggested_window(levels: GrayLevels) -> dict | None:
    """Return one absolute window for the whole set, as in `window.dataset_window`: 0.5 to 99.5 %."""
    low, high = levels.low, levels.high
    if math.isnan(low):
        return None
    if high - low > 20:
        low, high = math.floor(low), math.ceil(high)
    return dict(type='absolute', low=low, high=high)
