"""Corrections for training: COCO annotations, derived from the record of decisions alone."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from projects.line.runtime.archive import ArchiveError
from projects.radiograph.files import draft_of
from projects.radiograph.parts import recorded_part

PAUSE_LINES, PAUSE_SECONDS = 20, 1e-4


def write_corrections(
    path: Path, entries: Iterable[dict[str, Any]], classes: list[str], rule: str | None
) -> None:
    """Write decisions as annotated images, except withdrawn ones and those on unreadable files.

    The file is written line by line with pauses. Fifty thousand decisions in one text or without a pause
    would delay decisions made meanwhile, since the threads of a process take turns of 5 ms.

    Args:
        path: The file.
        entries: The last entry of the record on each radiograph.
        classes: Classes of the detector, in label order.
        rule: The expression that finds a part in a name, as recorded by the converter.
    """
    counted = [e for e in entries if e['verdict'] in ('accept', 'reject') and e['size'] != [0, 0]]
    detectors = {e['detector']['folder']: e['detector']['origin'] for e in counted if e['detector']}
    info = dict(description='corrections by an inspector; derived from decisions.jsonl, do not edit')
    info |= dict(group=rule, detectors=detectors)
    if len(detectors) == 1:
        info['origin'] = next(iter(detectors.values()))
    categories = [dict(id=k + 1, name=name) for k, name in enumerate(classes)]
    annotations = 0
    with draft_of(path, durable=True) as draft, draft.open('w') as file:
        file.write(json.dumps(dict(info=info, categories=categories))[:-1] + ', "images": [')
        for k, entry in enumerate(counted, 1):
            _pause(k)
            file.write((',\n' if k > 1 else '\n') + json.dumps(_image(k, entry)))
        file.write('], "annotations": [')
        for k, entry in enumerate(counted, 1):
            _pause(k)
            for box in entry['boxes']:
                annotations += 1
                row = _annotation(annotations, k, box, classes)
                file.write((',\n' if annotations > 1 else '\n') + json.dumps(row))
        file.write(']}\n')


def _pause(number: int) -> None:
    """Let other threads run, after each `PAUSE_LINES` lines."""
    if number % PAUSE_LINES == 0:
        time.sleep(PAUSE_SECONDS)


def _image(number: int, entry: dict[str, Any]) -> dict[str, Any]:
    """Return the COCO image of a decision, with its inspector and its detector's verdict."""
    height, width = entry['size']
    row = dict(id=number, file_name=entry['file'], width=width, height=height, verdict=entry['verdict'])
    if entry['part']:
        row['part'] = entry['part']
    row['inspector'] = entry['inspector']
    if detector := entry['detector']:
        row |= dict(detector=detector['folder'], detector_verdict=detector['verdict'])
        row['detector_risk'] = detector['risk']
    return row


def _annotation(number: int, image: int, entry: dict[str, Any], classes: list[str]) -> dict[str, Any]:
    x1, y1, x2, y2 = entry['box']
    return dict(
        id=number,
        image_id=image,
        category_id=classes.index(entry['class']) + 1,
        bbox=[x1, y1, round(x2 - x1, 1), round(y2 - y1, 1)],
        area=round((x2 - x1) * (y2 - y1), 1),
        iscrowd=0,
    )


def facts_of(entry: dict[str, Any]) -> tuple[Any, ...]:
    """Return the facts of an entry that training uses: verdict, part, size, and boxes with class."""
    image = _image(0, entry)
    boxes = [(box['class'], *_annotation(0, 0, box, [box['class']])['bbox']) for box in entry['boxes']]
    return image['verdict'], image.get('part', ''), image['width'], image['height'], sorted(boxes)


def facts_in(path: Path) -> dict[str, tuple[Any, ...]]:
    """Return the facts of each radiograph in a file of corrections, see `facts_of`; empty without a file.

    Raises:
        ValueError, KeyError, TypeError, IndexError: The file is damaged.
    """
    if not path.is_file():
        return {}
    content = json.loads(path.read_text())
    classes = [category['name'] for category in content['categories']]
    boxes: dict[Any, list[tuple[Any, ...]]] = {image['id']: [] for image in content['images']}
    for row in content['annotations']:
        if row['category_id'] < 1:
            raise ValueError('a label of no class')
        boxes[row['image_id']].append((classes[row['category_id'] - 1], *row['bbox']))
    return {
        i['file_name']: (i['verdict'], i.get('part', ''), i['width'], i['height'], sorted(boxes[i['id']]))
        for i in content['images']
    }


def read_corrections(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Read corrections of a version that kept no record.

    Returns:
        The classes, and for each image the fields of a record's entry: file, size, part, verdict, boxes.

    Raises:
        ArchiveError: The file is damaged or not of this page.
    """
    try:
        content = json.loads(path.read_text())
        classes = [category['name'] for category in content['categories']]
        rows = {image['id']: (image, []) for image in content['images']}
        for annotation in content['annotations']:
            rows[annotation['image_id']][1].append(annotation)
        found = [_as_entry(*row, classes) for row in rows.values()]
        if len({entry['file'] for entry in found}) < len(content['images']):
            raise ValueError('an id or name twice')
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise ArchiveError(f'{path}: expected corrections of this page; give another --out') from None
    return classes, found


def _as_entry(image: dict[str, Any], annotations: list[dict[str, Any]], classes: list[str]) -> dict[str, Any]:
    if image['verdict'] not in ('accept', 'reject'):
        raise ValueError(image['verdict'])
    boxes = []
    for annotation in annotations:
        x, y, width, height = annotation['bbox']
        if annotation['category_id'] < 1:
            raise ValueError('a label of no class')
        # Corner and sides were rounded when they were written.
        x2, y2 = min(round(x + width, 1), image['width']), min(round(y + height, 1), image['height'])
        boxes.append({'box': [x, y, x2, y2], 'class': classes[annotation['category_id'] - 1]})
    return dict(
        file=image['file_name'],
        size=[image['height'], image['width']],
        part=recorded_part(image) or '',
        verdict=image['verdict'],
        boxes=boxes,
    )
