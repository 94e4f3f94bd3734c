"""The cost of each kind of mistake in AP50, by oracles: python -m projects.measures.mistakes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .images import Bools, Floats, InspectedImage, Ints, MeasureError, read_images
from .matching import box_iou
from .ranking import average_precision_at

HIT = 0.5  # IoU of a hit
LOOSE = 0.1  # smallest IoU of a loose box; a box with less lies on sound material


def mend_extents(image: InspectedImage, label: int) -> InspectedImage:
    """Replace loose boxes of a class by those of their flaws: TIDE's localisation oracle (Bolya et al. 2020).

    A box is loose if its best IoU with a flaw is at least `LOOSE` and below `HIT`. For a flaw without a hit,
    the loose box with the highest score is replaced, and the others are dropped. Hits and second hits stay.

    Args:
        image: Truth and detections.
        label: The class.

    Returns:
        The image with the new detections of this class.
    """
    order, near = _overlaps(image, label)
    best = near.max(1, initial=0.0)
    found = set(_hits(near).values())
    boxes, kept = image.boxes.copy(), np.ones(len(image.boxes), bool)
    for row in np.flatnonzero((best >= LOOSE) & (best < HIT)):
        flaw = int(near[row].argmax())
        kept[order[row]] = flaw not in found
        boxes[order[row]] = image.truth_boxes[flaw]
        found.add(flaw)
    return _keep(replace(image, boxes=boxes), kept)


def drop_sound(image: InspectedImage, label: int) -> InspectedImage:
    """Drop the boxes of a class whose IoU with every flaw of the class is below `LOOSE`.

    This is TIDE's background oracle.

    Args:
        image: Truth and detections.
        label: The class.

    Returns:
        The image without these boxes.
    """
    order, near = _overlaps(image, label)
    kept = np.ones(len(image.boxes), bool)
    kept[order] = near.max(1, initial=0.0) >= LOOSE
    return _keep(image, kept)


def costs(images: Sequence[InspectedImage], label: int) -> dict[str, float | None]:
    """Return the AP50 of a class, unchanged and with each kind of mistake corrected.

    Args:
        images: From `read_images`, of one detector.
        label: The class.

    Returns:
        AP50 in [0, 1] by the kind of correction; None without a flaw of the class.
    """

    def ap(mend: Callable[[InspectedImage], InspectedImage]) -> float | None:
        return average_precision_at([mend(image) for image in images], label, HIT)(np.arange(len(images)))

    return {
        'AP50': ap(lambda image: image),
        'extent mended': ap(lambda image: mend_extents(image, label)),
        'sound material dropped': ap(lambda image: drop_sound(image, label)),
        'both': ap(lambda image: mend_extents(drop_sound(image, label), label)),
    }


def _overlaps(image: InspectedImage, label: int) -> tuple[Ints, Floats]:
    """Return the detections (K) of a class by falling score, and their IoU (K, G) with its flaws, else 0."""
    mine = (image.truth_labels == label) & ~image.ignored
    order = np.flatnonzero(image.labels == label)
    order = order[np.argsort(-image.scores[order], kind='stable')]
    return order, box_iou(image.boxes[order], image.truth_boxes) * mine


def _hits(near: Floats) -> dict[int, int]:
    """Return the flaw of each hit: by falling score, each detection takes the best free flaw."""
    free, hits = np.ones(near.shape[1], bool), {}
    for row in np.flatnonzero((near >= HIT).any(1)):
        left = np.where(free, near[row], -1.0)
        if left.max() >= HIT:
            hits[int(row)] = int(left.argmax())
            free[left.argmax()] = False
    return hits


def _keep(image: InspectedImage, kept: Bools) -> InspectedImage:
    return replace(
        image,
        boxes=image.boxes[kept],
        scores=image.scores[kept],
        labels=image.labels[kept],
        areas=image.areas[kept],
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print a Markdown table with a row for each file and class; return the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m projects.measures.mistakes',
        description=(__doc__ or '').split(':')[0],
        epilog='example: python -m projects.measures.mistakes work_dirs/study/*/*/seed*/predictions_val.json',
    )
    parser.add_argument('predictions', nargs='+', type=Path, metavar='FILE', help='written by tools/test.py')
    args = parser.parse_args(argv)
    for position, path in enumerate(args.predictions):
        try:
            kept = json.loads(path.read_bytes())
            images = read_images(kept['truth'], kept['detections'])
        except (OSError, ValueError, KeyError, TypeError, MeasureError) as error:
            print(
                f'error: {path}: expected predictions as tools/test.py writes them: {error}', file=sys.stderr
            )
            return 1
        for label, category in enumerate(kept['truth']['categories']):
            row = costs(images, label)
            if not position and not label:
                print(f'| file | class | {" | ".join(row)} |\n|---|---|' + '---:|' * len(row))
            cells = ['–' if value is None else f'{value:.3f}' for value in row.values()]
            print(f'| {path.parent.name} | {category["name"]} | {" | ".join(cells)} |', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
