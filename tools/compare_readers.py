"""Compare two readings of the same radiographs: of two inspectors, or labels and corrections of the page.

Example:
    python tools/compare_readers.py labels.json work_dirs/inspect/corrections.json --model work_dirs/STEM
"""

import argparse
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from projects.arguments import ToolParser  # noqa: E402
from projects.errors import UsageError  # noqa: E402
from projects.measures.bounds import StatisticsError  # noqa: E402
from projects.measures.images import MeasureError, read_images  # noqa: E402
from projects.measures.readers import (  # noqa: E402
    VERDICTS,
    Agreement,
    AtFalseCallRate,
    at_false_calls_of,
    bring_together,
    compare_readers,
    in_classes,
)
from projects.radiograph.files import write_json  # noqa: E402
from projects.xray.classes import CLASSES  # noqa: E402
from projects.xray.errors import DatasetError  # noqa: E402
from projects.xray.severity import read_severity  # noqa: E402


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; exits 2 on wrong use."""
    parser = ToolParser(
        description=(__doc__ or '').splitlines()[0],
        epilog='example: python tools/compare_readers.py labels.json corrections.json --model work_dirs/STEM',
    )
    parser.add_argument(
        'first', type=Path, metavar='A.json', help='COCO file of one reader; parts come from it'
    )
    parser.add_argument(
        'second',
        type=Path,
        metavar='B.json',
        help='COCO file of the other reader; same classes, critical first',
    )
    parser.add_argument(
        '--model',
        type=Path,
        metavar='RUN',
        help='work dir with predictions.json: its model at the false-call rate of B, with A as the truth',
    )
    parser.add_argument(
        '--severity',
        metavar='MAP',
        help='map from defect types to critical and minor (YAML file, or `castings`), for files with types',
    )
    parser.add_argument('--json', type=Path, metavar='F', help='file to write all numbers to')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    try:
        first, second = (read_reader(path, args.severity) for path in (args.first, args.second))
        agreement = compare_readers(first, second)
        at = read_model(args.model, first, second) if args.model else None
        if args.json:
            write_json(args.json, dict(agreement=asdict(agreement), model=at and asdict(at)))
    except (UsageError, MeasureError, StatisticsError, DatasetError) as error:
        print(f'compare_readers: {error}', file=sys.stderr)
        return 2
    except OSError as error:
        print(f'compare_readers: --json {args.json}: {error.strerror}; give another file', file=sys.stderr)
        return 2
    print(describe(agreement, args.first.name, args.second.name))
    if at:
        print(describe_model(at, args.second.name))
    return 0


def read_reader(path: Path, severity: str | None) -> dict:
    """Read a COCO file, and map its types to a detector's classes if `severity` or the types allow it."""
    coco = read_coco(path)
    if severity is None and not {category['name'] for category in coco['categories']} <= set(CLASSES):
        return coco
    try:
        return in_classes(coco, CLASSES, read_severity(severity, CLASSES))
    except MeasureError as error:
        raise UsageError(f'{path}: {error}') from None


def read_coco(path: Path) -> dict:
    """Read a COCO file.

    Raises:
        UsageError: The file does not exist or is no COCO file.
    """
    try:
        coco = json.loads(path.read_text())
        for key in ('images', 'annotations', 'categories'):
            if not isinstance(coco[key], list):
                raise TypeError
        images = {image['id']: image['file_name'] for image in coco['images']}
        classes = {category['id']: category['name'] for category in coco['categories']}
        for annotation in coco['annotations']:
            image, category = annotation['image_id'], annotation['category_id']
            x, y, width, height = map(float, annotation['bbox'])
            if not math.isfinite(x + y + width + height):
                raise ValueError
            for what, name, names in (('image', image, images), ('category', category, classes)):
                if name not in names:
                    raise UsageError(
                        f'{path}: a box of {what} {name!r}, which the file does not list; correct it'
                    )
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f'{path}: {error.strerror}; give a COCO file') from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f'{path}: expected a COCO file (images, annotations with bbox, categories); convert it with '
            'tools/convert_dataset.py'
        ) from None
    return coco


def read_model(run: Path, first: dict, second: dict) -> AtFalseCallRate:
    """Evaluate a model's predictions on the first reader's images at the second's false-call rate."""
    path = run / 'predictions.json' if run.is_dir() else run
    try:
        tested = json.loads(path.read_text())
        predictions = dict(tested['truth'], annotations=tested['detections'])
    except OSError as error:
        raise UsageError(f'{path}: {error.strerror}; run tools/test.py first') from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f'{path}: expected predictions of a detector; run tools/test.py again') from None
    read, marks = bring_together(first, second)
    inspector = read_images(read, [dict(mark, score=1.0) for mark in marks if not mark['iscrowd']])
    try:
        tested, found = bring_together(read, predictions)
    except MeasureError as error:
        raise UsageError(f'{path}: {error}') from None
    if len(tested['images']) < len(read['images']):
        raise UsageError(
            f'{path}: the model was tested on {len(tested["images"])} of the {len(read["images"])} images '
            'that both readers read; test it on all of them'
        )
    classes = [category['name'] for category in first['categories']]
    return at_false_calls_of(inspector, read_images(tested, found), classes)


def describe(agreement: Agreement, first: str, second: str) -> str:
    """Return the agreement of two readers as text."""
    lines = [f'{first} and {second}: {agreement.images} images that both read']
    if agreement.kappa:
        kappa = agreement.kappa
        value = 'not defined: one verdict on all parts' if kappa.kappa is None else f'{kappa.kappa:.3f}'
        if kappa.low is not None:
            value += f' (95 % interval {kappa.low:.3f} to {kappa.high:.3f})'
        lines.append(f'parts: {kappa.parts}, agreement {kappa.agreement:.1%}, kappa {value}')
        lines += table(VERDICTS, kappa.table, f'  rows {first}, columns {second}')
    boxes = (
        f'boxes: {agreement.boxes[0]} and {agreement.boxes[1]}; {agreement.matched} marked by both, '
        f'{agreement.first_only} by {first} alone, {agreement.second_only} by {second} alone'
    )
    if any(agreement.again):
        boxes += '; {} and {} more on what the other marked once'.format(*agreement.again)
    lines.append(boxes)
    lines += table(agreement.classes, agreement.severities, '  of those marked by both')
    return '\n'.join([*lines, *(f'note: {problem}' for problem in agreement.problems)])


def table(names: tuple | list, rows: list[list[int]], title: str) -> list[str]:
    """Return a square table of counts as lines."""
    width = max(map(len, (*names, title))) + 2
    head = title.ljust(width) + ''.join(name.rjust(13) for name in names)
    body = [
        f'    {name}'.ljust(width) + ''.join(str(count).rjust(13) for count in row)
        for name, row in zip(names, rows, strict=True)
    ]
    return [head, *body]


def describe_model(at: AtFalseCallRate, inspector: str) -> str:
    """Return a model's recall at the false-call rate of an inspector, as text."""

    def share(found: int, recall: float | None) -> str:
        return 'not estimable' if recall is None else f'{found} of {at.defects} = {recall:.1%}'

    where = 'without a call' if at.threshold is None else f'at score >= {at.threshold:.4g}'
    return (
        f'{inspector}: {at.inspector_rate:.3g} critical false calls an image, recall '
        f'{share(at.inspector_found, at.inspector_recall)}; the model {where}: {at.model_rate:.3g}, recall '
        f'{share(at.model_found, at.model_recall)} (the score is read off these images: no proof)'
    )


if __name__ == '__main__':
    sys.exit(main())
