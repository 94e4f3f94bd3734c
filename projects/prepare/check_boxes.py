"""Boxes and parts of a data set as stored in its files: range, area, duplicates, dominant parts."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from projects.measures.matching import box_iou

from .findings import ERROR, NOTE, WARNING, Finding, ImageSet, counted


def check_boxes(sets: Sequence[ImageSet]) -> list[Finding]:
    """Judge the boxes as stored in the files: range, area, duplicates.

    Args:
        sets: the labelled sets.
    """
    findings, rows = [], []
    for s in sets:
        records = {record['id']: (record, path) for record, path in zip(s.records, s.paths)}
        rows += [(s.name, a, *records[a['image_id']]) for a in s.annotations if a['image_id'] in records]
    boxes, drawn = np.empty((2, len(rows), 4))
    size = np.empty((len(rows), 2))
    for i, (_, annotation, record, _) in enumerate(rows):
        boxes[i] = _numbers(annotation.get('bbox'), 4)
        drawn[i] = _numbers(annotation.get('clipped_from'), 4)
        size[i] = _numbers([record.get('width'), record.get('height')], 2)

    def add(level, which, text, remedy, key='bbox'):
        chosen = [rows[i] for i in np.flatnonzero(which)]
        if chosen:
            images = defaultdict(list)
            for _, annotation, _, path in chosen:
                images[path].append(str(annotation.get(key)))
            images = {path: ', '.join(found[:3]) for path, found in images.items()}
            place = ', '.join(f'{n} in {name}' for name, n in Counter(row[0] for row in chosen).items())
            findings.append(
                Finding(level, 'boxes', f'{counted(chosen, "box")} {text} ({place})', remedy, images)
            )

    flat = ~(boxes[:, 2:] > 0).all(1)
    add(ERROR, flat, 'without area or not of four numbers', 'draw them again or delete them')
    outside = ((boxes[:, :2] >= size) | (boxes[:, :2] + boxes[:, 2:] <= 0)).any(1) & ~flat
    add(ERROR, outside, 'wholly outside of their image', 'correct or delete them')
    beyond = _overshoot(boxes, size)
    out = (beyond > 0.01) & ~flat & ~outside
    add(
        WARNING,
        out,
        f'out of range by up to {beyond[out].max(initial=0):g} px, which loading clips',
        'correct them at the source, or convert again',
    )
    clipped = ~np.isnan(drawn[:, 0])
    add(
        WARNING,
        clipped,
        f'drawn out of range by up to {_overshoot(drawn, size)[clipped].max(initial=0):g} px, which the '
        'converter clipped',
        'correct them at the source if the clipped part matters',
        'clipped_from',
    )
    image = np.unique([row[3] for row in rows], return_inverse=True)[1]
    add(
        WARNING,
        _duplicates(image, boxes),
        'drawn twice: over 90 % (IoU) of another box of the same image',
        'delete one of each pair',
    )
    return findings


def _numbers(values, count: int) -> list[float]:
    """Return `count` numbers; all nan if the file holds anything else."""
    try:
        found = [float(v) for v in values if not isinstance(v, str)]
    except (TypeError, ValueError, OverflowError):
        found = []
    return found if len(found) == count else [math.nan] * count


def _overshoot(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return (N,) px by which boxes (N, 4) of x, y, w, h reach out of images of (N, 2) width and height."""
    return np.maximum(-boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - size).max(1, initial=0)


def _duplicates(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return (N,) bool: whether an earlier box of the same image has an IoU above 0.9."""
    found = np.zeros(len(boxes), bool)
    corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    order = np.argsort(image, kind='stable')
    for rows in np.split(order, np.flatnonzero(np.diff(image[order])) + 1):
        # In blocks: for ten thousand boxes of one image, all pairs at once take gigabytes.
        for start in range(1, len(rows), 256):
            own = np.arange(start, min(start + 256, len(rows)))
            same = box_iou(corners[rows[own]], corners[rows[: own[-1]]]) > 0.9
            earlier = np.arange(own[-1]) < own[:, None]
            found[rows[own]] = (same & earlier).any(1)
    return found


def check_dominance(sets: Sequence[ImageSet]) -> list[Finding]:
    """Warn of a part or series with over a quarter of all boxes, and over four times its share of images.

    Args:
        sets: the labelled sets, taken together.
    """
    for key in ('series', 'part'):
        images, boxes, of = Counter(), Counter(), {}
        for s in sets:
            by_id = {record['id']: group for record, group in zip(s.records, s.groups(key))}
            images.update(by_id.values())
            boxes.update(by_id.get(annotation.get('image_id')) for annotation in s.annotations)
            of |= dict(zip(s.paths, by_id.values()))
        group, count = max(boxes.items(), key=lambda item: item[1], default=(None, 0))
        share, own = count / max(boxes.total(), 1), images[group] / max(images.total(), 1)
        if group is not None and len(images) > 2 and share > 0.25 and share > 4 * own:
            return [
                Finding(
                    WARNING,
                    'boxes',
                    f'{key} {group} has {share:.0%} of all boxes ({count} of {boxes.total()}) in {own:.0%} '
                    'of the labelled images',
                    'report results with and without it (drop_series of XrayDefectMetric)',
                    {path: f'{key} {group}' for path, other in of.items() if other == group},
                )
            ]
    return []


def check_parts(sets: Sequence[ImageSet]) -> list[Finding]:
    """Report the sets without known physical parts, for which no escape rate can be proven."""
    findings = []
    for s in sets:
        unknown = [path for path, part in zip(s.paths, s.groups('part')) if part is None]
        if not unknown or s.side not in ('val', 'test'):
            continue
        regions = any(region is not None for region in s.groups('region'))
        findings.append(
            Finding(
                NOTE if regions else WARNING,
                'parts',
                f'no proof: parts not known on {len(unknown)} of {len(s.names)} images of {s.name}'
                + (', which carry region groups, not physical parts' if regions else ''),
                'escape and false-reject rates are counted per physical part: convert with --group REGEX, '
                'which finds the part in the path of an image, or give every image its `part`',
                {} if regions else dict.fromkeys(unknown, 'part not known'),
            )
        )
    return findings


def check_ledgers(sets: Sequence[ImageSet]) -> list[Finding]:
    """Report the repairs in the converter's ledger, which all annotation files of a data set hold."""
    ledgers = []
    for s in sets:
        ledger = s.info.get('ledger')
        if isinstance(ledger, dict) and ledger not in ledgers:
            ledgers.append(ledger)
    return [
        Finding(NOTE, 'boxes', f'repaired by the converter, all splits together: {reason}: {count}')
        for ledger in ledgers
        for reason, count in _dict(ledger.get('repaired')).items()
        if count
    ]


def _dict(value) -> dict:
    return value if isinstance(value, dict) else {}
