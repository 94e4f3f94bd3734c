"""Generated radiographs of castings: the physics, the parts, the 19 defect types and their boxes.

A part is a stack of outlines (plates, ribs, bosses, holes) in millimetres; a view projects it along a tilted,
slightly diverging beam into a map of path lengths; Beer-Lambert, scatter, unsharpness and noise make the
radiograph. Defects change the path length, so that their boxes come from what they change.
Only NumPy and OpenCV are used. The same seed gives the same bytes on the same machine, whatever the order
in which images are drawn.

Lengths are mm in the part, thickness maps are float32 mm, signals are quanta per pixel. `PITCH`, the size of
a pixel in the part, is constant: a smaller `size` looks at a smaller part, and defects keep their size in
pixels. Material data: NIST XCOM (mass attenuation times density).
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from .classes import CASTINGS

PITCH = 0.125
# Below either of these a defect is left out of the picture and of the annotation: see `_draw_flaw`.
MIN_CONTRAST = 0.02
MIN_DETECTABILITY = 10.0
# A pixel belongs to the footprint where the path changes by this share of the defect's largest change.
FOOTPRINT = 0.15


class Spectrum(NamedTuple):
    """Energy bins of one exposure: attenuation (1/mm) and the share of the detected quanta without a part."""

    mu: tuple
    weight: tuple


def _spectrum(mu_per_cm, emitted, detected):
    weight = np.multiply(emitted, detected)
    return Spectrum(tuple(np.divide(mu_per_cm, 10)), tuple(weight / weight.sum()))


# Emitted: a filtered tube spectrum (Kramers) in a few bins. Detected: the absorbed share in 1 mm of CsI.
SPECTRA = {
    # 40, 50, 60, 80 keV: a 90 kV tube on aluminium
    'aluminium': _spectrum((1.534, 0.994, 0.750, 0.545), (0.14, 0.28, 0.34, 0.24), (1.0, 0.99, 0.97, 0.81)),
    # 100, 150, 200 keV: a 225 kV tube with a copper filter on iron
    'iron': _spectrum((2.927, 1.546, 1.150), (0.25, 0.45, 0.30), (0.60, 0.30, 0.18)),
}


def transmission(thickness, spectrum):
    """Share of the detected quanta that pass unscattered: sum over bins of w·exp(-mu·t) (Beer-Lambert).

    One bin of weight 1 is the mono-energetic case; several harden the beam: -log T grows slower than t.

    Args:
        thickness (np.ndarray): Path length in mm, any shape.
        spectrum (Spectrum): Bins; the weights include the detector's response and sum to 1.

    Returns:
        np.ndarray: float32, same shape, in (0, 1].
    """
    thickness = np.asarray(thickness, np.float32)
    total = np.zeros_like(thickness)
    for mu, weight in zip(*spectrum):
        total += np.float32(weight) * np.exp(np.float32(-mu) * thickness)
    return total


def ellipsoid_chord(shape, centre, axes, angle=0.0):
    """Path of parallel rays through an ellipsoid: d = 2c·sqrt(1 - x²/a² - y²/b²), 0 outside.

    Args:
        shape (tuple): Rows, columns of the map.
        centre (tuple): x, y in pixels.
        axes (tuple): Half axes a, b in pixels (in the plane) and c along the beam, in the unit wanted back.
        angle (float): Rotation of a against x, radians.

    Returns:
        np.ndarray: float32 (H, W), in the unit of c.
    """
    x = np.arange(shape[1], dtype=np.float32)[None] - centre[0]
    y = np.arange(shape[0], dtype=np.float32)[:, None] - centre[1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    inside = 1 - (along / axes[0]) ** 2 - (across / axes[1]) ** 2
    return (2 * axes[2] * np.sqrt(np.maximum(inside, 0))).astype(np.float32)


def unsharpen(signal, sigma):
    """Geometric unsharpness, focal·(M - 1), as a Gaussian of `sigma` pixels."""
    return cv2.GaussianBlur(signal, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def add_scatter(signal, spr, sigma):
    """Scattered quanta: N + SPR·(G * N), the Gaussian taken at an eighth of the resolution.

    Args:
        signal (np.ndarray): Unscattered quanta, float32 (H, W).
        spr (float): Scatter-to-primary ratio, 0.2-2 for castings.
        sigma (float): Width of the scatter kernel in pixels, 30-150.

    Returns:
        np.ndarray: float32 (H, W); contrast falls by 1 / (1 + SPR) where the signal is flat.
    """
    height, width = signal.shape
    small = cv2.resize(signal, (max(1, width // 8), max(1, height // 8)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / 8, borderType=cv2.BORDER_REPLICATE)
    return cv2.scaleAdd(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), spr, signal)


def add_noise(signal, rng, blur=0.0, electronic=0.0):
    """Quantum noise, the scintillator's blur of it, and the electronics' noise.

    Quanta are Poisson. Above 50 a pixel's Poisson law is drawn as the normal of the same mean and variance
    (skewness below 0.15), which is an order of magnitude faster; below, as itself.

    Args:
        signal (np.ndarray): Expected quanta per pixel, float32 (H, W).
        rng (np.random.Generator): Source of the draw.
        blur (float): Sigma of the scintillator's light spread in pixels; 0 leaves the noise white.
        electronic (float): Standard deviation of the read-out noise in quanta.

    Returns:
        np.ndarray: float32 (H, W), not negative before the read-out noise.
    """
    noisy = rng.standard_normal(signal.shape, np.float32)
    noisy *= cv2.sqrt(signal)
    noisy += signal
    few = signal < 50
    if few.any():
        noisy[few] = rng.poisson(signal[few])
    if blur:
        noisy = cv2.GaussianBlur(noisy, (0, 0), blur, borderType=cv2.BORDER_REFLECT_101)
    if electronic:
        noisy += np.float32(electronic) * rng.standard_normal(signal.shape, np.float32)
    return noisy


def digitise(signal, gain, offset, bits):
    """round(clip(gain·n + offset, 0, 2^bits - 1)): uint8 for 8 bits, uint16 for 12, 14 and 16."""
    levels = cv2.addWeighted(signal, gain, signal, 0, offset)
    np.rint(np.clip(levels, 0, 2**bits - 1, out=levels), out=levels)
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


# ---------------------------------------------------------------------------------------------- parts


@dataclass(frozen=True)
class Feature:
    """An outline between two heights, added or cut away.

    Attributes:
        outline (np.ndarray): (n, 2) mm, closed.
        normals (np.ndarray): (n, 2) unit vectors pointing outwards.
        low, high (float): Heights in mm; the beam runs along z, towards the tube upwards.
        solid (bool): Metal (True) or a cavity (False). Later features win.
        draft (float): mm by which the outline is wider at `low` than at `high` (casting draft and fillet).
        machined (bool): A sharp, through-going cut (drilled hole) made after casting.
    """

    outline: np.ndarray
    normals: np.ndarray
    low: float
    high: float
    solid: bool = True
    draft: float = 0.0
    machined: bool = False


@dataclass(frozen=True)
class Tube:
    """A straight bar or tube lying across the beam: ends, outer and inner radius in mm."""

    start: tuple
    end: tuple
    outer: float
    inner: float


@dataclass(frozen=True)
class Flaw:
    """A defect in its part.

    Attributes:
        type (str): A key of classes.CASTINGS.
        path (np.ndarray): float32 map of the path that is missing (negative: extra), mm, at PITCH / 2.
        position (tuple): x, y, z of the map's centre in the part, mm.
        extent (float): Height along the beam in mm, which a tilted view smears.
        angle (float): Rotation of the map in the part, radians.
    """

    type: str
    path: np.ndarray
    position: tuple
    extent: float
    angle: float = 0.0


@dataclass
class Part:
    """A casting with its defects, and the exposure chosen for it."""

    material: str
    field: float
    features: list
    tubes: list
    fillet: float
    relief: np.ndarray
    exposure: dict
    flaws: list = field(default_factory=list)


@dataclass(frozen=True)
class Pose:
    """How a view looks at the part: (x, y, z) goes to magnification·(matrix·xy) + lean·z + shift."""

    matrix: np.ndarray
    lean: np.ndarray
    shift: np.ndarray
    cosine: float
    distance: float

    def project(self, points, z):
        """Points (n, 2) of the part at height z, mm, to the detector (n, 2), in mm at the part's scale."""
        return (self.distance / (self.distance - z)) * (points @ self.matrix.T) + z * self.lean + self.shift


