"""Corrections by an inspector, kept as COCO with a copy of each radiograph: `corrections.json`, `images/`."""

import json
import shutil
from pathlib import Path

from projects.line.runtime.archive import ArchiveError
from projects.line.runtime.folder import Exported
from projects.radiograph.files import draft_of, sha256, write_json
from projects.radiograph.parts import recorded_part

from .items import Item, check_unchanged


class Corrections:
    """What was decided in this and in earlier sittings.

    Args:
        out: Folder of `corrections.json` (COCO) and `images/`.
        exported: The detector whose classes they are in.

    Attributes:
        rows: Each image and its annotations, by the name of its copy.

    Raises:
        ArchiveError: `out` holds corrections in other classes, or damaged ones.
    """

    def __init__(self, out: Path, exported: Exported):
        self.out = out
        self.origin = exported.origin
        self.categories = [dict(id=k + 1, name=name) for k, name in enumerate(exported.classes)]
        self.rows = self._read()

    @property
    def path(self) -> Path:
        """Where they are."""
        return self.out / 'corrections.json'

    def keep_file(self, item: Item) -> None:
        """Copy an item's file to the corrections, if it is still what was inspected."""
        target = self.out / 'images' / item.file_name
        if target.is_file() and sha256(target) == item.digest:
            return
        check_unchanged(item.path, item.digest)
        with draft_of(target) as draft:
            shutil.copyfile(item.path, draft)
            check_unchanged(draft, item.digest)

    def _read(self) -> dict[str, tuple[dict, list[dict]]]:
        """Read the corrections that are there: each image and its annotations, by the name of its file."""
        path = self.path
        if not path.is_file():
            return {}
        try:
            earlier = json.loads(path.read_text())
            categories = earlier['categories']
            rows = {image['id']: (image, []) for image in earlier['images']}
            for annotation in earlier['annotations']:
                rows[annotation['image_id']][1].append(annotation)
            kept = {image['file_name']: (image, annotations) for image, annotations in rows.values()}
            labels = {box['label'] for row in rows.values() for box in as_decided(*row)['boxes']}
            if len(kept) < len(earlier['images']) or not labels <= set(range(len(categories))):
                raise ValueError('an id or name twice, or a label of no class')
        except (ValueError, KeyError, TypeError):
            raise ArchiveError(f'{path}: expected corrections of this page; give another --out') from None
        if categories != self.categories:
            names = [[category['name'] for category in found] for found in (categories, self.categories)]
            raise ArchiveError(
                f'{path}: holds corrections in the classes {names[0]}, expected {names[1]} as of this '
                'detector; give another --out'
            )
        return kept

    def save(self, item: Item) -> None:
        """Add a decision to those of this and of earlier sittings; a radiograph's last one counts."""
        rows = self._read()
        image = dict(file_name=item.file_name, width=item.size[1], height=item.size[0])
        image |= dict(verdict=item.decision, **(dict(part=item.part) if item.part else {}))
        boxes = [
            dict(
                category_id=entry['label'] + 1,
                bbox=[x1, y1, round(x2 - x1, 1), round(y2 - y1, 1)],
                area=round((x2 - x1) * (y2 - y1), 1),
                iscrowd=0,
            )
            for entry in item.boxes
            for x1, y1, x2, y2 in [entry['box']]
        ]
        rows[item.file_name] = (image, boxes)
        images, annotations = [], []
        for image, boxes in rows.values():
            images.append(image | dict(id=len(images) + 1))
            for box in boxes:
                annotations.append(box | dict(id=len(annotations) + 1, image_id=len(images)))
        content = dict(
            info=dict(
                description='corrections by an inspector',
                origin=self.origin,
                group=self.origin.get('part_rule'),
            ),
            images=images,
            annotations=annotations,
            categories=self.categories,
        )
        write_json(self.path, content)
        self.rows = rows


def as_decided(image: dict, annotations: list[dict]) -> dict:
    """Return what an item has after the decision that an image of the corrections, with its boxes, holds.

    Raises:
        ValueError: No decision of this page; or KeyError, TypeError.
    """
    if image['verdict'] not in ('accept', 'reject'):
        raise ValueError(image['verdict'])
    boxes = []
    for annotation in annotations:
        x, y, width, height = annotation['bbox']
        # Both sides were rounded when they were kept.
        x2, y2 = min(round(x + width, 1), image['width']), min(round(y + height, 1), image['height'])
        boxes.append(dict(box=[x, y, x2, y2], label=annotation['category_id'] - 1, score=None))
    return dict(decision=image['verdict'], part=recorded_part(image) or '', boxes=boxes)
