"""The 19 defect types: their shapes, sizes and what they change of the path length."""

from typing import NamedTuple

import cv2
import numpy as np

from .parts import Flaw, Part
from .physics import PITCH, _clouds, ellipsoid_chord

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


def _blob(
    rng: np.random.Generator,
    length: float,
    rough: float,
    stretch: float = 1.0,
    harmonics: int = 7,
    turn: float | None = None,
) -> np.ndarray:
    """A filled irregular outline, float32 0..1 on its own canvas.

    Args:
        rng: Source of the draw.
        length: Longest side, mm.
        rough: Relative size of its lobes.
        stretch: Length over width.
        harmonics: Fourier terms of the outline; more are more ragged.
        turn: Direction of the long axis, radians; None draws one.

    Returns:
        Square map at STEP.
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


def _place(
    rng: np.random.Generator,
    part: Part,
    kind: Kind,
    radius: float,
    thickness: np.ndarray,
    height: np.ndarray,
    taken: list,
) -> tuple | None:
    """Choose a spot of the reference view that suits the type; None where there is none.

    Args:
        rng: Source of the draw.
        part: The part.
        kind: The defect type.
        radius: Half length of the defect, mm.
        thickness: Path in mm in the reference view, (256, 256).
        height: Mean height of the metal there, mm.
        taken: x, y, radius (mm) of the defects already placed.

    Returns:
        x, y, z in mm, and the angle: an edge's direction, else 0.
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
