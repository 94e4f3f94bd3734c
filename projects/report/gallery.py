"""The gallery of a report: every missed critical defect, then false alarms, as windowed crops."""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from projects.measures.images import CRITICAL
from projects.radiograph.image import ImagingError
from projects.radiograph.remote import is_url, read_radiograph
from projects.radiograph.store import locate
from projects.radiograph.window import apply_window

from .compare import Group
from .measured import Measured

THUMBNAIL = 112  # px of a crop in the page
CONTEXT = 3.0  # ratio of a crop's side to its box's side
QUALITY = 72  # of JPEG: about 3 kB per crop
LARGE = 512  # least side in px of the radiograph in the enlarged picture, if the radiograph is as large
LARGE_QUALITY = 90
ESCAPES = ('missed', 'called minor', 'refused')


@dataclass
class Item:
    """A missed critical defect or a false alarm.

    Attributes:
        kind: 'missed', 'called minor', 'refused' (missed, as the frame was not inspected) or 'false alarm'.
        group: Data set, backbone and recipe.
        arm: See `Run.arm`.
        seed: Seed of the run.
        fraction: Percent of the labels.
        file: File of the image, relative to the image folder.
        part: The physical part.
        type: Defect type; '–' for a false alarm.
        size: Square root of the box's area in px.
        score: Score of the false alarm, or of the detection with the wrong class; None without a detection.
        box: x1, y1, x2, y2 in px.
        measured: The run.
        position: Position of the image in the run.
    """

    kind: str
    group: str
    arm: str
    seed: int | None
    fraction: int
    file: str
    part: str | None
    type: str
    size: float
    score: float | None
    box: list[float]
    measured: Measured
    position: int


def collect(groups: Sequence[Group]) -> list[Item]:
    """List all escapes of all runs, largest first, then all false alarms, highest score first."""
    escapes, alarms = [], []
    for group in groups:
        for arm in group.arms:
            for measured in arm.members:
                for position, matched in enumerate(measured.matched):
                    _collect_image(group, arm, measured, position, matched, escapes, alarms)
    return sorted(escapes, key=lambda i: -i.size) + sorted(alarms, key=lambda i: -i.score)


def _collect_image(group, arm, measured, position, matched, escapes, alarms):
    image, threshold = matched.image, measured.threshold
    record = measured.run.predictions.truth['images'][position]
    common = dict(
        group=group.name,
        arm=arm.name,
        seed=measured.run.seed,
        fraction=arm.fraction,
        file=record['file_name'],
        part=None if image.part is None else str(image.part),
        measured=measured,
        position=position,
    )
    critical = (image.truth_labels == CRITICAL) & ~image.ignored
    for g in np.flatnonzero(critical & (matched.right_scores < threshold)):
        misnamed = matched.wrong_scores[g] >= threshold
        box = image.truth_boxes[g]
        escapes.append(
            Item(
                kind='refused' if image.refused is not None else ESCAPES[int(misnamed)],
                type=image.truth_types[g],
                size=_side(box),
                score=float(matched.wrong_scores[g]) if misnamed else None,
                box=box.tolist(),
                **common,
            )
        )
    scores, labels = image.scores[matched.kept], image.labels[matched.kept]
    false = (matched.outcomes == 'false alarm') & (labels == CRITICAL) & (scores >= threshold)
    for k in np.flatnonzero(false):
        box = image.boxes[matched.kept[k]]
        alarms.append(
            Item(
                kind='false alarm',
                type='–',
                size=_side(box),
                score=float(scores[k]),
                box=box.tolist(),
                **common,
            )
        )


def _side(box: np.ndarray) -> float:
    return float(np.sqrt(max((box[2] - box[0]) * (box[3] - box[1]), 0)))


def choose(items: Sequence[Item], most: int) -> list[Item]:
    """Choose the page's items: escapes before false alarms, from each run in turn, worst first."""
    chosen = []
    for escapes in (True, False):
        by_run = {}
        for item in items:
            if (item.kind in ESCAPES) == escapes:
                by_run.setdefault(id(item.measured), []).append(item)
        rows = [list(run) for run in by_run.values()]
        while any(rows) and len(chosen) < most:
            chosen += [row.pop(0) for row in rows if row][: most - len(chosen)]
    return chosen


