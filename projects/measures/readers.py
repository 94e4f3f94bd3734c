"""Agreement of two readers of the same radiographs: people, or a person and a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from scipy import optimize

from .bounds import MIN_UNITS, StatisticsError
from .comparison import expanded_tail
from .detection import measure_detection
from .images import CRITICAL, Bools, Floats, InspectedImage, Ints, MeasureError, read_images
from .matching import box_iou, match_all

_PAGE_HASH = re.compile(r'-[0-9a-f]{12}(?=(\.[^./]*)?$)')  # added by `line.page.items.kept_name`
VERDICTS = ('critical', 'minor', 'defect-free')
FREE = VERDICTS.index('defect-free')  # the best verdict; the first is the worst
SAME_IOU = 0.3  # smallest IoU of two boxes on one flaw, unless the centre of one lies in the other


@dataclass
class Kappa:
    """Cohen's kappa of two readers over parts.

    Attributes:
        parts: Number of parts that both read.
        agreement: Share of parts with the same verdict.
        kappa: Agreement beyond chance, (agreement - expected) / (1 - expected); None if the expected
            agreement is 1, as with one verdict of both on every part.
        low: Lower end of the 95 % interval over parts; None with fewer than `MIN_UNITS` parts.
        high: Upper end.
        table: Rows are verdicts of the first reader, columns those of the second, in the order of `VERDICTS`.
    """

    parts: int
    agreement: float
    kappa: float | None
    low: float | None
    high: float | None
    table: list[list[int]]


@dataclass
class Agreement:
    """Agreement of two readers on the same images; the order of the readers does not matter.

    Attributes:
        images: Number of images that both read.
        kappa: Kappa of the verdicts on parts; None if parts are unknown.
        boxes: Boxes of the first and of the second reader: matched, alone and again.
        matched: Flaws that both marked, with any severity.
        first_only: Boxes of the first reader that lie on no box of the second.
        second_only: Boxes of the second reader that lie on no box of the first.
        again: Further boxes of a reader on a flaw that the other marked once, such as two within a large box.
        severities: Classes of the matched flaws: rows are the first reader, columns the second.
        classes: Names of the classes.
        problems: Notes on the result, such as images that only one reader has.
    """

    images: int
    kappa: Kappa | None
    boxes: tuple[int, int]
    matched: int
    first_only: int
    second_only: int
    again: tuple[int, int]
    severities: list[list[int]]
    classes: list[str]
    problems: list[str]


def compare_readers(first: Mapping[str, Any], second: Mapping[str, Any]) -> Agreement:
    """Compare two COCO files of the same images, joined by file name.

    Two boxes mark one flaw if their IoU is at least `SAME_IOU` or the centre of one lies in the other. Boxes
    are paired one to one: first with the most pairs, then with the most equal severities, then with the
    largest overlap. Both readers count alike, and no box is suppressed. Boxes marked `iscrowd` by one reader
    do not count, nor do boxes of the other reader on them.

    Args:
        first: COCO dict; its parts hold for both readers.
        second: COCO dict with the same class names.

    Raises:
        MeasureError: No common image, other classes, or an annotation that cannot be read.
    """
    truth, marks = bring_together(first, second)
    classes = [category['name'] for category in first['categories']]
    common = len(truth['images'])
    problems = [
        f'{count} images of the {which} reader alone are left out'
        for count, which in (
            (len(first['images']) - common, 'first'),
            (len(second['images']) - common, 'second'),
        )
        if count
    ]
    if any(mark['score'] != 1 for mark in marks):
        problems.append('boxes of the second reader have a score; each counts, whatever its score')
    read = _read('first', truth), _read('second', dict(truth, annotations=marks))
    pairs = [_pair(*both) for both in zip(*read, strict=True)]
    severities = np.zeros((len(classes), len(classes)), int)
    for one, other in (labels for pair in pairs for labels in pair.labels):
        severities[one, other] += 1
    matched = int(severities.sum())
    alone = [sum(pair.alone[side] for pair in pairs) for side in (0, 1)]
    again = sum(pair.again[0] for pair in pairs), sum(pair.again[1] for pair in pairs)
    agreed = None
    if all(pair.part is not None for pair in pairs):
        agreed = _kappa_of_parts(pairs)
        if agreed is None:
            problems.append('no part has a verdict of both readers beyond `iscrowd`, so there is no kappa')
    else:
        problems.append('parts are not known, so there is no kappa; give every image its `part`')
    return Agreement(
        images=len(pairs),
        kappa=agreed,
        boxes=(matched + alone[0] + again[0], matched + alone[1] + again[1]),
        matched=matched,
        first_only=alone[0],
        second_only=alone[1],
        again=again,
        severities=severities.tolist(),
        classes=classes,
        problems=problems,
    )


def _read(which: str, coco: Mapping[str, Any]) -> list[InspectedImage]:
    """Read the boxes of one reader, as truth."""
    try:
        return read_images(coco, [])
    except MeasureError as error:
        raise MeasureError(f'the {which} reader: {error}') from None


def bring_together(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Join two COCO files of the same radiographs by file name and class name.

    The inspection page stores a radiograph beside its corrections with a hash in the name, and paths may
    start at different folders. So `P1_a.png`, `day/P1_a.png` and `day/P1_a-0123456789ab.png` are one image if
    the match is unique.

    Args:
        first: COCO dict, taken as the truth.
        second: COCO dict, or truth and results of a model, whose annotations have a score.

    Returns:
        The common images of the first file with their annotations, and the boxes of the second file on these
        images as detections. A box without a score gets 1. `iscrowd` boxes are included.

    Raises:
        MeasureError: No common image, an image twice, or other classes.
    """
    classes = [category['name'] for category in first['categories']]
    others = [category['name'] for category in second['categories']]
    if classes != others:
        raise MeasureError(
            f'the first reader has the classes {classes}, the second {others}; name them alike, in one order'
        )
    ids = _same_images(first['images'], second['images'])
    if not ids:
        raise MeasureError('the two files have no image (`file_name`) in common')
    theirs = {category['id']: category['name'] for category in second['categories']}
    ours = {category['name']: category['id'] for category in first['categories']}
    marks = [
        dict(
            image_id=ids[box['image_id']],
            category_id=ours[theirs[box['category_id']]],
            bbox=box['bbox'],
            score=box.get('score', 1.0),
            iscrowd=box.get('iscrowd', 0),
        )
        for box in second['annotations']
        if box['image_id'] in ids
    ]
    both = set(ids.values())
    return dict(first, images=[image for image in first['images'] if image['id'] in both]), marks


