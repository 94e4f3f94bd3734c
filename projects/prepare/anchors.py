"""Boxes at the input size of the model, and the fit of anchors to them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .findings import WARNING, Finding, ImageSet


def resize_of(pipeline: Sequence[dict]) -> tuple[tuple[int, int] | float, bool] | None:
    """Return scale (w, h) in px or factor, and `keep_ratio`, of a pipeline's only plain `Resize`, if any."""
    kinds = ('Resize', 'XrayResize', 'mmdet.Resize', 'mmpretrain.Resize')
    found = [step for step in pipeline if step.get('type') in kinds]
    if len(found) != 1:
        return None
    scale, factor = found[0].get('scale'), found[0].get('scale_factor')
    if not scale:
        return (float(factor), True) if isinstance(factor, int | float) else None
    scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
    return scale, bool(found[0].get('keep_ratio', False))


def input_factors(sizes: np.ndarray, scale: tuple[int, int] | float, keep_ratio: bool) -> np.ndarray:
    """Return the factors by which mmcv's `Resize` multiplies widths and heights.

    Args:
        sizes: (N, 2) width and height in px.
        scale: (w, h) in px, or a factor. With `keep_ratio`, its longer and shorter side bound those of the
            image.
        keep_ratio: use one factor for both sides.

    Returns:
        (N, 2) factors of width and height.
    """
    if isinstance(scale, float):
        return np.full_like(sizes, scale)
    if not keep_ratio:
        return np.array(scale, float) / sizes
    factor = np.minimum(max(scale) / sizes.max(1), min(scale) / sizes.min(1))
    return np.repeat(factor[:, None], 2, axis=1)


@dataclass
class Boxes:
    """The boxes of one split at the input size of the model.

    Attributes:
        native: (N, 4) x, y, w, h in px of the file.
        scaled: (N, 4) the same boxes after the resize.
        sizes: (N, 2) width and height of each box's image after the resize, px.
    """

    native: np.ndarray
    scaled: np.ndarray
    sizes: np.ndarray


def boxes_at_input(s: ImageSet) -> Boxes | None:
    """Scale the boxes of a labelled set by its pipeline's resize, without crowd.

    Return None for a set that cannot be loaded, or without a plain `Resize`.
    """
    resize = resize_of(s.pipeline)
    if s.coco is None or resize is None:
        return None
    records = {record['id']: record for record in s.coco['images']}
    learnt = [a for a in s.coco['annotations'] if not a['iscrowd']]
    native = np.array([a['bbox'] for a in learnt], float)
    owners = [records[a['image_id']] for a in learnt]
    sizes = np.array([[record['width'], record['height']] for record in owners], float)
    factors = input_factors(sizes, *resize)
    return Boxes(native, native * np.tile(factors, 2), sizes * factors)


def best_anchor_iou(boxes: Boxes, base_anchors: Sequence[np.ndarray], strides: Sequence[tuple]) -> np.ndarray:
    """Return the IoU of each box with its best anchor, over all levels and positions.

    Overlap decreases with the distance of the centres in x and in y. So for each anchor shape, only the
    position nearest to the box is tried.

    Args:
        boxes: see `Boxes`.
        base_anchors: per level (A, 4) x1, y1, x2, y2 in px at position (0, 0), as in mmdet's
            AnchorGenerator.
        strides: per level (x, y) in px.

    Returns:
        (N,) IoU.
    """
    x, y, w, h = boxes.scaled.T[:, :, None]
    best = np.zeros(len(boxes.scaled))
    for anchors, (step_x, step_y) in zip(base_anchors, strides):
        x1, y1, x2, y2 = anchors.T[:, None, :]
        columns, rows = np.ceil(boxes.sizes / (step_x, step_y)).T[:, :, None]
        shift_x = step_x * np.clip(np.rint((x + w / 2 - (x1 + x2) / 2) / step_x), 0, columns - 1)
        shift_y = step_y * np.clip(np.rint((y + h / 2 - (y1 + y2) / 2) / step_y), 0, rows - 1)
        wide = np.minimum(x + w, x2 + shift_x) - np.maximum(x, x1 + shift_x)
        high = np.minimum(y + h, y2 + shift_y) - np.maximum(y, y1 + shift_y)
        common = np.clip(wide, 0, None) * np.clip(high, 0, None)
        iou = common / (w * h + (x2 - x1) * (y2 - y1) - common)
        best = np.maximum(best, iou.max(1))
    return best


def check_anchors(
    scales: Sequence[float], fit: Callable[[Sequence[float]], np.ndarray]
) -> tuple[dict, list[Finding]]:
    """Judge the anchors of a region proposal network, and search for scales that fit better.

    Args:
        scales: anchor scales of the config.
        fit: best anchor IoU of each box, (N,), for given scales.

    Returns:
        dict with `iou` (N,), `share_50`, `share_70`, `scales`, and for the best one or two scales
        `better_scales`, `better_50` and `better_70`; and the findings.
    """

    def shares(iou):
        return float((iou >= 0.5).mean()), float((iou >= 0.7).mean())

    iou = fit(scales)
    half, high = shares(iou)
    tried = {}
    single = (2, 3, 4, 6, 8, 12, 16)
    for candidate in [(a,) for a in single] + [(a, b) for a in single for b in single if a < b <= 2 * a]:
        tried[candidate] = shares(fit(candidate))
    # More anchors cost time: take the fewest scales within a hundredth of the best.
    top = max(b for _, b in tried.values())
    better = min((len(c), -tried[c][1], c) for c in tried if tried[c][1] >= top - 0.01)[2]
    result = dict(
        iou=iou,
        scales=list(scales),
        share_50=half,
        share_70=high,
        better_scales=list(better),
        better_50=tried[better][0],
        better_70=tried[better][1],
    )
    findings = []
    if half < 0.95 or tried[better][1] > high + 0.1:
        remedy = ''
        if tried[better][1] > high:
            remedy = (
                f'model.rpn_head.anchor_generator.scales={list(better)} covers {tried[better][0]:.0%} and '
                f'{tried[better][1]:.0%}'
            )
        findings.append(
            Finding(
                WARNING,
                'anchors',
                f'anchor scales {list(scales)} cover {half:.0%} of the boxes with IoU >= 0.5 and {high:.0%} '
                'with >= 0.7',
                remedy or 'boxes are longer or smaller than anchors of any scale: see the box sizes',
            )
        )
    return result, findings


def check_box_size(s: ImageSet, boxes: Boxes) -> list[Finding]:
    """Warn if many boxes shrink to a few pixels at the model's input, and suggest a resize."""
    side = np.sqrt(boxes.scaled[:, 2] * boxes.scaled[:, 3])
    tiny = (side < 8).mean()
    if tiny <= 0.05:
        return []
    factor = 8 / np.percentile(side, 5)
    scale = resize_of(s.pipeline)[0]
    if isinstance(scale, float):
        size, wanted = f'{scale:g} of its size', f'scale_factor={scale * factor:.2g}'
    else:
        size = f'{scale[0]} x {scale[1]} px'
        wanted = ' x '.join(str(math.ceil(v * factor / 32) * 32) for v in scale) + ' px'
    return [
        Finding(
            WARNING,
            'boxes',
            f'{s.name}: {tiny:.0%} of the boxes are under 8 px (square root of the area) at the input of '
            f'{size}, two cells of a stride of 4',
            f'resize to {wanted}, or cut the images into tiles (--tile of tools/convert_dataset.py)',
        )
    ]