def thumbnails(items: Sequence[Item], real: Path) -> tuple[list[dict], list[str]]:
    """Cut the crops out of the windowed radiographs.

    Args:
        items: Items from `choose`.
        real: Folder of the enlarged pictures, in the radiograph's own pixels; its old pictures are deleted.

    Returns:
        Records for the page, and a line for each radiograph that cannot be read. A record has the facts of
        the item with its `box`; `image` (JPEG as base64; '' if the radiograph cannot be read) and its region
        `at` (x, y, side); `real`, the enlarged picture's file relative to the page ('' without one), and its
        region `around` (x, y, width, height); and truth and detections there, at the run's threshold. All
        coordinates are px of the radiograph.
    """
    records, problems = [], {}
    for stale in real.glob('*.jpg'):
        stale.unlink()
    for item in sorted(items, key=lambda i: i.file):  # by file, so that each file is read once
        predictions = item.measured.run.predictions
        try:
            pixels = _windowed(f'{predictions.folder}/{item.file}', tuple(sorted(predictions.window.items())))
        except (OSError, ImagingError) as error:
            problems[item.file] = ' '.join(str(error).split())
            pixels = None
        records.append((item, _record(item, pixels, real)))
    order = {id(item): number for number, item in enumerate(items)}
    records.sort(key=lambda pair: order[id(pair[0])])
    return [record for _, record in records], list(problems.values())


@lru_cache(maxsize=4)
def _windowed(path: str, window: tuple) -> np.ndarray:
    """Return the windowed radiograph of a file, a URL or a packed store as (H, W) uint8."""
    packed = None if is_url(path) else locate(path)
    if packed is None:
        return apply_window(read_radiograph(path), dict(window))
    store, name = packed  # a packed store is windowed already
    pixels = store.read(store.position(name))
    return pixels if pixels.dtype == np.uint8 else np.round(pixels / 257).astype(np.uint8)


def _record(item: Item, pixels: np.ndarray | None, real: Path) -> dict:
    record = item.measured.run.predictions.truth['images'][item.position]
    size = record['width'], record['height']
    x1, y1, x2, y2 = item.box
    side = max(CONTEXT * max(x2 - x1, y2 - y1), 48)
    left, top, side, _ = _around(item.box, min(side, *size), size)
    around = _around(item.box, max(side, LARGE), size)
    image = '' if pixels is None else _jpeg(_cut(pixels, (left, top, side, side)))

    def near(box):
        x, y, width, height = around
        seen = box[2] > x and box[3] > y and box[0] < x + width and box[1] < y + height
        return [round(float(v), 1) for v in box] if seen else None

    matched = item.measured.matched[item.position]
    seen = matched.image
    truth = [
        (near(box), int(label), kind)
        for box, label, kind in zip(seen.truth_boxes, seen.truth_labels, seen.truth_types)
    ]
    found = [
        (near(seen.boxes[k]), int(seen.labels[k]), round(float(seen.scores[k]), 2))
        for k in matched.kept
        if seen.scores[k] >= item.measured.threshold
    ]
    return dict(
        kind=item.kind,
        group=item.group,
        arm=item.arm,
        seed=item.seed,
        labels=item.fraction,
        file=item.file,
        part=item.part,
        type=item.type,
        size=round(item.size, 1),
        score=None if item.score is None else round(item.score, 3),
        image=image,
        at=[left, top, side],
        real='' if pixels is None else _enlarged(_cut(pixels, around), real),
        around=list(around),
        box=[round(float(v), 1) for v in item.box],
        truth=[row for row in truth if row[0]],
        detected=[row for row in found if row[0]][:20],
    )


def _around(box: Sequence[float], side: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the square around a box, moved and cut to lie in the image: x, y, width, height in px."""
    width, height = (min(round(side), whole) for whole in size)
    x = min(max(round((box[0] + box[2] - width) / 2), 0), size[0] - width)
    y = min(max(round((box[1] + box[3] - height) / 2), 0), size[1] - height)
    return x, y, width, height


def _cut(pixels: np.ndarray, area: Sequence[int]) -> np.ndarray:
    x, y, width, height = area
    return pixels[y : y + height, x : x + width]


def _enlarged(crop: np.ndarray, folder: Path) -> str:
    """Write a crop in its own pixels; runs that miss the same defect share the file."""
    out = io.BytesIO()
    Image.fromarray(crop).save(out, 'JPEG', quality=LARGE_QUALITY)
    content = out.getvalue()
    file = folder / f'{hashlib.sha256(content).hexdigest()[:16]}.jpg'
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return f'{folder.name}/{file.name}'


def _jpeg(crop: np.ndarray) -> str:
    picture = Image.fromarray(crop).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, 'JPEG', quality=QUALITY, optimize=True)
    return base64.b64encode(out.getvalue()).decode()