def _same_images(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> dict[Hashable, Hashable]:
    """Return, by image id of the second reader, the image id of the first reader.

    Raises:
        MeasureError: An image has two records of one reader, so that its boxes are ambiguous.
    """
    exact = {image['file_name']: image['id'] for image in first}
    by_last: dict[str, list[Mapping[str, Any]]] = {}
    for image in first:
        by_last.setdefault(_plain(image['file_name']).name, []).append(image)
    ids: dict[Hashable, Hashable] = {}
    for image in second:
        found = exact.get(image['file_name'])
        if found is None:
            name = _plain(image['file_name'])
            alike = [other for other in by_last.get(name.name, ()) if _ends_alike(name, other['file_name'])]
            found = alike[0]['id'] if len(alike) == 1 else None
        if found is not None:
            ids[image['id']] = found
    for which, names in (
        ('first', [image['file_name'] for image in first]),
        ('second', list(ids.values())),
    ):
        ((key, count),) = Counter(names).most_common(1) or (('', 0),)
        if count > 1:
            shown = key if which == 'first' else next(i['file_name'] for i in first if i['id'] == key)
            raise MeasureError(
                f'the {which} reader has {shown} more than once; give each image one record and a name of '
                'its own'
            )
    return ids


def _plain(name: str) -> PurePosixPath:
    """Return a file name without the hash that the inspection page adds before the suffix."""
    return PurePosixPath(_PAGE_HASH.sub('', name))


def _ends_alike(name: PurePosixPath, other: str) -> bool:
    """Whether one of two paths is the end of the other."""
    parts, others = name.parts[::-1], _plain(other).parts[::-1]
    return all(one == two for one, two in zip(parts, others, strict=False))


def in_classes(
    coco: Mapping[str, Any], classes: Sequence[str], severity: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a COCO dict in the classes of a detector, in their order.

    Args:
        coco: COCO dict whose categories are classes, or types of the severity map.
        classes: Class names in label order, the critical one first.
        severity: Class of each type.

    Raises:
        MeasureError: Annotations of a type that is no class and is not in the severity map.
    """
    table = {name: name for name in classes} | dict(severity or {})
    names = {category['id']: category['name'] for category in coco['categories']}
    unknown = sorted({str(names.get(box['category_id'])) for box in coco['annotations']} - set(table))
    if unknown:
        raise MeasureError(
            f'types {unknown} have no class among {list(classes)}; map them by a severity map (--severity)'
        )
    return dict(
        coco,
        categories=[dict(id=k + 1, name=name) for k, name in enumerate(classes)],
        annotations=[
            dict(box, category_id=list(classes).index(table[names[box['category_id']]]) + 1)
            for box in coco['annotations']
        ],
    )


@dataclass
class _Pairs:
    """The marks of two readers on one image.

    Attributes:
        part: Part of the image.
        labels: Classes that the first and the second reader gave to each common flaw.
        alone: Boxes of each reader that lie on no box of the other.
        again: Further boxes of each reader on flaws that are already paired.
        worst: Worst verdict of each reader, a position in `VERDICTS`; None with only `iscrowd` boxes.
    """

    part: Hashable | None
    labels: list[tuple[int, int]]
    alone: tuple[int, int]
    again: tuple[int, int]
    worst: tuple[int | None, int | None]


def _pair(first: InspectedImage, second: InspectedImage) -> _Pairs:
    """Pair the boxes of two readers of one image; each holds its reader's boxes as truth."""
    boxes = first.truth_boxes, second.truth_boxes
    near, overlap = _on_one_place(*boxes), box_iou(*boxes)
    real = ~first.ignored, ~second.ignored
    # A box that lies only on `iscrowd` boxes of the other reader does not count.
    on_real = near[:, real[1]].any(1), near[real[0]].any(0)
    on_crowd = near[:, ~real[1]].any(1), near[~real[0]].any(0)
    counted = tuple(r & ~(c & ~o) for r, c, o in zip(real, on_crowd, on_real, strict=True))
    rows, columns = (np.flatnonzero(side) for side in counted)
    allowed = near[np.ix_(rows, columns)]
    same = first.truth_labels[rows][:, None] == second.truth_labels[columns][None]
    # One more pair outweighs all equal severities together, and one equal severity outweighs all overlaps.
    most = min(allowed.shape) + 1
    worth = allowed * (1 + (same + overlap[np.ix_(rows, columns)] / most) / (2 * most))
    chosen = [(i, j) for i, j in zip(*optimize.linear_sum_assignment(-worth), strict=True) if allowed[i, j]]
    left = len(rows) - len(chosen), len(columns) - len(chosen)
    alone = int((~allowed.any(1)).sum()), int((~allowed.any(0)).sum())
    labels = first.truth_labels[rows], second.truth_labels[columns]
    return _Pairs(
        part=first.part,
        labels=[(int(labels[0][i]), int(labels[1][j])) for i, j in chosen],
        alone=alone,
        again=(left[0] - alone[0], left[1] - alone[1]),
        worst=(_worst(labels[0], first.ignored), _worst(labels[1], second.ignored)),
    )


def _on_one_place(first: Floats, second: Floats) -> Bools:
    """Whether each of (N, 4) and (M, 4) boxes mark one place, as (N, M)."""

    def inside(boxes: Floats, others: Floats) -> Bools:
        centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
        result: Bools = np.all((centres >= others[:, :2]) & (centres <= others[:, 2:]), axis=-1)
        return result

    return (box_iou(first, second) >= SAME_IOU) | inside(first, second) | inside(second, first).T


def _worst(labels: Ints, ignored: Bools) -> int | None:
    if labels.size:
        return VERDICTS.index('critical' if (labels == CRITICAL).any() else 'minor')
    return None if ignored.any() else FREE


def _kappa_of_parts(pairs: Sequence[_Pairs]) -> Kappa | None:
    """Compare the verdicts on parts, each by its worst image; None if no part has two verdicts."""
    views: dict[str, list[_Pairs]] = {}
    for pair in pairs:
        views.setdefault(str(pair.part), []).append(pair)
    verdicts = []
    for members in views.values():
        sides = [[pair.worst[side] for pair in members] for side in (0, 1)]
        # A part with an `iscrowd`-only view has no verdict, unless another view shows a defect.
        worst = [min((v for v in side if v is not None), default=FREE) for side in sides]
        if not any(None in side and w == FREE for side, w in zip(sides, worst, strict=True)):
            verdicts.append(worst)
    if not verdicts:
        return None
    rows, columns = np.array(verdicts).T
    return kappa(rows, columns, len(VERDICTS))


def kappa(
    first: Ints, second: Ints, classes: int, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Kappa:
    """Return Cohen's kappa (Educ. Psychol. Meas. 20, 1960) with the expanded percentile interval over parts.

    Args:
        first: (N) labels of one reader.
        second: (N) labels of the other reader.
        classes: Number of labels.
        confidence: Confidence level of the interval, two-sided.
        resamples: Bootstrap draws of parts.
        seed: Seed of the draws.

    Raises:
        StatisticsError: Unequal lengths, or no part.
    """
    if first.shape != second.shape or not first.size:
        raise StatisticsError('expected the verdicts of two readers on the same parts, one at least')
    cells = first * classes + second
    table = np.bincount(cells, minlength=classes**2).reshape(1, classes, classes)
    (value,) = _kappas(table)
    low = high = None
    if first.size >= MIN_UNITS and np.isfinite(value):
        generator = np.random.default_rng(seed)
        drawn = generator.multinomial(first.size, table.ravel() / first.size, size=resamples)
        values = _kappas(drawn.reshape(-1, classes, classes))
        tail = expanded_tail(first.size, confidence)
        low, high = (float(v) for v in np.nanquantile(values, [tail, 1 - tail]))
    return Kappa(
        parts=int(first.size),
        agreement=float((first == second).mean()),
        kappa=float(value) if np.isfinite(value) else None,
        low=low,
        high=high,
        table=table[0].tolist(),
    )


def _kappas(tables: Ints) -> Floats:
    """Return kappa of each table (T, C, C); nan where the expected agreement is 1."""
    units = tables.sum((1, 2))
    agreed = np.trace(tables, axis1=1, axis2=2) / units
    expected = (tables.sum(2) * tables.sum(1)).sum(1) / units**2
    result: Floats = np.divide(
        agreed - expected, 1 - expected, out=np.full(len(tables), np.nan), where=expected < 1
    )
    return result


@dataclass
class AtFalseCallRate:
    """A model at the false-call rate of an inspector, against one truth.

    Attributes:
        defects: Critical defects.
        inspector_rate: Critical false calls of the inspector per image.
        inspector_found: Critical defects that the inspector found with the right severity.
        inspector_recall: Share of these defects; None without critical defects.
        threshold: The lowest score at which the model has no more false calls than the inspector; None if the
            model has no call.
        model_rate: Critical false calls of the model per image at the threshold.
        model_found: Critical defects that the model finds at the threshold.
        model_recall: Share of these defects; None without critical defects.
    """

    defects: int
    inspector_rate: float
    inspector_found: int
    inspector_recall: float | None
    threshold: float | None
    model_rate: float
    model_found: int
    model_recall: float | None


def at_false_calls_of(
    inspector: Sequence[InspectedImage], model: Sequence[InspectedImage], classes: Sequence[str]
) -> AtFalseCallRate:
    """Read a model at the false-call rate of an inspector on the same images.

    Args:
        inspector: Images with the inspector's boxes as detections, of score 1.
        model: The same images with the boxes of the model.
        classes: Names in label order.
    """
    theirs, ours = match_all(inspector), match_all(model)
    name = classes[CRITICAL]
    measured = measure_detection(theirs, 0.5, classes)
    rate = measured.false_alarms[name].per_image or 0.0
    alarms = np.sort(np.concatenate([m.false_alarm_scores(CRITICAL) for m in ours]))[::-1]
    allowed = int(rate * len(ours) + 1e-9)
    calls = np.concatenate([m.image.scores for m in ours])
    above = calls[calls > alarms[allowed]] if alarms.size > allowed else calls
    threshold = float(above.min()) if above.size else None
    at = measure_detection(ours, np.inf if threshold is None else threshold, classes)
    of_inspector, of_model = measured.by_severity[name], at.by_severity[name]
    return AtFalseCallRate(
        defects=of_model.defects,
        inspector_rate=rate,
        inspector_found=of_inspector.found,
        inspector_recall=of_inspector.recall,
        threshold=threshold,
        model_rate=at.false_alarms[name].per_image or 0.0,
        model_found=of_model.found,
        model_recall=of_model.recall,
    )
