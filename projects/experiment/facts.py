"""Facts about a converted data set from which a recipe is chosen."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from projects.errors import MMXrayError
from projects.prepare.anchors import Boxes
from projects.radiograph.image import ImagingError
from projects.radiograph.listing import list_radiographs
from projects.radiograph.parts import recorded_part
from projects.radiograph.read import read
from projects.xray.classes import CLASSES
from projects.xray.datasets import flaw_labels, load_defects

SPLITS = ('train', 'val', 'test')
SAMPLED = 16  # radiographs read for their gray levels


class ExperimentError(MMXrayError, ValueError):
    """An experiment cannot be set up; one line with the file, what was expected and the remedy."""


@dataclass
class Facts:
    """Facts about `<root>/train.json`, `val.json`, `test.json` and `unlabeled/`.

    Attributes:
        root: Folder written by tools/convert_dataset.py.
        classes: Names of the classes, in label order.
        images: Number of labelled radiographs by split.
        sound: Number of labelled radiographs without a box, by split.
        boxes: Boxes of training at native size, without crowd boxes.
        counts: Number of boxes of training by class.
        types: Defect types annotated in training.
        drawable: The types that `DrawFlaws` can draw (of 19) and that the severity map contains.
        unlabeled: Number of radiographs in the archive.
        parts_known: Whether the part of each test image is known.
        critical_parts: Number of test parts with a critical flaw; an image without a part counts as a part.
        window: Window that fits the gray levels of a sample.
        gray: The gray levels of the sample, in words.
    """

    root: Path
    classes: tuple[str, ...]
    images: dict[str, int]
    sound: dict[str, int]
    boxes: Boxes
    counts: dict[str, int]
    types: list[str]
    drawable: list[str]
    unlabeled: int
    parts_known: bool
    critical_parts: int
    window: dict
    gray: str

    @property
    def sides(self) -> np.ndarray:
        """Square root of the area of each training box in px of the file, (N,)."""
        return np.sqrt(self.boxes.native[:, 2] * self.boxes.native[:, 3])

    @property
    def size(self) -> tuple[int, int]:
        """Median width and height of the radiographs that show a flaw, px."""
        width, height = np.median(self.boxes.sizes, axis=0)
        return int(width), int(height)


def read_facts(root: Path, severity: str | Mapping) -> Facts:
    """Read a converted data set.

    Args:
        root: Folder written by tools/convert_dataset.py.
        severity: See `severity.read_severity`.

    Raises:
        ExperimentError: The folder is no converted data set, or its images cannot be read.
        DatasetError: The annotations or the severity map cannot be used.
    """
    missing = [f'{split}.json' for split in SPLITS if not (root / f'{split}.json').is_file()]
    if missing:
        raise ExperimentError(
            f'{root}: expected a converted data set with train.json, val.json and test.json, {missing[0]} is '
            'not there; convert your labels with tools/convert_dataset.py (--help lists the formats)'
        )
    sets = {split: load_defects(root / f'{split}.json', CLASSES, severity) for split in SPLITS}
    learnt = [a for a in sets['train']['annotations'] if not a['iscrowd']]
    records = {record['id']: record for record in sets['train']['images']}
    native = np.array([a['bbox'] for a in learnt], float)
    owners = [records[a['image_id']] for a in learnt]
    sizes = np.array([[r['width'], r['height']] for r in owners], float)
    names = {c['id']: c['name'] for c in sets['train']['categories']}
    archive = root / 'unlabeled'
    window, gray = find_window(root / 'images', [r['file_name'] for r in sets['train']['images']])
    parts = {r['id']: recorded_part(r) for r in sets['test']['images']}
    # Classes are ordered from the most to the least severe, with ids from 1.
    tested = [a for a in sets['test']['annotations'] if not a['iscrowd']]
    critical = {a['image_id'] for a in tested if a['category_id'] == 1}
    return Facts(
        root=root,
        classes=CLASSES,
        images={split: len(coco['images']) for split, coco in sets.items()},
        sound={split: _without_boxes(coco) for split, coco in sets.items()},
        boxes=Boxes(native, native, sizes),
        counts={name: sum(names[a['category_id']] == name for a in learnt) for name in CLASSES},
        types=sorted({a['type'] for a in learnt}),
        drawable=list(flaw_labels(CLASSES, severity)),
        unlabeled=len(list_radiographs(archive)[0]) if archive.is_dir() else 0,
        parts_known=all(parts.values()),
        critical_parts=len({parts[i] or i for i in critical}),
        window=window,
        gray=gray,
    )


def _without_boxes(coco: Mapping) -> int:
    return len(coco['images']) - len({a['image_id'] for a in coco['annotations']})


def find_window(folder: Path, names: list[str]) -> tuple[dict, str]:
    """Choose one window for the whole set: the range stated in the files, unless images would be dark.

    A 16-bit PNG does not state that its radiograph has 12 bits. If no pixel of a sample reaches a quarter of
    the stated range, the window ends at the next power of two above the brightest pixel.

    Args:
        folder: Folder of the images.
        names: Files below the folder.

    Returns:
        The window in the form that `LoadXray` takes, and the gray levels in words.

    Raises:
        ExperimentError: No radiograph of the sample can be read.
    """
    chosen = np.unique(np.linspace(0, len(names) - 1, min(len(names), SAMPLED)).round().astype(int))
    found, error = [], None
    for position in chosen:
        try:
            image = read(Path(folder, names[position]), frame=0)
        except (ImagingError, OSError) as problem:
            error = problem
            continue
        found.append((float(image.pixels.min()), float(image.pixels.max()), image.low, image.high))
    if not found:
        raise ExperimentError(f'{folder}: expected readable radiographs ({error}); copy them again')
    darkest, brightest = min(f[0] for f in found), max(f[1] for f in found)
    low, high = min(f[2] for f in found), max(f[3] for f in found)
    reason = f'gray levels {darkest:g} to {brightest:g} of the {low:g} to {high:g} that the files state'
    if not np.isfinite([low, high]).all():  # floating point states no range
        return dict(type='absolute', low=darkest, high=brightest), f'gray levels {darkest:g} to {brightest:g}'
    if darkest >= 0 and brightest < high / 4 and brightest > 0:
        top = 2 ** int(np.ceil(np.log2(brightest + 1))) - 1
        return dict(type='absolute', low=0, high=top), reason
    return dict(type='full'), reason