def make_pose(rotation=0.0, tilt=0.0, direction=0.0, shift=(0.0, 0.0), distance=1e9):
    """A parallel or diverging view: rotation about the beam, tilt towards a direction (radians), shift (mm).

    Args:
        rotation (float): In the plane.
        tilt (float): Angle between the part's z axis and the beam; x shrinks by its cosine along `direction`.
        direction (float): Of the tilt in the detector plane.
        shift (tuple): x, y in mm.
        distance (float): Tube to part in mm; height z is magnified by distance / (distance - z).

    Returns:
        Pose: The projection.
    """
    turn = np.array([[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]])
    along = np.array([np.cos(direction), np.sin(direction)])
    squeeze = np.eye(2) - (1 - np.cos(tilt)) * np.outer(along, along)
    return Pose(squeeze @ turn, np.sin(tilt) * along, np.asarray(shift, float), float(np.cos(tilt)), distance)


def _feature(outline, low, high, solid=True, draft=0.0, machined=False):
    outline = np.asarray(outline, float)
    tangent = np.roll(outline, -1, 0) - np.roll(outline, 1, 0)
    normals = np.stack([tangent[:, 1], -tangent[:, 0]], 1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    x, y = outline.T
    if np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) < 0:  # clockwise
        normals = -normals
    return Feature(outline, normals, low, high, solid, draft, machined)


def _circle(centre, radius, points=72):
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.asarray(centre) + radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _rounded(corners, radius):
    """A polygon whose corners are quadratic curves starting `radius` mm before them."""
    corners = np.asarray(corners, float)
    step = np.linspace(0, 1, 8)[:, None]
    curves = []
    for before, corner, after in zip(np.roll(corners, 1, 0), corners, np.roll(corners, -1, 0)):
        to_before, to_after = before - corner, after - corner
        cut = min(radius, 0.48 * np.hypot(*to_before), 0.48 * np.hypot(*to_after))
        start = corner + cut * to_before / np.hypot(*to_before)
        end = corner + cut * to_after / np.hypot(*to_after)
        curves.append((1 - step) ** 2 * start + 2 * step * (1 - step) * corner + step**2 * end)
    return np.concatenate(curves)


def _box(centre, width, height, angle=0.0, radius=0.0):
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2, height / 2)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return _rounded(half @ turn + centre, radius or 0.05 * min(width, height))


