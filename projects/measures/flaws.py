"""Flaws gathered over several images for the probability of detection."""

from __future__ import annotations

import decimal
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .detection import FalseAlarms, count_false_alarms
from .images import CRITICAL, Floats, MeasureError
from .matching import HIT, Matched
from .pod import PodFit, fit_pod


def ceiled(bound: float) -> str:
    """Write the upper bound of a size with three digits, rounded up, since a smaller value is no bound."""
    context = decimal.Context(prec=3, rounding=decimal.ROUND_CEILING)
    return f'{float(context.create_decimal(repr(float(bound)))):.3g}'


@dataclass
class Flaw:
    """One physical flaw, or one box where the data do not identify flaws.

    Attributes:
        part: Part with the flaw; None when unknown.
        type: Defect type.
        size: Equivalent diameter in its largest view, in px or mm.
        contrast: Contrast or contrast-to-noise ratio in its best view; None when unknown.
        hit: Whether the flaw was found with the right severity in any view.
    """

    part: str | None
    type: str
    size: float
    contrast: float | None
    hit: bool


@dataclass
class Pod:
    """POD of one severity at one threshold, with the false calls at that threshold.

    Attributes:
        label: The severity.
        threshold: A flaw is a hit if a detection with a score at or above it finds it with the right
            severity.
        unit: Unit of the sizes, 'px' or 'mm'.
        rows: Meaning of a row of the fit: 'flaws' or 'boxes'.
        fit: The curve.
        false_calls: False calls of this severity per image.
    """

    label: int
    threshold: float
    unit: str
    rows: str
    fit: PodFit
    false_calls: FalseAlarms


def diameter_of(area: float) -> float:
    """Return the equivalent diameter: the diameter of a circle with the same area."""
    return 2 * math.sqrt(area / math.pi)


def size_ratios(matched: Sequence[Matched], threshold: float, label: int | None = None) -> Floats:
    """Return, for each hit, the equivalent diameter of the detected mask over that of the flaw.

    Args:
        matched: From `match_all`; hits without a mask are left out.
        threshold: Score threshold.
        label: The severity; None for all.

    Returns:
        (N) ratios, 1 where mask and flaw have the same size.
    """
    ratios = [np.empty(0)]
    for m in matched:
        hits = (m.codes == HIT) & (m.image.scores[m.kept] >= threshold)
        if label is not None:
            hits &= m.image.labels[m.kept] == label
        found, real = m.image.areas[m.kept[hits]], m.image.truth_areas[m.truths[hits]]
        ratios.append(np.sqrt(found / real)[np.isfinite(found)])
    return np.concatenate(ratios)


def flaws_known(matched: Sequence[Matched]) -> bool:
    """Whether every box names its part and physical flaw."""
    return all(
        m.image.part is not None and all(flaw is not None for flaw in m.image.truth_flaws)
        for m in matched
        if not m.defect_free
    )


def gather_flaws(
    matched: Sequence[Matched], threshold: float, label: int = CRITICAL, pixel_pitch: float | None = None
) -> list[Flaw]:
    """List the physical flaws of a severity with their sizes and whether they were found.

    If all boxes name their part and physical flaw, the views of a flaw make one row; else each box is a row.

    Args:
        matched: From `match_all`.
        threshold: Score threshold.
        label: The severity.
        pixel_pitch: mm per px at the part; None leaves sizes in px.
    """
    views: dict[tuple[object, object], list[tuple[Matched, int]]] = {}
    known = flaws_known(matched)
    for number, m in enumerate(matched):
        image = m.image
        for g in np.flatnonzero((image.truth_labels == label) & ~image.ignored).tolist():
            key = (str(image.part), image.truth_flaws[g]) if known else (number, g)
            views.setdefault(key, []).append((m, g))
    flaws = []
    for members in views.values():
        image, g = members[0][0].image, members[0][1]
        area = max(float(m.image.truth_areas[g]) for m, g in members)
        contrasts = [float(m.image.truth_contrasts[g]) for m, g in members]
        flaws.append(
            Flaw(
                part=None if image.part is None else str(image.part),
                type=image.truth_types[g],
                size=diameter_of(area) * (pixel_pitch or 1),
                contrast=max(contrasts) if np.isfinite(contrasts).all() else None,
                hit=bool(max(float(m.right_scores[g]) for m, g in members) >= threshold),
            )
        )
    return flaws


def measure_pod(
    matched: Sequence[Matched],
    threshold: float,
    label: int = CRITICAL,
    pixel_pitch: float | None = None,
    by_contrast: bool = False,
    log_size: bool | None = None,
) -> Pod:
    """Fit the POD curve of one severity, clustered by part where a part carries several flaws.

    Args:
        matched: From `match_all`.
        threshold: Score threshold.
        label: The severity.
        pixel_pitch: mm per px at the part; None leaves sizes in px.
        by_contrast: Fit against size and contrast (or contrast-to-noise ratio); in a radiograph, contrast
            matters as much as size.
        log_size: See `pod.fit_pod`.

    Raises:
        MeasureError: No flaw of this severity, or `by_contrast` and a flaw without contrast.
    """
    flaws = gather_flaws(matched, threshold, label, pixel_pitch)
    if not flaws:
        raise MeasureError(f'no flaw with label {label}, so there is no POD to measure')
    contrasts = [flaw.contrast for flaw in flaws if flaw.contrast is not None]
    if by_contrast and len(contrasts) < len(flaws):
        raise MeasureError('flaws without a contrast; POD against contrast needs generated data')
    parts = [flaw.part for flaw in flaws]
    clustered = None not in parts and len(set(parts)) < len(parts)
    fit = fit_pod(
        sizes=[flaw.size for flaw in flaws],
        hits=[flaw.hit for flaw in flaws],
        contrasts=contrasts if by_contrast else None,
        parts=parts if clustered else None,
        log_size=log_size,
    )
    known = flaws_known(matched)
    if not known:
        fit.problems.append(_name_rows(matched, label, len(flaws)))
    if None in parts:
        fit.problems.append(
            'no proof: parts not known; flaws are taken as independent, which makes the bound too narrow: '
            'give every image its `part` (convert_dataset.py --group)'
        )
    return Pod(
        label=label,
        threshold=float(threshold),
        unit='px' if pixel_pitch is None else 'mm',
        rows='flaws' if known else 'boxes',
        fit=fit,
        false_calls=count_false_alarms(matched, threshold, label),
    )


def _name_rows(matched: Sequence[Matched], label: int, boxes: int) -> str:
    """Return a line on the meaning of the rows where the data do not identify flaws."""
    views: dict[str, int] = {}
    for m in matched:
        if ((m.image.truth_labels == label) & ~m.image.ignored).any():
            name = str(m.image.part)
            views[name] = views.get(name, 0) + 1
    several = sum(count > 1 for part, count in views.items() if part != 'None')
    if several:
        return (
            f'sightings, not flaws: each box is a row ({boxes}), and {several} parts have several views; '
            'give each box its `flaw`'
        )
    return f'each box is a row ({boxes}), which assumes one box per flaw; give each box its `flaw`'
