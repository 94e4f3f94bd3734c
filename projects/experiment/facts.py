"""What a converted data set holds, as far as it decides how a detector for it is trained."""

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
SAMPLED = 16  # radiographs that are read for their gray levels


class ExperimentError(MMXrayError, ValueError):
    """An experiment that cannot be set up; one line with the file, what was expected and the remedy."""


@dataclass
class Facts:
    """What is in `<root>/train.json`, `val.json`, `test.json` and `unlabeled/`.

    Attributes:
        root: Folder that tools/convert_dataset.py wrote.
        classes: Names of the classes, in label order.
        images: Labelled radiographs of each split.
        sound: Those of them without a box, by split.
        boxes: Of training, at native size; crowd left out.
        counts: Boxes of training by class.
        types: Defect types that are drawn in training.
        drawable: Those of the 19 types that `DrawFlaws` can draw and the severity map knows.
        unlabeled: Radiographs of the archive.
        parts_known: Whether a rule told which images show one part.
        critical_parts: Parts of test with a critical flaw; images where no part is known.
        window: Window that the gray levels of a sample ask for.
        gray: What was found of the gray levels, in words.
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
        """Square root of the area of each box of training, px of the file, (N,)."""
        return np.sqrt(self.boxes.native[:, 2] * self.boxes.native[:, 3])

    @property
    def size(self) -> tuple[int, int]:
        """Median width and height of the radiographs that show a flaw, px."""
        width, height = np.median(self.boxes.sizes, axis=0)
        return int(width), int(height)


def read_facts(root: Path, severity: str | Mapping) -> Facts:
    """Read a converted data set.

    Args:
        root: Folder that tools/convert_dataset.py wrote.
        severity: See `severity.read_severity`.

    Raises:
        ExperimentError: It is no such folder, or its images cannot be read.
        DatasetError: Its annotations or the severity map cannot be used.
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
    # Classes run from the most severe to the least, their ids from 1.
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
    """Choose one window for the whole set: the range that files state, unless that would leave it dark.

    A 12-bit radiograph in a 16-bit PNG does not say so: where no pixel of a sample reaches a quarter of the
    range that its file states, the window ends at the next power of two above the brightest one.

    Args:
        folder: Of the images.
        names: Below it.

    Returns:
        The window as `LoadXray` takes it, and what was found, in words.

    Raises:
        ExperimentError: None of the sample can be read.
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