def _bar(start, end, width_start, width_end=None):
    """A tapered rib with round corners from start to end."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    side = np.array([start[1] - end[1], end[0] - start[0]]) / (np.hypot(*(end - start)) + 1e-9) / 2
    width_end = width_start if width_end is None else width_end
    corners = [
        start + side * width_start,
        end + side * width_end,
        end - side * width_end,
        start - side * width_start,
    ]
    return _rounded(corners, 0.3 * min(width_start, width_end))


def _chord(corners, point, direction):
    """Where the line through a point inside a polygon leaves it, to either side."""
    along = _polar(1.0, direction)
    across = np.array([-along[1], along[0]])
    start, end = corners - point, np.roll(corners, -1, 0) - point
    side, other = start @ across, end @ across
    crossed = (side > 0) != (other > 0)
    share = (side / (side - other + 1e-12))[crossed, None]
    reach = (start[crossed] + share * (end - start)[crossed]) @ along
    return point + along * reach[reach < 0].max(initial=-1e3), point + along * reach[reach > 0].min(
        initial=1e3
    )


def _polar(radius, angle):
    return radius * np.array([np.cos(angle), np.sin(angle)])


def _cavity(outline, low, high, draft=0.0):
    """A cored or pressed-in space: wider at `high`, where the core is drawn out."""
    return _feature(outline, low, high, solid=False, draft=-draft)


def _drilled(outline, high):
    return _feature(outline, 0, high, solid=False, machined=True)


def _apart(rng, count, radius, width, height):
    """Up to `count` spots in a width x height rectangle about 0, at least `radius` mm from one another."""
    spots = []
    for spot in rng.uniform(-0.5, 0.5, (4 * count, 2)) * (width, height):
        if len(spots) < count and all(np.hypot(*(spot - other)) > radius for other in spots):
            spots.append(spot)
    return spots


def _plate(rng, size, thick):
    """A stepped plate with ribs, bosses, a pocket and holes."""
    width, height = size * rng.uniform(0.8, 1.3), size * rng.uniform(0.5, 0.95)
    base = thick * rng.uniform(0.35, 0.7)
    features = [_feature(_box((0, 0), width, height, 0, size * rng.uniform(0.03, 0.15)), 0, base, draft=0.5)]
    edge, top = -width / 2, base
    for _ in range(rng.integers(1, 4)):
        edge += width * rng.uniform(0.15, 0.3)
        rise, middle = thick * rng.uniform(0.08, 0.22), (edge + width / 2) / 2
        step = _box((middle, 0), width / 2 - edge, height * rng.uniform(0.6, 0.98), 0, 0.04 * size)
        features.append(_feature(step, top, top + rise, draft=rise * rng.uniform(0.3, 1.5)))
        top += rise
    for y in rng.uniform(-0.4, 0.4, rng.integers(1, 5)) * height:
        end = y + rng.normal(0, 0.1) * height
        rib = _bar((-width * 0.45, y), (width * 0.45, end), size * rng.uniform(0.03, 0.06))
        features.append(_feature(rib, base * 0.9, top + thick * rng.uniform(0.05, 0.25), draft=size * 0.012))
    spots = _apart(rng, 6, 0.22 * size, 0.82 * width, 0.82 * height)
    if rng.random() < 0.7:
        pocket = _box(spots[0], size * rng.uniform(0.15, 0.3), size * rng.uniform(0.12, 0.2), 0, 0.05 * size)
        features.append(_cavity(pocket, base * 0.4, top + thick, size * 0.015))
    bosses = rng.integers(2, 5)
    for spot in spots[1:bosses]:
        radius = size * rng.uniform(0.05, 0.1)
        features.append(_feature(_circle(spot, radius), 0, top + thick * 0.2, draft=size * 0.015))
        features.append(_drilled(_circle(spot, radius * rng.uniform(0.4, 0.65)), thick))
    features += [_drilled(_circle(spot, size * rng.uniform(0.015, 0.05)), thick) for spot in spots[bosses:]]
    return features, []


def _wheel(rng, size, thick):
    """A rim, a hub and spokes, seen whole or in part."""
    scale = size * rng.uniform(0.5, 1.1)
    centre = _polar(max(0.0, scale - 0.55 * size) * rng.uniform(0.7, 1.2), rng.uniform(0, 2 * np.pi))
    spokes, phase = int(rng.integers(3, 10)), rng.uniform(0, 2 * np.pi)
    rim, hub, bore = scale * 0.98, scale * rng.uniform(0.3, 0.42), scale * rng.uniform(0.1, 0.16)
    features = [
        _feature(_circle(centre, rim, 180), 0, thick * 0.9, draft=scale * 0.02),
        _cavity(_circle(centre, rim * rng.uniform(0.8, 0.9), 180), -1, thick * 2, scale * 0.03),
    ]
    if rng.random() < 0.5:  # a web between the spokes instead of open windows
        features.append(_feature(_circle(centre, rim, 180), thick * 0.2, thick * rng.uniform(0.3, 0.45)))
    wide, narrow = scale * rng.uniform(0.13, 0.22), scale * rng.uniform(0.08, 0.14)
    grooved, depth = rng.random() < 0.7, thick * rng.uniform(0.2, 0.4)
    for angle in phase + np.arange(spokes) * 2 * np.pi / spokes:
        spoke = _bar(centre + _polar(hub * 0.8, angle), centre + _polar(rim * 0.95, angle), wide, narrow)
        features.append(_feature(spoke, thick * 0.1, thick * 0.62, draft=scale * 0.03))
        if grooved:
            ends = centre + _polar(hub * 1.15, angle), centre + _polar(rim * 0.8, angle)
            features.append(_cavity(_bar(*ends, wide * 0.4, narrow * 0.4), depth, thick, scale * 0.02))
    features.append(_feature(_circle(centre, hub, 120), 0, thick * 0.65, draft=scale * 0.03))
    features.append(_feature(_circle(centre, bore * 1.6), 0, thick, draft=scale * 0.02))
    features.append(_drilled(_circle(centre, bore), thick))
    for angle in phase + np.pi / spokes + np.arange(spokes) * 2 * np.pi / spokes:
        spot = centre + _polar((hub + bore * 1.6) / 2, angle)
        features.append(_cavity(_circle(spot, scale * 0.062), thick * 0.4, thick, scale * 0.01))
        features.append(_drilled(_circle(spot, scale * 0.035), thick))
    return features, []


def _flange(rng, size, thick):
    """A disc of concentric rings with a bolt circle, a bore and gussets."""
    outer, centre = size * rng.uniform(0.42, 0.75), rng.uniform(-0.15, 0.15, 2) * size
    top, ring = thick * rng.uniform(0.2, 0.4), outer * rng.uniform(0.5, 0.62)
    features = [
        _feature(_circle(centre, outer, 144), 0, top, draft=size * 0.01),
        _feature(_circle(centre, ring, 120), top, thick * rng.uniform(0.7, 1), draft=size * 0.03),
        _cavity(_circle(centre, ring * rng.uniform(0.6, 0.75), 96), top * 0.8, thick, size * 0.03),
        _drilled(_circle(centre, ring * rng.uniform(0.25, 0.4)), thick),
    ]
    if rng.random() < 0.5:
        groove = (ring + outer) / 2 + np.array([0.32, -0.32]) * (outer - ring)
        features.insert(1, _feature(_circle(centre, groove[0], 144), top, top * 1.25, draft=size * 0.01))
        features.insert(2, _cavity(_circle(centre, groove[1], 144), top, top * 1.25, size * 0.01))
    bolts, phase = int(rng.integers(4, 13)), rng.uniform(0, 2 * np.pi)
    for k, angle in enumerate(phase + np.arange(bolts) * 2 * np.pi / bolts):
        spot = centre + _polar((outer + ring) / 2, angle)
        if k % 2:
            gusset = _bar(
                centre + _polar(ring * 0.95, angle), centre + _polar(outer * 0.94, angle), size * 0.04
            )
            features.append(_feature(gusset, top * 0.9, thick * 0.6, draft=size * 0.01))
        else:
            features.append(_feature(_circle(spot, outer * 0.1), top, top * 1.4, draft=size * 0.006))
            features.append(_drilled(_circle(spot, outer * 0.055), thick))
    return features, []


def _housing(rng, size, thick):
    """A walled floor: irregular outline, thin floor, inner ribs, screw bosses and a port."""
    corners = int(rng.integers(4, 8))
    angle = (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) * 2 * np.pi / corners + rng.uniform(
        0, np.pi
    )
    radius = size * rng.uniform(0.48, 0.72, corners)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    floor, wall = thick * rng.uniform(0.15, 0.3), size * rng.uniform(0.035, 0.07)
    inside = points * (1 - wall / radius.mean())
    features = [
        _feature(_rounded(points * 1.06, 0.15 * size), 0, floor, draft=0.5),
        _feature(_rounded(points, 0.12 * size), floor, thick, draft=size * 0.015),
        _cavity(_rounded(inside, 0.1 * size), floor, thick * 1.1, size * 0.02),
    ]
    for direction in rng.uniform(0, np.pi, rng.integers(2, 5)):
        offset = _polar(rng.uniform(-0.2, 0.2) * size, direction + np.pi / 2)
        rib = _bar(*_chord(inside, offset, direction), size * 0.025)
        features.append(_feature(rib, floor * 0.9, thick * rng.uniform(0.4, 0.7), draft=size * 0.012))
    for point in points:
        spot, boss = point * rng.uniform(0.7, 0.8), size * rng.uniform(0.04, 0.07)
        features.append(_feature(_circle(spot, boss), 0, thick * 0.9, draft=size * 0.015))
        features.append(_drilled(_circle(spot, boss * 0.5), thick))
    spot = rng.uniform(-0.15, 0.15, 2) * size
    if rng.random() < 0.5:
        port = _box(spot, size * rng.uniform(0.1, 0.3), size * 0.15, 0, 0.04 * size)
        features.append(_cavity(port, -1, thick * 1.1, size * 0.01))
    else:  # a bearing seat
        features.append(_feature(_circle(spot, 0.17 * size, 96), floor, thick * 0.8, draft=size * 0.02))
        features.append(_cavity(_circle(spot, 0.11 * size, 96), floor * 0.8, thick, size * 0.01))
        features.append(_drilled(_circle(spot, size * rng.uniform(0.03, 0.08), 96), thick))
    return features, []


def _arm(rng, size, thick):
    """A suspension arm: a tube or bar between two lugs with bores, stiffened by a web with windows."""
    ends = np.array([[rng.uniform(-0.5, -0.3), 0], [rng.uniform(0.3, 0.5), 0]]) * size
    ends[:, 1] = size * rng.uniform(-0.1, 0.1, 2)
    outer = min(thick * 0.55, size * 0.13)
    inner = outer * rng.uniform(0.45, 0.7) if rng.random() < 0.7 else 0.0
    middle = ends[:, 1].mean()
    web = _box(
        (0, middle + size * 0.05), np.ptp(ends[:, 0]) * 1.1, size * rng.uniform(0.4, 0.7), 0.05, 0.1 * size
    )
    features = [_feature(web, thick * 0.4, thick * rng.uniform(0.55, 0.7), draft=size * 0.01)]
    for spot in ends:
        lug = size * rng.uniform(0.12, 0.19)
        features.append(_feature(_circle(spot, lug, 96), 0, thick * 0.9, draft=size * 0.02))
        features.append(_drilled(_circle(spot, lug * rng.uniform(0.45, 0.65)), thick))
    for x in rng.uniform(*ends[:, 0] * 0.6, rng.integers(1, 4)):
        y = middle + size * rng.choice([-1, 1]) * rng.uniform(0.17, 0.22)
        sides = size * rng.uniform(0.1, 0.2), size * rng.uniform(0.07, 0.12)
        window = _box((x, y), *sides, rng.normal(0, 0.2), 0.04 * size)
        features.append(_cavity(window, 0, thick, size * 0.01))
    return features, [Tube(tuple(ends[0]), tuple(ends[1]), outer, inner)]


FAMILIES = (_plate, _wheel, _flange, _housing, _arm)


def _clouds(rng, size, octaves=(4, 8, 16, 32), fall=0.6):
    """Smooth noise (size, size) of zero mean and unit deviation, each octave `fall` times the coarser one."""
    total = np.zeros((size, size), np.float32)
    for k, cells in enumerate(octaves):
        grid = rng.standard_normal((cells, cells), np.float32)
        total += np.float32(fall**k) * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    return (total - total.mean()) / (total.std() + 1e-6)


def _levels(features, pose, step):
    """Heights (edges of the slabs) so that neighbouring slabs are displaced by about a pixel and a half."""
    edges = np.unique([0.0, *(f.low for f in features if f.solid), *(f.high for f in features)])
    top = max(f.high for f in features if f.solid)
    edges = edges[(edges >= 0) & (edges <= top)]
    reach = np.hypot(*pose.lean) + 60 / pose.distance + 0.08  # lean, divergence, draft: mm per mm of height
    slab = max(1.5 * step / reach, top / 24)
    pieces = [
        np.linspace(a, b, max(2, round((b - a) / slab) + 1))[:-1]
        for a, b in zip(edges, edges[1:])
        if b - a > 0.05
    ]
    return np.append(np.concatenate(pieces), top)


def _fill(mask, feature, z, pose, step, value):
    """Paint a feature's outline at height z: 255 metal, 0 air, in 1/16 pixel."""
    middle = (feature.low + feature.high) / 2
    span = max(feature.high - feature.low, 1e-6)
    outline = feature.outline
    if feature.draft:
        outline = outline + feature.normals * (feature.draft * (middle - z) / span)
    points = pose.project(outline, z) / step + (mask.shape[0] - 1) / 2
    cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], value, cv2.LINE_AA, 4)


