"""Nested shares of the training labels."""

import math

import numpy as np

from projects.radiograph.parts import recorded_part

from .plan import StudyError

# ------------------------------------------------------------------------------------------ fewer labels


def draw_subset(coco: dict, percent: int, by: str = 'part', seed: int = 0) -> dict:
    """Draw a share of an annotated set; a smaller share is a subset of a larger one.

    Args:
        coco: COCO dict.
        percent: Percent of the parts, or of the frames of each series; rounded up.
        by: 'part': all views of a part or none, with defective and defect-free parts in proportion; 'frame':
            frames of each `series`, since GDXray has few parts with many frames.
        seed: Seed of the order.

    Returns:
        COCO dict with the drawn images, in their order, and their annotations.

    Raises:
        StudyError: An image has no `part` (or `series`).
    """
    key = 'part' if by == 'part' else 'series'
    names = [recorded_part(image, key) for image in coco['images']]
    missing = [image['file_name'] for image, name in zip(coco['images'], names, strict=True) if name is None]
    if missing:
        raise StudyError(
            f'{len(missing)} images have no `{key}`, such as {missing[0]}; a share of the labels by {by} '
            'needs it: convert the data set again'
        )
    defective = {annotation['image_id'] for annotation in coco['annotations']}
    groups = {}
    for image, name in zip(coco['images'], names, strict=True):
        groups.setdefault(name, []).append(image)
    strata = {}
    if by == 'part':
        for name, images in groups.items():
            strata.setdefault(any(image['id'] in defective for image in images), []).append((name, images))
    else:
        for name, images in groups.items():
            strata[name] = [(f'{name}/{image["file_name"]}', [image]) for image in images]
    chosen = set()
    for number, units in enumerate(strata[name] for name in sorted(strata)):
        units = sorted(units, key=lambda unit: unit[0])
        order = np.random.default_rng([seed, number]).permutation(len(units))
        for position in order[: math.ceil(len(units) * percent / 100)]:
            chosen |= {image['id'] for image in units[position][1]}
    return dict(
        coco,
        images=[image for image in coco['images'] if image['id'] in chosen],
        annotations=[ann for ann in coco['annotations'] if ann['image_id'] in chosen],
    )
