"""Flaws drawn into real radiographs: shapes of the 19 types, superimposed by the law of attenuation.

A flaw that takes the path d out of metal of attenuation mu changes the gray level I of a radiograph to
J = e^(mu·d)·(I - q) + q, where q is the level that infinitely thick metal would have (Mery, Machine Vision
and Applications 32:72, 2021). Shapes are those of the generated radiographs; unsharpness, noise and the gray
levels of the part are the radiograph's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from . import appearance
from .defects import KINDS, STEP

# Of its peak: what a blurred shape loses all around, so that it ends, without a step, where its box does.
TAIL = 0.06
# Of a flaw's effect, in the sum of its squares: how much must lie on the part and in the picture.
ON_PART = 0.6
# Of the metal there: how much of it a flaw may take away.
MOST_METAL = 0.9
_TRIES = 6
_WHITE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 255.0}


class Drawn(NamedTuple):
    """A flaw that was drawn.

    Attributes:
        type: A key of `classes.CASTINGS`.
        bbox: x, y, width, height in px, the tight rectangle of the pixels that it covers.
        mask: bool (height, width), those pixels, whatever the contrast; no other pixel has changed.
        contrast: e^(mu·d) - 1 at its peak; of denser material 1 - e^(mu·d), so both are above 0.
        detectability: sqrt(sum (J - I)²) over the standard deviation of the noise.
        cnr: Largest |J - I| over that deviation.
    """

    type: str
    bbox: tuple[int, int, int, int]
    mask: np.ndarray
    contrast: float
    detectability: float
    cnr: float


@dataclass(frozen=True)
class Look:
    """How a radiograph was taken, from `look_at`.

    Attributes:
        dark: Pixels at or below this gray level are unexposed.
        air: Pixels at or above this one are air.
        white: Largest gray level.
        q: Level of infinitely thick metal.
        unsharpness: Sigma of its edges, px.
        quantum: Step between gray levels.
    """

    dark: float
    air: float
    white: float
    q: float
    unsharpness: float
    quantum: float


@dataclass(frozen=True)
class Recipe:
    """Which flaws are drawn.

    Attributes:
        number: Least and most in a radiograph.
        pitch: Range of the mm per px at the part, drawn log-uniformly, one per radiograph.
        contrast: Range of e^(mu·d) - 1 at the peak, drawn log-uniformly above what the noise hides.
        opacity: Range of mu·x of the metal that would be black, which sets q.
        detectability: Least sqrt(sum (J - I)²) in units of the noise: d' of an ideal observer.
        visible: Least |J - I| at the peak in units of the noise: no eye sums over a wide, faint shade.
        weights: Type -> how often, relative to the others.
        air: Gray level from which on pixels are air; None finds it.
    """

    number: tuple[int, int]
    pitch: tuple[float, float]
    contrast: tuple[float, float]
    opacity: tuple[float, float]
    detectability: float
    visible: float
    weights: dict[str, float]
    air: float | None = None


def look_at(image: np.ndarray, opacity: float = 4.0, air: float | None = None) -> Look:
    """Estimate how a radiograph was taken.

    Mery's q = white / (1 - e^opacity) holds where black is 0; here it counts from the level of the unexposed
    pixels, if there are any.

    Args:
        image: (H, W) uint8, uint16 or float32, brighter where there is less metal.
        opacity: mu·x of the metal that would be black.
        air: Gray level from which on pixels are air; None finds it.
    """
    white = _WHITE[image.dtype]
    dark, found = appearance.part_levels(image, white)
    black = float(image[:: max(1, image.shape[0] // 128)].min()) if np.isfinite(dark) else 0.0
    return Look(
        dark=dark,
        air=found if air is None else air,
        white=white,
        q=black - (white - black) / np.expm1(opacity),
        unsharpness=appearance.unsharpness(image),
        quantum=white / 65535 if image.dtype == np.float32 else 1.0,
    )


def draw_shape(
    rng: np.random.Generator, kind: str, pitch: float, blur: float, angle: float = 0.0
) -> np.ndarray:
    """Draw a type's map of missing path, as a radiograph shows it.

    Args:
        rng: Source of the draw.
        kind: A key of `classes.CASTINGS`.
        pitch: mm per px at the part.
        blur: Unsharpness, sigma in px.
        angle: Turns it, radians.

    Returns:
        (H, W) float32, 1 at its peak (-1 where it adds metal), 0 around; no larger than it must be.
    """
    path = KINDS[kind].draw(rng, rng.uniform(*KINDS[kind].length))[0].astype(np.float32)
    side = max(3, round(path.shape[0] * STEP / pitch))
    filtering = cv2.INTER_AREA if pitch > STEP else cv2.INTER_LINEAR
    shape = cv2.resize(path, (side, side), interpolation=filtering)
    if angle:
        turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), np.degrees(angle), 1)
        shape = cv2.warpAffine(shape, turn, (side, side))
    edge = int(np.ceil(3 * blur)) + 1
    shape = cv2.copyMakeBorder(shape, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=0)
    shape = cv2.GaussianBlur(shape, (0, 0), blur) if blur > 0 else shape
    shape /= np.abs(shape).max()
    shape = np.sign(shape) * np.maximum(np.abs(shape) - TAIL, 0) / (1 - TAIL)
    rows, columns = (np.flatnonzero(np.any(shape, axis=axis)) for axis in (1, 0))
    return np.ascontiguousarray(shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], np.float32)


def superimpose(levels: np.ndarray, attenuation: np.ndarray, q: float) -> np.ndarray:
    """Gray levels with a flaw: J = e^(mu·d)·(I - q) + q, its noise grown as the noise of quanta grows.

    e^(mu·d) more quanta have e^(mu·d / 2) times the noise, not e^(mu·d) times: what the formula multiplies
    too much is taken from the radiograph's own noise, that is, from what is finer than 1.5 px and no edge.

    Args:
        levels: (H, W) float32.
        attenuation: (H, W) mu·d; below 0 where there is more metal.
        q: Level of infinitely thick metal.
    """
    fine = levels - cv2.GaussianBlur(levels, (0, 0), 1.5, borderType=cv2.BORDER_REFLECT_101)
    limit = 4 * appearance.noise(levels)
    fine = np.clip(fine, -limit, limit)
    return (
        levels + np.expm1(attenuation) * (levels - q) + (np.exp(attenuation / 2) - np.exp(attenuation)) * fine
    )


def draw_flaw(
    image: np.ndarray,
    kind: str,
    shape: np.ndarray,
    corner: tuple[int, int],
    look: Look,
    rng: np.random.Generator,
    recipe: Recipe,
) -> Drawn | None:
    """Draw a flaw into a radiograph, in its window only and on its part only.

    Args:
        image: (H, W) uint8, uint16 or float32; changed in place where the flaw is.
        kind: Its type.
        shape: From `draw_shape`.
        corner: y, x of the shape's upper left corner, px; parts outside of the image are cut off.
        look: Of the image.
        rng: Source of the draw of the contrast.
        recipe: Its `contrast`, above what the noise hides.

    Returns:
        What was drawn, or None where it would be off the part, hidden, or deeper than the metal.
    """
    y0, x0 = max(corner[0], 0), max(corner[1], 0)
    y1, x1 = (min(c + n, extent) for c, n, extent in zip(corner, shape.shape, image.shape))
    if y1 - y0 < 2 or x1 - x0 < 2:
        return None
    window = image[y0:y1, x0:x1]
    levels = window.astype(np.float32)
    inside = shape[y0 - corner[0] : y1 - corner[0], x0 - corner[1] : x1 - corner[1]] * _on_part(levels, look)
    if (inside**2).sum() < ON_PART * (shape**2).sum():
        return None

    around = image[max(y0 - 8, 0) : y1 + 8, max(x0 - 8, 0) : x1 + 8].astype(np.float32)
    # Rounding to levels is a noise of its own: uniform, with a deviation of 1 / sqrt(12).
    sigma = float(np.hypot(appearance.noise(around), look.quantum / np.sqrt(12)))
    peak = _draw_contrast(inside, levels, sigma, look, rng, recipe)
    if peak is None:
        return None
    attenuation = np.float32(np.log1p(peak)) * inside
    effect = np.abs(np.expm1(attenuation) * (levels - look.q))
    detectability = float(np.sqrt((effect**2).sum())) / sigma
    # Metal that is added takes away less than was reckoned with: c / (1 + c).
    if detectability < recipe.detectability or effect.max() < recipe.visible * sigma:
        return None
    drawn = superimpose(levels, attenuation, look.q)
    drawn = np.clip(drawn, 0, max(min(look.air, look.white), float(levels.max())))
    if image.dtype != np.float32:
        drawn = np.rint(drawn)
    covered = inside != 0
    if not (covered & (drawn != levels)).any():
        return None
    window[covered] = drawn[covered].astype(image.dtype)
    rows, columns = (np.flatnonzero(covered.any(axis)) for axis in (1, 0))
    box = (x0 + int(columns[0]), y0 + int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
    mask = covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Drawn(
        kind,
        box,
        mask,
        float(np.abs(np.expm1(attenuation)).max()),
        detectability,
        float(effect.max()) / sigma,
    )


def _draw_contrast(inside, levels, sigma: float, look: Look, rng, recipe: Recipe) -> float | None:
    """Draw e^(mu·d) - 1 between what the noise hides and what the metal has; None: nothing is between."""
    effect = np.abs(inside * (levels - look.q))
    if effect.max() <= 0:
        return None
    hidden = sigma * max(recipe.detectability / np.sqrt((effect**2).sum()), recipe.visible / effect.max())
    low, high = max(recipe.contrast[0], hidden), recipe.contrast[1]
    if inside.sum() > 0:
        here = max(float(np.median(levels)) - look.q, 1e-6)
        metal = np.log(max((min(look.air, look.white) - look.q) / here, 1))
        high = min(high, float(np.expm1(MOST_METAL * metal)))
    return float(np.exp(rng.uniform(np.log(low), np.log(high)))) if low <= high else None


def _on_part(levels: np.ndarray, look: Look) -> np.ndarray:
    """How much of a flaw each pixel shows: 0 on air and on unexposed pixels, 1 two sigma from them."""
    smooth = cv2.GaussianBlur(levels, (0, 0), 1)
    part = (smooth > look.dark) & (smooth < look.air) & (levels > look.dark) & (levels < look.air)
    if part.all():
        return np.ones_like(levels)
    distance = cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 3)
    return np.clip(distance / (2 * look.unsharpness + 1), 0, 1) * part


class Places:
    """Where in a radiograph a flaw may lie, at a quarter of the resolution.

    Args:
        image: (H, W).
        look: Of the image.
        taken: (N, 4) x1, y1, x2, y2 in px of the flaws that are there already.
    """

    def __init__(self, image: np.ndarray, look: Look, taken: np.ndarray):
        self.step = 4 if min(image.shape) >= 64 else 1
        size = tuple(max(1, extent // self.step) for extent in image.shape[::-1])
        self.small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        self.look = look
        part = ((self.small > look.dark) & (self.small < look.air)).astype(np.uint8)
        part = cv2.morphologyEx(part, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        self.free = part.astype(bool)
        self.taken = np.zeros_like(self.free)
        # Without air the transform has no end.
        distance = cv2.distanceTransform(part, cv2.DIST_L2, 3)
        self.distance = np.minimum(distance, max(part.shape)) * np.float32(self.step)
        for x1, y1, x2, y2 in np.asarray(taken, float).reshape(-1, 4):
            self.take(x1, y1, x2, y2)

    def take(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Keep a rectangle, px, free of further flaws."""
        part = self._part(x1, y1, x2, y2)
        self.free[part], self.taken[part] = False, True

    def is_taken(self, x1: float, y1: float, x2: float, y2: float) -> bool:
        """Whether a flaw lies in a rectangle, px."""
        return bool(self.taken[self._part(x1, y1, x2, y2)].any())

    def _part(self, x1: float, y1: float, x2: float, y2: float) -> tuple[slice, slice]:
        return tuple(
            slice(max(0, int(low // self.step)), max(0, int(-(-high // self.step))))
            for low, high in ((y1, y2), (x1, x2))
        )

    def choose(self, rng: np.random.Generator, place: str, length: float) -> tuple[int, int, float] | None:
        """Draw a place that suits a type.

        Args:
            rng: Source of the draw.
            place: Of its `synthetic.Kind`.
            length: Longest side of the flaw, px.

        Returns:
            y, x of its middle in px, and the direction of the edge there in radians; None without a place.
        """
        weight = self.free.astype(np.float32)
        if place in ('edge', 'cavity'):
            if not np.isfinite(self.look.air):
                return None
            weight *= (self.distance > 0.15 * length) & (self.distance < 0.5 * length)
        else:
            weight *= self.distance > 0.3 * length
            if place == 'thick':
                weight *= min(self.look.air, self.look.white) - self.small
            if place == 'step':
                smooth = cv2.GaussianBlur(self.small, (0, 0), 1)
                steep = np.abs(cv2.Sobel(smooth, -1, 1, 0)) + np.abs(cv2.Sobel(smooth, -1, 0, 1))
                weight *= steep + 0.05 * steep.max() + 1e-6
        total = np.cumsum(np.maximum(weight, 0).ravel(), dtype=float)
        if total[-1] <= 0:
            return None
        spot = int(np.searchsorted(total, rng.uniform(0, total[-1]), side='right'))
        row, column = divmod(min(spot, total.size - 1), weight.shape[1])
        angle = 0.0
        if place == 'edge':
            # The distance rises away from the edge, which lies across.
            window = np.s_[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
            inwards = [
                float(cv2.Sobel(self.distance[window], -1, *order).mean()) for order in ((1, 0), (0, 1))
            ]
            angle = float(np.arctan2(inwards[1], inwards[0]) + np.pi / 2)
        jitter = rng.integers(self.step, size=2)
        return row * self.step + int(jitter[0]), column * self.step + int(jitter[1]), angle


def draw_flaws(
    image: np.ndarray, rng: np.random.Generator, recipe: Recipe, taken: Sequence = ()
) -> tuple[np.ndarray, list[Drawn]]:
    """Draw flaws into a copy of a radiograph.

    Args:
        image: (H, W) uint8, uint16 or float32, brighter where there is less metal.
        rng: Source of all draws.
        recipe: Which flaws.
        taken: (N, 4) x1, y1, x2, y2 in px where none may come.

    Returns:
        The copy, and the flaws in it; none in a blank image, and fewer than wanted where they find no room.
    """
    image = image.copy()
    wanted = int(rng.integers(recipe.number[0], recipe.number[1] + 1))
    if not wanted or image.min() == image.max():
        return image, []
    look = look_at(image, rng.uniform(*recipe.opacity), recipe.air)
    pitch = float(np.exp(rng.uniform(*np.log(recipe.pitch))))
    places = Places(image, look, np.asarray(taken))
    kinds = list(recipe.weights)
    shares = np.array([recipe.weights[kind] for kind in kinds], float)
    shares /= shares.sum()
    flaws: list[Drawn] = []
    for _ in range(_TRIES * wanted):
        if len(flaws) == wanted:
            break
        kind = kinds[int(rng.choice(len(kinds), p=shares))]
        spot = places.choose(rng, KINDS[kind].place, np.mean(KINDS[kind].length) / pitch)
        if spot is None:
            continue
        shape = draw_shape(rng, kind, pitch, look.unsharpness, spot[2])
        corner = spot[0] - shape.shape[0] // 2, spot[1] - shape.shape[1] // 2
        if places.is_taken(corner[1], corner[0], corner[1] + shape.shape[1], corner[0] + shape.shape[0]):
            continue
        flaw = draw_flaw(image, kind, shape, corner, look, rng, recipe)
        if flaw is not None:
            flaws.append(flaw)
            x, y, width, height = flaw.bbox
            places.take(x - 4, y - 4, x + width + 4, y + height + 4)
    return image, flaws
