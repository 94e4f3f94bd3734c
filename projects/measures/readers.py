"""Agreement of two readers of the same radiographs: people, or a person and a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from .bounds import MIN_UNITS, StatisticsError
from .comparison import expanded_tail
from .detection import measure_detection
from .images import CRITICAL, Floats, InspectedImage, Ints, MeasureError, read_images
from .matching import FALSE_ALARM, HIT, IGNORED, WRONG_SEVERITY, Matched, match_all
from .parts import gather_parts

_PAGE_HASH = re.compile(r'-[0-9a-f]{12}(?=(\.[^./]*)?$)')  # `line.page.items.kept_name`
VERDICTS = ('critical', 'minor', 'defect-free')


@dataclass
class Kappa:
    """Cohen's kappa of two readers over parts.

    Attributes:
        parts: Parts that both read.
        agreement: Share of them on which both say the same.
        kappa: Agreement beyond chance, (agreement - expected) / (1 - expected); None where chance alone makes
            them agree, as where both call every part the same.
        low: Lower end of its 95 % interval over parts; None with fewer than `MIN_UNITS`.
        high: Upper end.
        table: Rows the first reader's verdict, columns the second's, in the order of `VERDICTS`.
    """

    parts: int
    agreement: float
    kappa: float | None
    low: float | None
    high: float | None
    table: list[list[int]]


@dataclass
class Agreement:
    """Two readers of the same images.

    Attributes:
        images: Images that both read.
        kappa: Of the verdicts on parts; None where parts are not known.
        boxes: Boxes of the first and of the second reader.
        matched: Boxes that both marked, whatever the severity.
        first_only: Boxes that the first reader alone marked.
        second_only: Boxes that the second reader alone marked.
        severities: Of the matched ones: rows the first reader's class, columns the second's.
        classes: Their names.
        problems: What a reader must know, such as images that only one of them read.
    """

    images: int
    kappa: Kappa | None
    boxes: tuple[int, int]
    matched: int
    first_only: int
    second_only: int
    severities: list[list[int]]
    classes: list[str]
    problems: list[str]


def compare_readers(first: Mapping[str, Any], second: Mapping[str, Any]) -> Agreement:
    """Compare two COCO files of the same images, brought together by file name.

    A box is matched as a detection is with a defect (`matching.match`): the second reader's boxes are the
    detections, one flaw being marked once. Boxes marked `iscrowd` by either count as neither, nor do the
    second reader's on what the first marked so.

    Args:
        first: COCO dict; its parts are those of both.
        second: COCO dict with the same class names.

    Raises:
        MeasureError: No image in common, other classes, or an annotation that cannot be read.
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
    matched = match_all(read_images(truth, marks))
    codes = np.concatenate([m.codes for m in matched])
    counted = sum(int((~m.image.ignored).sum()) for m in matched)
    pairs = [_severity_pairs(m) for m in matched]
    severities = np.zeros((len(classes), len(classes)), int)
    for one, other in (pair for rows in pairs for pair in rows):
        severities[one, other] += 1
    hits = int(severities.sum())
    kappa = None
    if all(m.image.part is not None for m in matched):
        kappa = _kappa_of_parts(matched)
    else:
        problems.append('parts are not known, so there is no kappa; give every image its `part`')
    return Agreement(
        images=len(matched),
        kappa=kappa,
        boxes=(counted, len(marks)),
        matched=hits,
        first_only=counted - hits,
        second_only=int((codes == FALSE_ALARM).sum()),
        severities=severities.tolist(),
        classes=classes,
        problems=problems,
    )


def bring_together(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Bring two COCO files of the same radiographs together by file name and class name.

    The copy of a radiograph beside the corrections of the inspection page has a hash in its name, and a file
    may name its images from another folder on: `P1_a.png`, `day/P1_a.png` and `day/P1_a-0123456789ab.png` are
    one image where no other could be meant.

    Args:
        first: COCO dict, taken as the truth.
        second: COCO dict, or truth and results of a model, whose annotations have a score.

    Returns:
        The first one's images that both have, with their annotations, and the second one's boxes on them as
        detections; the score of a box without one is 1.

    Raises:
        MeasureError: No image in common, an image twice, or other classes.
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
        )
        for box in second['annotations']
        if box['image_id'] in ids and not box.get('iscrowd')
    ]
    both = set(ids.values())
    return dict(first, images=[image for image in first['images'] if image['id'] in both]), marks


def _same_images(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> dict[Hashable, Hashable]:
    """Return the id of the first reader's record of each image of the second, by the second's id.

    Raises:
        MeasureError: An image has two records of one reader: the boxes of one would be those of both.
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
    """Return a file name without the hash that the inspection page puts before its suffix."""
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
        coco: Its categories are classes, or types of the map.
        classes: In label order, the critical one first.
        severity: Class of each type.

    Raises:
        MeasureError: Annotations of a type that is no class and has none.
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


def _severity_pairs(m: Matched) -> list[tuple[int, int]]:
    """Return the classes that both readers gave to each box that both marked."""
    pairs = {}
    for code, truth, position in zip(m.codes, m.truths, m.kept, strict=True):
        # A flaw that was marked with both severities counts as agreed.
        if code == HIT or (code == WRONG_SEVERITY and truth not in pairs):
            pairs[truth] = (int(m.image.truth_labels[truth]), int(m.image.labels[position]))
    return list(pairs.values())


def _kappa_of_parts(matched: Sequence[Matched]) -> Kappa:
    """Compare the verdicts on parts, each by its worst image."""
    first = {part.part: part.truth for part in gather_parts(matched)}
    second: dict[str, int] = {}
    for m in matched:
        ignored = m.kept[m.codes == IGNORED]
        labels = np.delete(m.image.labels, ignored)
        worst = 2 if not labels.size else 0 if (labels == CRITICAL).any() else 1
        name = str(m.image.part)
        second[name] = min(worst, second.get(name, worst))
    names = [name for name, truth in first.items() if truth in VERDICTS]
    rows = np.array([VERDICTS.index(first[name]) for name in names])
    return kappa(rows, np.array([second[name] for name in names]), len(VERDICTS))


def kappa(
    first: Ints, second: Ints, classes: int, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Kappa:
    """Cohen's kappa (Educ. Psychol. Meas. 20, 1960) with the expanded percentile interval over the parts.

    Args:
        first: (N) labels of one reader.
        second: (N) labels of the other.
        classes: How many labels there are.
        confidence: Of the interval, two-sided.
        resamples: Bootstrap draws of parts.
        seed: Of the draws.

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
    """Return kappa of each table (T, C, C); nan where chance alone makes them agree."""
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
        inspector_rate: Critical false calls of the inspector per image.
        inspector_recall: Critical defects that the inspector found with their severity; None without any.
        threshold: The lowest score at which the model has no more false calls; None where it has no call.
        model_rate: Critical false calls of the model per image there.
        model_recall: Critical defects that the model finds there.
    """

    inspector_rate: float
    inspector_recall: float | None
    threshold: float | None
    model_rate: float
    model_recall: float | None


def at_false_calls_of(
    inspector: Sequence[InspectedImage], model: Sequence[InspectedImage], classes: Sequence[str]
) -> AtFalseCallRate:
    """Read a model at the false-call rate of an inspector on the same images.

    Args:
        inspector: Images with the inspector's boxes as detections, of score 1.
        model: The same images with those of the model.
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
    return AtFalseCallRate(
        inspector_rate=rate,
        inspector_recall=measured.by_severity[name].recall,
        threshold=threshold,
        model_rate=at.false_alarms[name].per_image or 0.0,
        model_recall=at.by_severity[name].recall,
    )
