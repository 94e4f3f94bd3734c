"""Generated castings as stacks of outlines in millimetres, in five families."""

from dataclasses import dataclass, field

import numpy as np

# ---------------------------------------------------------------------------------------------- parts


@dataclass(frozen=True)
class Feature:
    """An outline between two heights, added or cut away.

    Attributes:
        outline: (n, 2) mm, closed.
        normals: (n, 2) unit vectors pointing outwards.
        low, high: Heights in mm; the beam runs along z, towards the tube upwards.
        solid: Metal (True) or a cavity (False). Later features win.
        draft: mm by which the outline is wider at `low` than at `high` (casting draft and fillet).
        machined: A sharp, through-going cut (drilled hole) made after casting.
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
        type: A key of classes.CASTINGS.
        path: float32 map of the path that is missing (negative: extra), mm, at PITCH / 2.
        position: x, y, z of the map's centre in the part, mm.
        extent: Height along the beam in mm, which a tilted view smears.
        angle: Rotation of the map in the part, radians.
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
