"""Flaws drawn into the radiographs of a data set: to train without labels, with few, and to prove."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.registry import TRANSFORMS

from projects.xray.classes import CASTINGS
from projects.xray.datasets import DatasetError

from .drawn import Drawn, Recipe, draw_flaws

_WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 255}


@TRANSFORMS.register_module()
class DrawFlaws(BaseTransform):
    """Draw flaws of the 19 types into a radiograph, with their boxes and classes.

    On unlabelled radiographs (`XrayBackgrounds`) it makes a training set out of nothing; on labelled ones
    (`XrayDefects`) it adds to them, clear of the boxes that are there. Drawn are the types for which the
    data set has a class. Pixels outside of a drawn flaw keep their gray level. Shapes, superposition and
    what is taken from the image itself: `drawn.py`.

    Required keys: `img` (H, W), and `flaw_labels`, which the data sets give. Changed: `img`, `gt_bboxes`,
    `gt_bboxes_labels`, `gt_ignore_flags`, and `gt_masks` if there. Added: `drawn`, a list of `drawn.Drawn`.

    Args:
        number: Least and most flaws in a radiograph; a place that suits them need not be there.
        pitch: Range of mm per px at the part, drawn log-uniformly, or one number; flaws are 0.8 to 11 mm.
        contrast: Range of e^(mu·d) - 1 at a flaw's peak, from tiny to plain, drawn log-uniformly.
        opacity: Range of mu·x of the metal that would be black.
        detectability: Least d' = sqrt(sum (J - I)²) / noise, so that what is annotated can be seen.
        visible: Least |J - I| at the peak, in units of the noise.
        weights: Type -> how often it is drawn; 1 where not given.
        margin: Share of its width and height by which a box is widened on each side: annotators leave some.
        air: Gray level from which on pixels are air; None finds it.
        film: Less metal is darker, as on film.
        prob: Probability that anything is drawn.

    Raises:
        ValueError: An argument out of its range.
        DatasetError: The data set gives no labels, or none of the types has a class.
    """

    def __init__(
        self,
        number: Sequence[int] = (1, 4),
        pitch: float | Sequence[float] = (0.1, 0.4),
        contrast: Sequence[float] = (0.02, 1.0),
        opacity: Sequence[float] = (3.0, 6.0),
        detectability: float = 10.0,
        visible: float = 2.0,
        weights: Mapping[str, float] | None = None,
        margin: float = 0.0,
        air: float | None = None,
        film: bool = False,
        prob: float = 1.0,
    ):
        pitch = (pitch, pitch) if isinstance(pitch, int | float) else tuple(pitch)
        for name, (low, high) in dict(pitch=pitch, contrast=contrast, opacity=opacity).items():
            if not 0 < low <= high < np.inf:
                raise ValueError(f'DrawFlaws: {name}={(low, high)}, expected 0 < low <= high')
        if not 0 <= number[0] <= number[1]:
            raise ValueError(f'DrawFlaws: number={number}, expected 0 <= least <= most')
        if not 0 <= prob <= 1 or margin < 0 or detectability < 0 or visible < 0:
            raise ValueError(
                f'DrawFlaws: prob={prob}, margin={margin}, detectability={detectability}, visible={visible}, '
                'expected a probability in [0, 1] and numbers of at least 0'
            )
        weights = dict(weights or {})
        unknown = sorted(set(weights) - set(CASTINGS))
        if unknown or any(weight < 0 for weight in weights.values()):
            raise ValueError(
                f'DrawFlaws: weights={weights}, expected numbers of at least 0 of {list(CASTINGS)}'
            )
        self.number, self.pitch, self.contrast = tuple(number), pitch, tuple(contrast)
        self.opacity, self.detectability, self.visible = tuple(opacity), detectability, visible
        self.weights, self.margin, self.air, self.film, self.prob = weights, margin, air, film, prob

    def recipe(self, types: Sequence[str]) -> Recipe:
        """Return what to draw, of the types that have a class."""
        weights = {kind: float(self.weights.get(kind, 1)) for kind in CASTINGS if kind in types}
        if not sum(weights.values()):
            raise DatasetError(
                f'DrawFlaws: none of the types {list(CASTINGS)} has a class in the data set and a weight '
                'above 0; map them in `severity`, or correct `weights`'
            )
        return Recipe(
            number=self.number,
            pitch=self.pitch,
            contrast=self.contrast,
            opacity=self.opacity,
            detectability=self.detectability,
            visible=self.visible,
            weights=weights,
            air=self.air,
        )

    def transform(self, results: dict) -> dict:
        """Draw into the image and add the boxes."""
        labels = results.get('flaw_labels')
        if labels is None:
            raise DatasetError(
                'DrawFlaws: the data set says no class of a type, expected XrayBackgrounds or XrayDefects'
            )
        # One draw from the global generator seeds the rest, a function of seed, epoch and index.
        rng = np.random.Generator(np.random.SFC64(np.random.randint(2**31)))
        flaws: list[Drawn] = []
        if rng.random() < self.prob:
            image = results['img']
            present = results['gt_bboxes'].tensor.numpy() if 'gt_bboxes' in results else np.empty((0, 4))
            white = _WHITE[image.dtype]
            positive = white - image if self.film else image
            drawn, flaws = draw_flaws(positive, rng, self.recipe(list(labels)), present)
            results['img'] = np.where(drawn == positive, image, white - drawn) if self.film else drawn
        results['drawn'] = flaws
        self._annotate(results, flaws, labels)
        return results

    def _annotate(self, results: dict, flaws: list[Drawn], labels: Mapping[str, int]) -> None:
        """Put the flaws behind the boxes that are there."""
        height, width = results['img'].shape
        boxes = np.array([flaw.bbox for flaw in flaws], np.float32).reshape(-1, 4)
        grown = boxes[:, 2:] * np.float32(self.margin)
        boxes = np.hstack([boxes[:, :2] - grown, boxes[:, :2] + boxes[:, 2:] + grown])
        boxes = boxes.clip(0, np.array([width, height] * 2, np.float32))
        if 'gt_bboxes' in results:
            before = results['gt_bboxes'].tensor
            boxes = torch.cat([before, torch.from_numpy(boxes).to(before.dtype)])
        results['gt_bboxes'] = HorizontalBoxes(boxes)
        kinds = np.array([labels[flaw.type] for flaw in flaws], np.int64)
        results['gt_bboxes_labels'] = np.concatenate([results.get('gt_bboxes_labels', kinds[:0]), kinds])
        flags = results.get('gt_ignore_flags', np.zeros(0, bool))
        results['gt_ignore_flags'] = np.concatenate([flags, np.zeros(len(flaws), bool)])
        if 'gt_masks' in results:
            results['gt_masks'] = _with_masks(results['gt_masks'], flaws)

    def __repr__(self) -> str:
        """Show the arguments."""
        return f'{type(self).__name__}({", ".join(f"{key}={value}" for key, value in vars(self).items())})'


def _with_masks(masks: BitmapMasks | PolygonMasks, flaws: list[Drawn]) -> BitmapMasks | PolygonMasks:
    """Add the pixels of drawn flaws to masks, as bitmaps or as outlines."""
    height, width = masks.height, masks.width
    full = np.zeros((len(flaws), height, width), np.uint8)
    for layer, flaw in zip(full, flaws):
        x, y, w, h = flaw.bbox
        layer[y : y + h, x : x + w] = flaw.mask
    if isinstance(masks, BitmapMasks):
        return BitmapMasks(np.concatenate([masks.masks.reshape(-1, height, width), full]), height, width)
    outlines = [
        [
            c.reshape(-1).astype(float)
            for c in cv2.findContours(layer, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        ]
        for layer in full
    ]
    # A contour of one or two points is no polygon: the box stands for it.
    for flaw, outline in zip(flaws, outlines):
        x, y, w, h = flaw.bbox
        box = np.array([x, y, x + w, y, x + w, y + h, x, y + h], float)
        outline[:] = [points for points in outline if points.size >= 6] or [box]
    return PolygonMasks([*masks.masks, *outlines], height, width)