def path_lengths(part, pose, size, step):
    """Path through the part's metal, without defects.

    Each slab of the part is painted where the beam meets it (metal over air, cavities over metal, in order),
    so unions and tilt are exact up to the slab; cast edges are then rounded by the fillet, drilled holes stay
    sharp.

    Args:
        part (Part): What to look at.
        pose (Pose): From where.
        size (int): Pixels of the square map.
        step (float): mm per pixel.

    Returns:
        tuple: Thickness in mm, float32 (size, size), and the mean height of the metal in mm, same shape.
    """
    thickness = np.zeros((size, size), np.float32)
    moment = np.zeros_like(thickness)
    mask = np.empty((size, size), np.uint8)
    cast = [f for f in part.features if not f.machined]
    levels = _levels(cast, pose, step)
    for low, high in zip(levels, levels[1:]):
        mask[:] = 0
        middle = (low + high) / 2
        for feature in cast:
            if feature.low <= middle < feature.high:
                _fill(mask, feature, middle, pose, step, 255 if feature.solid else 0)
        slab = mask * np.float32((high - low) / 255 / pose.cosine)
        thickness += slab
        moment += slab * np.float32(middle)
    for tube in part.tubes:
        chord = _tube_chord(tube, pose, size, step)
        moment = np.where(chord > thickness, chord * (tube.outer), moment)
        thickness = np.maximum(thickness, chord)
    height = moment / np.maximum(thickness, 1e-3)
    thickness = cv2.GaussianBlur(
        thickness, (0, 0), max(0.4, part.fillet / step), borderType=cv2.BORDER_REPLICATE
    )
    drilled = [f for f in part.features if f.machined]
    if drilled:
        open_share = np.zeros_like(thickness)
        shear = levels[-1] * (np.hypot(*pose.lean) + part.field / 2 / pose.distance) / step
        count = int(np.clip(np.ceil(shear / 2.5), 4, 24))
        heights = np.linspace(0, levels[-1], count + 1)
        for z in (heights[1:] + heights[:-1]) / 2:
            mask[:] = 0
            for feature in drilled:
                _fill(mask, feature, z, pose, step, 255)
            open_share += mask * np.float32(1 / 255 / count)
        thickness *= 1 - open_share
    # relief: taper and uneven walls, a field fixed to the part, 2 fields of view wide
    scale = 2 * part.field / part.relief.shape[0]
    forward = pose.matrix * (scale / step)
    corner = (part.relief.shape[0] - 1) / 2
    offset = pose.shift / step + (size - 1) / 2 - forward @ (corner, corner)
    matrix = np.hstack([forward, offset[:, None]])
    thickness *= cv2.warpAffine(
        part.relief, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return thickness, height


def _tube_chord(tube, pose, size, step):
    ends = pose.project(np.array([tube.start, tube.end]), tube.outer) / step + (size - 1) / 2
    axis = ends[1] - ends[0]
    length = np.hypot(*axis)
    axis = axis / length
    x = np.arange(size, dtype=np.float32)[None] - np.float32(ends[0, 0])
    y = np.arange(size, dtype=np.float32)[:, None] - np.float32(ends[0, 1])
    across = (x * np.float32(axis[1]) - y * np.float32(axis[0])) * np.float32(step)
    along = x * np.float32(axis[0]) + y * np.float32(axis[1])
    across *= across
    chord = cv2.sqrt(np.maximum(np.float32(tube.outer**2) - across, 0))
    if tube.inner:
        chord -= cv2.sqrt(np.maximum(np.float32(tube.inner**2) - across, 0))
    chord *= (along > 0) & (along < length)
    return chord * np.float32(2 / pose.cosine)


# -------------------------------------------------------------------------------------------- defects
# Each draws its map of missing path (mm) on a canvas of PITCH / 2, given its length (mm), and says how far it
# reaches along the beam. Morphologies follow the reference radiographs' descriptions in ASTM E155 and E2422.

STEP = PITCH / 2


def _canvas(length, margin=1.0):
    """Half side in canvas pixels of a canvas that holds `length` mm."""
    return int(np.ceil((length / 2 + margin) / STEP))


def _stroke(canvas, points, widths, depths):
    """Draw a line of varying width and depth (mm) through points (n, 2) in mm about the canvas centre."""
    half = canvas.shape[0] // 2
    pixels = np.asarray(points) / STEP + half
    for start, end, width, depth in zip(pixels, pixels[1:], widths, depths):
        layer = np.zeros_like(canvas, np.uint8)
        thick = max(1, round(width / STEP))
        a, b = (tuple(int(v) for v in np.rint(p * 16)) for p in (start, end))
        cv2.line(layer, a, b, 255, thick, cv2.LINE_AA, 4)
        np.maximum(canvas, layer * np.float32(depth / 255), out=canvas)


def _walk(rng, length, count, wander, jag):
    """A line of `count` points and about `length` mm, its heading wandering and its points jagged (mm)."""
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, wander, count))
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), 0)
    points *= length / max(np.ptp(points, 0).max(), 1e-6)
    points -= (points.max(0) + points.min(0)) / 2
    return points + rng.normal(0, jag, points.shape)


