"""Training crops at native size, around flaws and at sound places, for detectors of small flaws."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.registry import TRANSFORMS

from .resize import resize

_TRIES = 10  # attempts to find a place without a flaw


@TRANSFORMS.register_module()
class XrayFlawCrop(BaseTransform):
    """Crop a square from a labelled radiograph, around one of its flaws or at a sound place.

    The content is scaled by a random factor. The square is then `size` px wide, so that every crop costs the
    same. A smaller image is not cropped in that direction. If less than `visible` of a flaw is in the crop,
    its box is marked as ignored, so that it counts neither as a flaw nor as sound material.

    Required key: `img` (H, W); for a labelled radiograph also `gt_bboxes` (HorizontalBoxes),
    `gt_bboxes_labels` and `gt_ignore_flags`. Changed keys: these, `img_shape`, and `gt_masks` if present.

    With `side` the factor depends on a randomly chosen flaw of the image: it is drawn from the factors in
    `scale` that bring the flaw's side into this range. The detector then learns all flaw sizes, whatever the
    sizes of the labelled flaws. Crops at sound places are scaled in the same way.

    Args:
        size: Width and height of the crop in px.
        flaw: Probability of a crop around a flaw, if the image has one.
        scale: Range of the factor that scales the content, drawn log-uniformly.
        visible: Least share of a box's area inside the crop, in [0, 1].
        side: Range of a flaw's side in the crop, px (square root of its area); None for any size.
        stretch: Largest ratio between the scale factors of width and height, drawn log-uniformly in both
            directions, since unseen flaws may be longer than labelled ones.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        size: int = 256,
        flaw: float = 0.75,
        scale: Sequence[float] = (0.8, 1.25),
        visible: float = 0.5,
        side: Sequence[float] | None = None,
        stretch: float = 1.0,
    ):
        low, high = scale
        if size < 1 or not 0 <= flaw <= 1 or not 0 < low <= high or not 0 <= visible <= 1:
            raise ValueError(
                f'XrayFlawCrop: size={size}, flaw={flaw}, scale={scale}, visible={visible}, expected a size '
                'in px, a probability, 0 < low <= high and a share of the area'
            )
        if side is not None and not 0 < side[0] <= side[1]:
            raise ValueError(f'XrayFlawCrop: side={side}, expected 0 < low <= high in px, or None')
        self.size, self.flaw, self.scale, self.visible = size, flaw, (float(low), float(high)), visible
        if stretch < 1:
            raise ValueError(f'XrayFlawCrop: stretch={stretch}, expected a ratio of at least 1')
        self.side = None if side is None else (float(side[0]), float(side[1]))
        self.stretch = float(stretch)

    def transform(self, results: dict) -> dict:
        """Replace the image and its boxes by a crop and its boxes."""
        image = results['img']
        labelled = 'gt_bboxes' in results
        boxes = results['gt_bboxes'].tensor.numpy() if labelled else np.empty((0, 4), np.float32)
        boxes = boxes.reshape(-1, 4)
        chosen = boxes[np.random.randint(len(boxes))] if len(boxes) else None
        factor = self.factor(chosen)
        wider = self.stretch ** np.random.uniform(-0.5, 0.5) if self.stretch > 1 else 1.0
        sides = [max(1, round(self.size / f)) for f in (factor / wider, factor * wider)]
        height, width = (min(side, extent) for side, extent in zip(sides, image.shape))
        y, x = self.place(image.shape, (height, width), boxes, chosen)
        crop = image[y : y + height, x : x + width]
        # A side shortened by the image's border is scaled by the same factor.
        target = tuple(
            max(1, min(self.size, round(extent * self.size / side)))
            for extent, side in zip(crop.shape, sides)
        )
        crop = np.ascontiguousarray(crop) if target == crop.shape else resize(crop, target)

        results['img'] = crop
        results['img_shape'] = crop.shape
        if not labelled:
            return results
        kept, ignored, moved = self.boxes_in(boxes, (y, x, height, width))
        moved *= np.tile([target[1] / width, target[0] / height], 2).astype(np.float32)
        results['gt_bboxes'] = HorizontalBoxes(moved)
        results['gt_bboxes_labels'] = results['gt_bboxes_labels'][kept]
        results['gt_ignore_flags'] = results['gt_ignore_flags'][kept] | ignored
        if 'gt_masks' in results:
            part = np.array([x, y, x + width, y + height])
            results['gt_masks'] = results['gt_masks'][kept].crop(part).resize(target)
        return results

    def factor(self, box: np.ndarray | None) -> float:
        """Draw the factor that scales the content.

        Args:
            box: (4,) x1, y1, x2, y2 in px of the flaw that determines the factor; None without one.
        """
        low, high = self.scale
        if self.side is not None and box is not None:
            length = float(np.sqrt(max((box[2] - box[0]) * (box[3] - box[1]), 1)))
            # If no factor reaches the range, the nearest is used.
            low, high = (float(np.clip(side / length, *self.scale)) for side in self.side)
        return float(np.exp(np.random.uniform(np.log(low), np.log(high))))

    def place(self, shape: tuple, crop: tuple, boxes: np.ndarray, chosen: np.ndarray) -> tuple[int, int]:
        """Draw the upper left corner (y, x) of a crop.

        Args:
            shape: Height and width of the image, px.
            crop: Height and width of the crop, px.
            boxes: (N, 4) x1, y1, x2, y2 in px.
            chosen: (4,) the box inside a crop around a flaw; None without boxes.
        """
        last = shape[0] - crop[0], shape[1] - crop[1]
        if len(boxes) and np.random.rand() < self.flaw:
            x1, y1, x2, y2 = chosen
            return tuple(
                self._around(low, high, extent, end)
                for low, high, extent, end in ((y1, y2, crop[0], last[0]), (x1, x2, crop[1], last[1]))
            )
        for _ in range(_TRIES):
            y, x = (np.random.randint(end + 1) for end in last)
            if not self._touches(boxes, (y, x, *crop)).any():
                break
        return y, x

    @staticmethod
    def _around(low: float, high: float, extent: int, end: int) -> int:
        """Draw the start of a crop that contains [low, high], or its middle if it is longer than the crop."""
        if high - low > extent:
            first = final = (low + high - extent) / 2
        else:
            first, final = high - extent, low
        first, final = (int(np.clip(v, 0, end)) for v in (np.ceil(first), np.floor(final)))
        return int(np.random.randint(first, max(first, final) + 1))

    @staticmethod
    def _touches(boxes: np.ndarray, part: tuple) -> np.ndarray:
        y, x, height, width = part
        return (boxes[:, 0] < x + width) & (boxes[:, 2] > x) & (boxes[:, 1] < y + height) & (boxes[:, 3] > y)

    def boxes_in(self, boxes: np.ndarray, part: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Clip boxes to a part of the image.

        Args:
            boxes: (N, 4) x1, y1, x2, y2 in px of the image.
            part: y, x, height and width of the part, px.

        Returns:
            Indices (K,) of the boxes that touch the part; (K,) whether less than `visible` of each lies in
            it; (K, 4) float32 boxes in px of the part.
        """
        y, x, height, width = part
        kept = np.flatnonzero(self._touches(boxes, part))
        moved = boxes[kept] - np.array([x, y, x, y], np.float32)
        moved[:, 0::2] = moved[:, 0::2].clip(0, width)
        moved[:, 1::2] = moved[:, 1::2].clip(0, height)
        whole = np.prod(boxes[kept, 2:] - boxes[kept, :2], axis=1)
        inside = np.prod(moved[:, 2:] - moved[:, :2], axis=1)
        return kept, inside < self.visible * whole, moved.astype(np.float32)

    def __repr__(self) -> str:
        """Show the arguments."""
        return (
            f'{type(self).__name__}(size={self.size}, flaw={self.flaw}, scale={self.scale}, '
            f'visible={self.visible}, side={self.side}, stretch={self.stretch:g})'
        )
