"""A tiny labelled set in the layout that the converters write."""

import json
from pathlib import Path

import cv2
import numpy as np

from .plates import draw_radiograph, outline_of


def draw_set(
    root: Path,
    n: int = 4,
    bits: int = 8,
    types: tuple[str, ...] = ('crack', 'gas_pore'),
    empty: int = 0,
    unlabeled: int = 0,
    size: int = 96,
    seed: int = 0,
    masks: bool = False,
) -> Path:
    """Draw `n` radiographs per split into `root`, the last `empty` of them free of defects; returns `root`.

    The types take turns, so `n - empty >= len(types)` shows every type in every split.

    Args:
        root: New folder.
        n: Radiographs per split.
        bits: Of a gray level.
        types: Of the defects.
        empty: So many of each split have no defect.
        unlabeled: Radiographs in `unlabeled`.
        size: Sides in px.
        seed: Of the drawing.
        masks: Each box comes with the polygon of its ellipse.
    """
    rng = np.random.default_rng(seed)
    (root / 'images').mkdir(parents=True)
    top = 2**bits - 1
    dtype = np.uint8 if bits == 8 else np.uint16

    def write(path, image):
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.round(image * top).astype(dtype))

    for split in ('train', 'val', 'test'):
        images, annotations = [], []
        for i in range(n):
            image, boxes = draw_radiograph(rng, size, 0 if i >= n - empty else 1 + i % 2)
            file_name = f'{split}_{i:03d}.png'
            write(root / 'images' / file_name, image)
            images.append(
                dict(
                    id=i + 1,
                    file_name=file_name,
                    width=size,
                    height=size,
                    part=f'{split}{i // 2}',
                    view=i % 2,
                )
            )
            for k, box in enumerate(boxes):
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=i + 1,
                        category_id=(i + k) % len(types) + 1,
                        bbox=box,
                        area=round(box[2] * box[3], 2),
                        iscrowd=0,
                        **(dict(segmentation=[outline_of(box)]) if masks else {}),
                    )
                )
        categories = [dict(id=k + 1, name=name) for k, name in enumerate(types)]
        coco = dict(
            info=dict(description='drawn for a test'),
            images=images,
            annotations=annotations,
            categories=categories,
        )
        (root / f'{split}.json').write_text(json.dumps(coco))
    for i in range(unlabeled):
        image, _ = draw_radiograph(rng, size, i % 2)
        write(root / 'unlabeled' / f'{i // 10:02d}' / f'{i:03d}.png', image)
    return root