def _blob(rng, length, rough, stretch=1.0, harmonics=7, turn=None):
    """A filled irregular outline, float32 0..1 on its own canvas.

    Args:
        rng (np.random.Generator): Source of the draw.
        length (float): Longest side, mm.
        rough (float): Relative size of its lobes.
        stretch (float): Length over width.
        harmonics (int): Fourier terms of the outline; more are more ragged.
        turn (float | None): Direction of the long axis, radians; None draws one.

    Returns:
        np.ndarray: Square map at STEP.
    """
    half = _canvas(length)
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radius = np.ones_like(angle)
    for k in range(2, harmonics):
        radius += rough / k * rng.normal() * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.45, None)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle) / stretch], 1)
    turn = rng.uniform(0, np.pi) if turn is None else turn
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    points *= length / np.ptp(points, 0).max()
    points -= (points.max(0) + points.min(0)) / 2
    mask = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    cv2.fillPoly(mask, [np.rint((points / STEP + half) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


def _dome(mask, edge):
    """Give a 0..1 mask a rounded profile that rises over `edge` mm from its rim."""
    distance = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 5) * STEP
    rise = np.clip(distance / edge, 0, 1)
    return np.sqrt(1 - (1 - rise) ** 2) * mask


def _soft(canvas, sigma):
    return cv2.GaussianBlur(canvas, (0, 0), sigma / STEP)


def _pores(rng, length, centres, diameters):
    half = _canvas(length + max(diameters))
    canvas = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for (x, y), diameter in zip(centres, diameters):
        a, b = diameter / 2 * rng.uniform(0.8, 1.25, 2)
        canvas += ellipsoid_chord(
            canvas.shape,
            (x / STEP + half, y / STEP + half),
            (a / STEP, b / STEP, diameter / 2),
            rng.uniform(0, np.pi),
        )
    return canvas


def _crack(rng, length):
    canvas = np.zeros((2 * _canvas(length * 1.4) + 1,) * 2, np.float32)
    count = max(8, round(length / 0.5))
    taper = np.sin(np.linspace(0.15, np.pi - 0.15, count)) ** 0.7
    depth = rng.uniform(1.6, 4.0)
    points = _walk(rng, length, count, 0.22, 0.1)
    _stroke(canvas, points, 0.28 * taper, depth * taper)
    if rng.random() < 0.5:
        branch = _walk(rng, length * 0.3, count // 3, 0.2, 0.07)
        branch += points[rng.integers(count // 3, 2 * count // 3)] - branch[0]
        _stroke(canvas, branch, np.full(count, 0.16), depth * 0.7 * np.linspace(1, 0.3, count // 3))
    return _soft(canvas, 0.05), depth


def _hot_tear(rng, length):
    canvas = np.zeros((2 * _canvas(length * 1.5) + 1,) * 2, np.float32)
    count = max(10, round(length / 0.45))
    taper = np.sin(np.linspace(0.1, np.pi - 0.1, count)) ** 0.6
    depth = rng.uniform(1.5, 3.2)
    points = _walk(rng, length, count, 0.35, 0.22)
    widths = rng.uniform(0.45, 1.1, count) * taper
    _stroke(canvas, points, widths, depth * taper * rng.uniform(0.7, 1, count))
    for _ in range(rng.integers(3, 6)):
        at = rng.integers(1, count - 1)
        twig = _walk(rng, length * rng.uniform(0.15, 0.35), 6, 0.4, 0.12)
        _stroke(
            canvas, twig - twig[0] + points[at], rng.uniform(0.3, 0.6, 6), depth * np.linspace(0.8, 0.3, 6)
        )
    return _soft(canvas, 0.12), depth


def _cold_shut(rng, length):
    half = _canvas(length * 1.3)
    canvas = np.zeros((2 * half + 1,) * 2, np.float32)
    t = np.linspace(-1, 1, 48)
    points = np.stack(
        [t * length / 2, rng.uniform(0.1, 0.3) * length * (t**2 - 0.4) * rng.choice([-1, 1])], 1
    )
    points[:, 1] += 0.06 * length * np.sin(rng.uniform(2, 4) * t + rng.uniform(0, 6))
    turn = rng.uniform(0, np.pi)
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    depth = rng.uniform(1.0, 2.4)
    _stroke(canvas, points, np.full(48, rng.uniform(0.5, 0.8)), depth * (1 - 0.5 * t**4))
    seam = _soft(canvas, 0.15)
    return seam + 0.35 * _soft(canvas, 0.6), depth


def _misrun(rng, length):
    bite = _blob(rng, length, 0.2, rng.uniform(1.0, 1.6), harmonics=5, turn=0)
    return _dome(bite, length * 0.12), length / 4


def _core_break(rng, length):
    lump = _blob(rng, length, 0.4, rng.uniform(1.0, 1.8), harmonics=9)
    lump *= 1 + 0.12 * _clouds(rng, lump.shape[0])
    depth = rng.uniform(3.0, 8.0)
    return -depth * _soft(_dome(lump, 0.8), 0.06), depth


def _shrinkage_cavity(rng, length):
    body = _blob(rng, length, 0.5, rng.uniform(1.0, 1.8), harmonics=16)
    relief = np.clip(1 + 0.45 * _clouds(rng, body.shape[0], (6, 12, 24, 48), 0.7), 0.15, None)
    depth = rng.uniform(2.0, 4.5)
    return depth * _soft(_dome(body, length * 0.15) * relief, 0.08), depth


def _blowhole(rng, length):
    stretch = rng.uniform(1.0, 1.6)
    half = _canvas(length)
    axes = (
        length / 2 / STEP,
        length / 2 / stretch / STEP,
        min(length / 2 / stretch, 2.5) * rng.uniform(0.6, 1),
    )
    return ellipsoid_chord((2 * half + 1,) * 2, (half, half), axes, rng.uniform(0, np.pi)), length / 2


def _gas_pore(rng, length):
    return _pores(rng, length, [(0, 0)], [length]), length


def _pinhole(rng, length):
    # elongated along the beam, as pinholes under the skin are
    return rng.uniform(1.2, 2.2) * _pores(rng, length, [(0, 0)], [length]), 2 * length


def _pore_cluster(rng, length):
    count = int(rng.integers(8, 22))
    centres = np.clip(rng.normal(0, length / 4.5, (count, 2)), -length / 2, length / 2)
    return _pores(rng, length, centres, rng.uniform(0.5, 1.5, count)), length / 2


def _pore_chain(rng, length):
    count = int(np.clip(round(length / rng.uniform(1.3, 1.9)), 4, 9))
    points = _walk(rng, length, count, 0.2, 0.12)
    return _pores(rng, length * 1.4, points, rng.uniform(0.8, 1.4, count)), 1.5


def _wormhole(rng, length):
    canvas = np.zeros((2 * _canvas(length * 1.4) + 1,) * 2, np.float32)
    points = _walk(rng, length, 40, 0.1, 0)
    radii = rng.uniform(0.45, 0.85) * np.linspace(1, 0.35, 40) ** 0.8
    half = canvas.shape[0] // 2
    for (x, y), radius in zip(points, radii):
        ball = ellipsoid_chord(
            canvas.shape, (x / STEP + half, y / STEP + half), (radius / STEP, radius / STEP, radius)
        )
        np.maximum(canvas, ball, out=canvas)
    return _soft(1.3 * canvas, 0.06), 2.0


def _shrinkage_sponge(rng, length):
    envelope = _soft(_blob(rng, length, 0.3, rng.uniform(1.0, 1.6)), length * 0.06)
    clouds = np.clip(0.45 + 0.6 * _clouds(rng, envelope.shape[0], (8, 16, 32, 48), 0.8), 0, None)
    depth = rng.uniform(1.0, 2.2)
    return depth * rng.uniform(0.5, 0.8) * _soft(envelope * clouds, 0.1), depth * 2


def _shrinkage_filament(rng, length):
    canvas = np.zeros((2 * _canvas(length * 1.5) + 1,) * 2, np.float32)
    depth = rng.uniform(1.2, 2.4)
    for _ in range(rng.integers(4, 8)):
        count = max(8, round(length / 0.6))
        thread = _walk(rng, length * rng.uniform(0.4, 0.9), count, 0.45, 0.1) + rng.normal(0, length * 0.1, 2)
        _stroke(canvas, thread, rng.uniform(0.2, 0.45, count), depth * rng.uniform(0.5, 1, count))
    return _soft(canvas, 0.12), depth * 2


def _sand_inclusion(rng, length):
    lump = _blob(rng, length, 0.28, rng.uniform(1, 1.5), harmonics=9)
    grains = np.clip(1 + 0.5 * rng.standard_normal(lump.shape).astype(np.float32), 0.2, 2)
    grains = 1 + 2.5 * (_soft(grains, 0.12) - 1)
    return rng.uniform(0.9, 1.8) * lump * np.clip(grains, 0.3, 2), 2.0


def _slag_inclusion(rng, length):
    total = None
    for share in (1.0, rng.uniform(0.5, 0.8), rng.uniform(0.3, 0.6)):
        lobe = _dome(_blob(rng, length * share, 0.2, rng.uniform(1.5, 3.0)), 0.6)
        if total is None:
            total = lobe
            continue
        pad = (total.shape[0] - lobe.shape[0]) // 2
        move = rng.integers(-pad, pad + 1, 2) // 2 if pad else (0, 0)
        y, x = pad + move[0], pad + move[1]
        window = total[y : y + lobe.shape[0], x : x + lobe.shape[1]]
        np.maximum(window, lobe, out=window)
    return rng.uniform(0.9, 2.0) * _soft(total, 0.08), 2.0


def _dense_inclusion(rng, length):
    # iron in aluminium or tungsten in iron: d·(rho - 1) of extra path
    lump = _blob(rng, length, 0.25, rng.uniform(1, 1.7), harmonics=8)
    return -length * 0.6 * rng.uniform(1.2, 3.0) * _soft(_dome(lump, length * 0.2), 0.04), length


def _surface_pit(rng, length):
    half = _canvas(length)
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32) * STEP
    radius = np.hypot(x, y) * (1 + 0.08 * _clouds(rng, 2 * half + 1)) / (length / 2)
    depth = rng.uniform(0.7, 1.4)
    crater = np.clip(1 - radius**2, 0, None) ** 0.4
    lip = -0.35 * np.exp(-(((radius - 1.12) / 0.1) ** 2))
    return depth * _soft(crater + lip, 0.05), depth


def _flash(rng, length):
    fin = _blob(rng, length, 0.3, rng.uniform(1.6, 2.6), harmonics=12, turn=0)
    return -rng.uniform(0.8, 1.8) * _soft(fin, 0.08), 1.0


class Kind(NamedTuple):
    """How a defect type is drawn, how long it is (mm), and where in the part it lies."""

    draw: object
    length: tuple
    place: str


KINDS = {
    'crack': Kind(_crack, (4, 11), 'inside'),
    'hot_tear': Kind(_hot_tear, (4, 9), 'step'),
    'cold_shut': Kind(_cold_shut, (5, 11), 'inside'),
    'misrun': Kind(_misrun, (4, 9), 'edge'),
    'core_break': Kind(_core_break, (3, 8), 'cavity'),
    'shrinkage_cavity': Kind(_shrinkage_cavity, (4, 8.5), 'thick'),
    'blowhole': Kind(_blowhole, (3.2, 7), 'inside'),
    'gas_pore': Kind(_gas_pore, (1.5, 3.2), 'inside'),
    'pinhole': Kind(_pinhole, (0.8, 1.4), 'inside'),
    'pore_cluster': Kind(_pore_cluster, (3.5, 7), 'inside'),
    'pore_chain': Kind(_pore_chain, (5, 10), 'inside'),
    'wormhole': Kind(_wormhole, (3.5, 7), 'inside'),
    'shrinkage_sponge': Kind(_shrinkage_sponge, (5, 10), 'thick'),
    'shrinkage_filament': Kind(_shrinkage_filament, (4.5, 8), 'thick'),
    'sand_inclusion': Kind(_sand_inclusion, (2, 4.5), 'inside'),
    'slag_inclusion': Kind(_slag_inclusion, (2.5, 5.5), 'inside'),
    'dense_inclusion': Kind(_dense_inclusion, (1.0, 2.8), 'inside'),
    'surface_pit': Kind(_surface_pit, (1.8, 3.5), 'inside'),
    'flash': Kind(_flash, (5, 11), 'edge'),
}


def _place(rng, part, kind, radius, thickness, height, taken):
    """Choose a spot of the reference view that suits the type; None where there is none.

    Args:
        rng (np.random.Generator): Source of the draw.
        part (Part): The part.
        kind (Kind): The defect type.
        radius (float): Half length of the defect, mm.
        thickness (np.ndarray): Path in mm in the reference view, (256, 256).
        height (np.ndarray): Mean height of the metal there, mm.
        taken (list): x, y, radius (mm) of the defects already placed.

    Returns:
        tuple | None: x, y, z in mm, and the angle: an edge's direction, else 0.
    """
    size = thickness.shape[0]
    step = part.field / size
    metal = (thickness > 1.5).astype(np.uint8)
    y, x = (np.mgrid[:size, :size].astype(np.float32) - (size - 1) / 2) * step
    free = np.hypot(x, y) < 0.4 * part.field
    for tx, ty, reach in taken:
        free &= np.hypot(x - tx, y - ty) > reach + radius + 1
    if kind.place == 'cavity':
        holes = [f for f in part.features if not f.solid]
        spots = []
        for hole in holes:
            centre, width = hole.outline.mean(0), np.ptp(hole.outline, 0).min()
            wall = hole.outline[rng.integers(len(hole.outline))]
            spot = centre + rng.uniform(0.3, 0.75) * (wall - centre)
            row, column = (np.rint(spot[::-1] / step + (size - 1) / 2)).astype(int)
            if width > radius and 0 <= row < size and 0 <= column < size and free[row, column]:
                spots.append((*spot, (hole.low + min(hole.high, thickness.max())) / 2, 0.0))
        return spots[rng.integers(len(spots))] if spots else None
    if kind.place == 'edge':
        rim = cv2.dilate(metal, np.ones((3, 3), np.uint8)) - metal
        # the outline, not the small holes: a rim pixel sees much air around it
        air = cv2.blur((1 - metal).astype(np.float32), (31, 31))
        weight = free * rim * (air > 0.3)
    else:
        inside = cv2.distanceTransform(metal, cv2.DIST_L2, 5) * step
        weight = free * (inside > 0.75 * radius + 0.5)
        if kind.place == 'thick':
            weight = weight * thickness
        if kind.place == 'step':
            gradient = cv2.GaussianBlur(thickness, (0, 0), 2)
            weight = weight * (
                np.abs(cv2.Sobel(gradient, -1, 1, 0)) + np.abs(cv2.Sobel(gradient, -1, 0, 1)) + 0.05
            )
    total = np.cumsum(weight.ravel(), dtype=float)
    if total[-1] <= 0:
        return None
    row, column = divmod(int(np.searchsorted(total, rng.uniform(0, total[-1]), side='right')), size)
    angle = 0.0
    if kind.place == 'edge':
        near = np.s_[max(row - 6, 0) : row + 7, max(column - 6, 0) : column + 7]
        height = np.full_like(height, height[near][metal[near] > 0].mean())
        outwards = [cv2.Sobel(air, -1, *order, ksize=5)[row, column] for order in ((1, 0), (0, 1))]
        angle = float(np.arctan2(outwards[1], outwards[0]) + np.pi / 2)
    return float(x[row, column]), float(y[row, column]), float(height[row, column]), angle


def _add_flaw(rng, part, name, reference, taken):
    """Try to put a defect of a type into the part, smaller if there is no room; True when it is in."""
    kind = KINDS[name]
    thickness, height = reference
    length = rng.uniform(*kind.length) * (part.field / 128) ** 0.2
    for _ in range(3):
        spot = _place(rng, part, kind, length / 2, thickness, height, taken)
        if spot is not None:
            break
        length *= 0.75
    else:
        return False
    path, extent = kind.draw(rng, length)
    if name == 'misrun':
        path = path * float(thickness.max())
    part.flaws.append(Flaw(name, np.ascontiguousarray(path, np.float32), spot[:3], float(extent), spot[3]))
    taken.append((spot[0], spot[1], length / 2))
    return True


def make_part(seed, types=(), size=1024):
    """Draw a casting, its defects and its exposure.

    Args:
        seed (int | sequence[int]): Whatever identifies the part.
        types (sequence[str]): Defect types wanted; one that finds no room is left out.
        size (int): Pixels of the detector, which set the field of view (size·PITCH mm) and the part's scale.

    Returns:
        Part: Positions in mm about the centre of the field.
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
        type (str): A key of classes.CASTINGS.
        bbox (tuple): x, y, width, height in pixels, the tight rectangle of the footprint.
        mask (np.ndarray): bool (height, width), the footprint inside the box.
        contrast (float): max |N_with / N_without - 1| of the expected signals, scatter included.
        flaw (int): Which of its part's flaws it is, the same in every view.
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


def _draw_flaw(thickness, part, number, pose, spectrum, full, depth=1.0):
    """Draw a defect into the thickness map, in its window only.

    The path is missing from metal that is there (never more than 95 % of it, but for a misrun) and added
    metal lies where it lies. A defect that is off the metal or of negligible effect in this view is left out,
    so that what is annotated can be seen and what can be seen is annotated: its peak contrast must reach
    MIN_CONTRAST and its detectability d' = sqrt(sum (dN)² / N), the signal-to-noise ratio of an ideal
    observer of a known signal in white noise, MIN_DETECTABILITY.

    Args:
        thickness (np.ndarray): float32 (H, W) mm; changed in place where the defect is drawn.
        part (Part): Has the flaw, and its exposure.
        number (int): Of the flaw in `part.flaws`.
        pose (Pose): The view.
        spectrum (Spectrum): The beam.
        full (float): Signal that saturates the detector, as a share of the unattenuated quanta.
        depth (float): Factor on the defect's extent along the beam.

    Returns:
        Defect | None: What was drawn.
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
    turn = np.array([[np.cos(flaw.angle), -np.sin(flaw.angle)], [np.sin(flaw.angle), np.cos(flaw.angle)]])
    forward = pose.matrix @ turn * (magnified * STEP / PITCH)
    middle = (flaw.path.shape[0] - 1) / 2
    offset = centre - (x0, y0) - forward @ (middle, middle)
    path = cv2.warpAffine(
        flaw.path, np.hstack([forward, offset[:, None]]), (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR
    )
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
    passed, changed = unsharpen(passed, exposure['unsharpness']), unsharpen(changed, exposure['unsharpness'])
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


def render(part, seed, size=1024, bits=16, depth=1.0):
    """Take a radiograph of a part.

    Args:
        part (Part): From `make_part` with the same `size`.
        seed (int | sequence[int]): Identifies the view: its pose and its noise.
        size (int): Pixels of the square detector.
        bits (int): 8, 12, 14 or 16.
        depth (float): Factor on the defects' extent along the beam: 1 as in practice, 3 for all to see.

    Returns:
        Radiograph: Pixels 0..2^bits - 1 (brighter: less metal) and the defects in them.
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
    signal = unsharpen(signal, exposure['unsharpness'])
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


# ---------------------------------------------------------------------------------------------- plan


class View(NamedTuple):
    """One planned image: its part's number and types wanted, its view's number, and its split."""

    part: int
    view: int
    types: tuple
    split: str


def plan(images, seed, kind=0, extra=0):
    """Lay out a data set: parts of 2 to 4 views, at least 45 % of the images from sound parts, split by part.

    Args:
        images (int): How many images.
        seed (int): Of the data set.
        kind (int): Keeps the draws of labelled (0) and unlabelled (1) parts apart.
        extra (int): Defects wanted in a defective part beyond its one to four; all are then of one severity.

    Returns:
        list[View]: In order of part and view; parts with a critical defect, with minor ones alone and with
            none are each split 60/20/20.
    """
    rng = np.random.default_rng([seed, 7, kind])
    views = []
    while sum(views) < images:
        views.append(min(2 + len(views) % 3, images - sum(views)))
    defective, count = [], 0
    for number in rng.permutation(len(views)):
        if count + views[number] <= 0.55 * images:
            defective.append(int(number))
            count += views[number]
    names = list(KINDS)
    first = rng.permutation(len(names))
    types = {}
    for k, number in enumerate(defective):
        lead = names[first[k % len(names)]]
        # Of ten defects one is critical: with extra ones, a part of minor defects alone needs a rule.
        pool = [name for name in names if CASTINGS[name] == CASTINGS[lead]] if extra else names
        more = rng.choice(pool, int(rng.choice([0, 1, 2, 3], p=[0.35, 0.35, 0.2, 0.1])) + extra)
        types[number] = (lead, *(str(name) for name in more))
    worst = [min((CASTINGS[name] for name in types.get(n, ())), default='none') for n in range(len(views))]
    split = {}
    for severity in ('critical', 'minor', 'none'):
        group = [n for n in rng.permutation(len(views)) if worst[n] == severity]
        held = round(0.2 * len(group)) or int(len(group) >= 3)
        for k, number in enumerate(group):
            split[number] = 'val' if k < held else 'test' if k < 2 * held else 'train'
    return [
        View(number, view, types.get(number, ()), split[number])
        for number, count in enumerate(views)
        for view in range(count)
    ]


@lru_cache(maxsize=1)  # the views of a part follow one another
def _part(seed, kind, number, types, size):
    return make_part([seed, kind, number], types, size)


def draw(view, seed, kind=0, size=1024, bits=16, depth=1.0):
    """Draw one planned image; the draw depends on (seed, kind, part, view) alone.

    Args:
        view (View): From `plan`.
        seed (int): Of the data set.
        kind (int): As given to `plan`.
        size (int): Pixels of the square detector.
        bits (int): 8, 12, 14 or 16.
        depth (float): As given to `render`.

    Returns:
        Radiograph: Pixels and defects.
    """
    part = _part(seed, kind, view.part, view.types, size)
    return render(part, [seed, kind, view.part, view.view + 1], size, bits, depth)
