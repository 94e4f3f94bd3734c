"""One generated radiograph: a part with its flaws, projected, exposed and digitised."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from .defects import STEP, _add_flaw
from .parts import FAMILIES, Flaw, Part
from .physics import (
    PITCH,
    SPECTRA,
    Spectrum,
    _clouds,
    add_noise,
    add_scatter,
    digitise,
    geometric_blur,
    transmission,
)
from .projection import Pose, make_pose, path_lengths

# Below either of these a defect is left out of the picture and of the annotation: see `_draw_flaw`.
MIN_CONTRAST = 0.02


MIN_DETECTABILITY = 10.0


# A pixel belongs to the footprint where the path changes by this share of the defect's largest change.
FOOTPRINT = 0.15


def make_part(seed: int | Sequence[int], types: Sequence[str] = (), size: int = 1024) -> Part:
    """Draw a casting, its defects and its exposure.

    Args:
        seed: Whatever identifies the part.
        types: Defect types wanted; one that finds no room is left out.
        size: Pixels of the detector, which set the field of view (size·PITCH mm) and the part's scale.

    Returns:
        Positions in mm about the centre of the field.
    """
    rng = np.random.default_rng(seed)
    field_of_view = size * PITCH
    scale = (field_of_view / 128) ** 0.4
    material = 'iron' if rng.random() < 0.25 else 'aluminium'
    thick = scale * (rng.uniform(10, 24) if material == 'iron' else rng.uniform(18, 46))
    family = FAMILIES[rng.integers(len(FAMILIES))]
    features, tubes = family(rng, field_of_view * rng.uniform(0.75, 1.35), thick)
    # taper up to 10 % over the field, uneven walls of 1 to 3 %
    y, x = np.mgrid[-1:1:256j, -1:1:256j].astype(np.float32)
    direction, taper = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.1)
    relief = 1 + taper * (x * np.cos(direction) + y * np.sin(direction))
    relief += rng.uniform(0.006, 0.02) * _clouds(rng, 256, (6, 12, 24))
    relief += rng.uniform(0.002, 0.008) * _clouds(rng, 256, (96, 160))
    fillet = scale * float(np.exp(rng.uniform(np.log(0.15), np.log(1.0))))
    exposure = dict(
        quanta=float(np.exp(rng.uniform(np.log(2.5e3), np.log(3e4)))),
        spr=rng.uniform(0.2, 1.2),
        unsharpness=rng.uniform(0.5, 1.4),
        saturated='flash' not in types and rng.random() < 0.45,
        shading=rng.uniform(0.05, 0.15),
        blur=rng.uniform(0.4, 0.7),
        electronic=rng.uniform(3, 20),
        offset=rng.uniform(0.01, 0.05),
    )
    part = Part(
        material,
        field_of_view,
        features,
        tubes,
        fillet,
        relief.astype(np.float32),
        exposure,
    )
    reference = path_lengths(part, make_pose(), 256, field_of_view / 256)
    taken = []
    for name in types:
        _add_flaw(rng, part, name, reference, taken)
    return part


# --------------------------------------------------------------------------------------------- views


@dataclass(frozen=True)
class Defect:
    """A defect as seen in one view.

    Attributes:
        type: A key of classes.CASTINGS.
        bbox: x, y, width, height in pixels, the tight rectangle of the footprint.
        mask: bool (height, width), the footprint inside the box.
        contrast: max |N_with / N_without - 1| of the expected signals, scatter included.
        flaw: Which of its part's flaws it is, the same in every view.
    """

    type: str
    bbox: tuple
    mask: np.ndarray
    contrast: float
    flaw: int


class Radiograph(NamedTuple):
    """Pixels (H, W), uint8 or uint16, and the defects to be seen in them."""

    pixels: np.ndarray
    defects: list


def _project_path(
    flaw: Flaw, pose: Pose, magnified: float, centre: np.ndarray, shape: tuple, depth: float
) -> np.ndarray:
    """Project a flaw's path in the beam onto the detector, leaning with the view.

    Args:
        flaw: Has `path`, mm on a grid of STEP mm.
        pose: The view.
        magnified: Magnification at the flaw's height.
        centre: (2,) x, y of the flaw's middle, px from the corner of the window.
        shape: Width and height of the window, px.
        depth: Factor on the defect's extent along the beam.

    Returns:
        float32 (height, width) mm.
    """
    turn = np.array([[np.cos(flaw.angle), -np.sin(flaw.angle)], [np.sin(flaw.angle), np.cos(flaw.angle)]])
    forward = pose.matrix @ turn * (magnified * STEP / PITCH)
    middle = (flaw.path.shape[0] - 1) / 2
    offset = centre - forward @ (middle, middle)
    path = cv2.warpAffine(flaw.path, np.hstack([forward, offset[:, None]]), shape, flags=cv2.INTER_LINEAR)
    if depth != 1:
        path *= np.float32(depth)
    smear = pose.lean * flaw.extent / PITCH
    steps = int(np.ceil(np.hypot(*smear)))
    if steps > 1:
        kernel = np.zeros((2 * steps + 1,) * 2, np.float32)
        for share in np.linspace(-0.5, 0.5, 2 * steps + 1):
            column, row = np.rint(smear * share + steps).astype(int)
            kernel[row, column] += 1
        path = cv2.filter2D(path, -1, kernel / kernel.sum())
    return path


def _draw_flaw(
    thickness: np.ndarray,
    part: Part,
    number: int,
    pose: Pose,
    spectrum: Spectrum,
    full: float,
    depth: float = 1.0,
) -> Defect | None:
    """Draw a defect into the thickness map, in its window only.

    The path is missing from metal that is there (never more than 95 % of it, except for a misrun) and added
    metal lies where it lies. A defect that is off the metal or of negligible effect in this view is left out,
    so that what is annotated can be seen and what can be seen is annotated: its peak contrast must reach
    MIN_CONTRAST and its detectability d' = sqrt(sum (dN)² / N), the signal-to-noise ratio of an ideal
    observer of a known signal in white noise, MIN_DETECTABILITY.

    Args:
        thickness: float32 (H, W) mm; changed in place where the defect is drawn.
        part: Has the flaw, and its exposure.
        number: Of the flaw in `part.flaws`.
        pose: The view.
        spectrum: The beam.
        full: Signal that saturates the detector, as a share of the unattenuated quanta.
        depth: Factor on the defect's extent along the beam.

    Returns:
        What was drawn.
    """
    flaw, exposure = part.flaws[number], part.exposure
    size = thickness.shape[0]
    x, y, z = flaw.position
    magnified = pose.distance / (pose.distance - z)
    centre = pose.project(np.array([[x, y]]), z)[0] / PITCH + (size - 1) / 2
    reach = int(np.ceil(flaw.path.shape[0] * 0.75 * STEP / PITCH * magnified)) + 4
    left, top = (int(round(c)) - reach for c in centre)
    x0, y0, x1, y1 = (
        max(left, 0),
        max(top, 0),
        min(left + 2 * reach + 1, size),
        min(top + 2 * reach + 1, size),
    )
    if x1 - x0 < 3 or y1 - y0 < 3:
        return None
    path = _project_path(flaw, pose, magnified, centre - (x0, y0), (x1 - x0, y1 - y0), depth)
    before = thickness[y0:y1, x0:x1]
    if flaw.type not in ('flash', 'core_break'):
        on_metal = before > 0.5
        share = np.abs(path)
        if share[on_metal].sum() < (0.25 if flaw.type == 'misrun' else 0.8) * share.sum():
            return None
        path = np.where(on_metal, path, 0)
    floor = 0 if flaw.type == 'misrun' else 0.05
    after = before - np.minimum(path, (1 - floor) * before)
    if flaw.type == 'flash':  # a fin beside the part, not on it
        after = np.maximum(before, -path)
    change = np.abs(after - before)
    if change.max() < 1e-3:
        return None
    passed, changed = transmission(before, spectrum), transmission(after, spectrum)
    passed, changed = (
        geometric_blur(passed, exposure['unsharpness']),
        geometric_blur(changed, exposure['unsharpness']),
    )
    scatter = exposure['spr'] * float(passed.mean())
    without = np.minimum(passed + scatter, full)
    difference = np.minimum(changed + scatter, full) - without
    contrast = float(np.abs(difference / without).max())
    detectability = float(np.sqrt(exposure['quanta'] * (difference**2 / without).sum()))
    if contrast < MIN_CONTRAST or detectability < MIN_DETECTABILITY:
        return None
    footprint = change > FOOTPRINT * change.max()
    rows, columns = np.flatnonzero(footprint.any(1)), np.flatnonzero(footprint.any(0))
    mask = footprint[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    box = (x0 + int(columns[0]), y0 + int(rows[0]), mask.shape[1], mask.shape[0])
    thickness[y0:y1, x0:x1] = after
    return Defect(flaw.type, box, mask, contrast, number)


def render(
    part: Part, seed: int | Sequence[int], size: int = 1024, bits: int = 16, depth: float = 1.0
) -> Radiograph:
    """Take a radiograph of a part.

    Args:
        part: From `make_part` with the same `size`.
        seed: Identifies the view: its pose and its noise.
        size: Pixels of the square detector.
        bits: 8, 12, 14 or 16.
        depth: Factor on the defects' extent along the beam: 1 as in practice, 3 for all to see.

    Returns:
        Pixels 0..2^bits - 1 (brighter: less metal) and the defects in them.
    """
    rng = np.random.default_rng(seed)
    exposure, spectrum = part.exposure, SPECTRA[part.material]
    pose = make_pose(
        rotation=rng.uniform(0, 2 * np.pi),
        tilt=np.radians(rng.uniform(0, 10)),
        direction=rng.uniform(0, 2 * np.pi),
        shift=rng.uniform(-0.05, 0.05, 2) * part.field,
        distance=rng.uniform(500, 1000),
    )
    # the geometry is smooth on the scale of two pixels: large images take it at half the resolution
    coarse = 2 if size > 512 else 1
    thickness, _ = path_lengths(part, pose, size // coarse, part.field / (size // coarse))
    if coarse > 1:
        thickness = cv2.resize(thickness, (size, size), interpolation=cv2.INTER_LINEAR)
    sample = thickness[4::8, 4::8]
    level = transmission(sample[sample > 1], spectrum) if (sample > 1).any() else np.ones(1, np.float32)
    spr = exposure['spr']
    air = 1 + spr * float(transmission(sample, spectrum).mean())
    full = air * 1.08
    if exposure['saturated']:  # the metal fills the range and the air beside it is white
        full = min(full, 1.25 * float(np.percentile(level, 97)) * (1 + spr))
    defects = [
        _draw_flaw(thickness, part, number, pose, spectrum, full, depth) for number in range(len(part.flaws))
    ]
    signal = transmission(thickness, spectrum)
    signal = geometric_blur(signal, exposure['unsharpness'])
    signal = add_scatter(signal, spr, size / 1024 * rng.uniform(60, 150) + 15)
    signal *= _shading(rng, size, exposure['shading']) * np.float32(exposure['quanta'])
    noisy = add_noise(signal, rng, exposure['blur'], exposure['electronic'])
    top = 2**bits - 1
    gain = (1 - exposure['offset']) * top / (full * exposure['quanta'])
    return Radiograph(
        digitise(noisy, gain, exposure['offset'] * top, bits), [d for d in defects if d is not None]
    )


def _shading(rng, size, amount):
    """Uneven illumination in (1 - amount, 1]: heel effect along one axis, fall-off from the centre."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j].astype(np.float32)
    angle, centre = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3, 2)
    field_ = 0.5 * (1 + (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2))
    field_ = 0.4 * field_ + 0.6 * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 3.4
    return cv2.resize(1 - np.float32(amount) * field_, (size, size), interpolation=cv2.INTER_LINEAR)
