"""From a part and a pose to a map of path lengths along the beam."""

from dataclasses import dataclass

import cv2
import numpy as np

from .parts import Part


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


def make_pose(
    rotation: float = 0.0,
    tilt: float = 0.0,
    direction: float = 0.0,
    shift: tuple = (0.0, 0.0),
    distance: float = 1e9,
) -> Pose:
    """A parallel or diverging view: rotation about the beam, tilt towards a direction (radians), shift (mm).

    Args:
        rotation: In the plane.
        tilt: Angle between the part's z axis and the beam; x shrinks by its cosine along `direction`.
        direction: Of the tilt in the detector plane.
        shift: x, y in mm.
        distance: Tube to part in mm; height z is magnified by distance / (distance - z).

    Returns:
        The projection.
    """
    turn = np.array([[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]])
    along = np.array([np.cos(direction), np.sin(direction)])
    squeeze = np.eye(2) - (1 - np.cos(tilt)) * np.outer(along, along)
    return Pose(squeeze @ turn, np.sin(tilt) * along, np.asarray(shift, float), float(np.cos(tilt)), distance)


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


def path_lengths(part: Part, pose: Pose, size: int, step: float) -> tuple:
    """Path through the part's metal, without defects.

    Each slab of the part is painted where the beam meets it (metal over air, cavities over metal, in order),
    so unions and tilt are exact up to the slab; cast edges are then rounded by the fillet, drilled holes stay
    sharp.

    Args:
        part: What to look at.
        pose: From where.
        size: Pixels of the square map.
        step: mm per pixel.

    Returns:
        Thickness in mm, float32 (size, size), and the mean height of the metal in mm, same shape.
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
