"""The ensemble of several detectors, from their predictions: python -m projects.report.ensemble RUN RUN."""

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from projects.errors import MMXrayError
from projects.measures.images import MeasureError, read_images
from projects.measures.matching import match_all
from projects.measures.ranking import average_precision_at, recall_at
from projects.radiograph.files import write_json
from projects.runs.provenance import provenance
from projects.xray import compat  # noqa: F401 (before mmdet)

from .predictions import FILES

IOU = 0.55  # the default of weighted boxes fusion
IOUS = np.linspace(0.5, 0.95, 10)
ALIKE = dict(classes='other classes', sha256='another annotation file', truth='other annotations')


class EnsembleError(MMXrayError, ValueError):
    """Predictions cannot be brought together; one line with the remedy."""


def fuse(members: Sequence[dict], names: Sequence[str], iou: float = IOU) -> dict:
    """Bring the predictions of several detectors on the same images together.

    Boxes of one class that overlap become one: the mean of their corners, weighted by score. Its score is the
    mean of theirs, times the share of the detectors if fewer boxes than detectors found it (weighted boxes
    fusion, Solovyev et al., Image and Vision Computing 107, 2021; mmdet's implementation).

    Args:
        members: Content of each detector's `predictions.json` or `predictions_val.json`.
        names: Names of the detectors, for messages and as the checkpoint of the ensemble.
        iou: Smallest intersection over union of boxes that are one.

    Returns:
        Content of such a file.

    Raises:
        EnsembleError: The detectors were tested on other images, annotations or classes, one refused an
            image, or one predicts masks.
    """
    from mmdet.models.utils import weighted_boxes_fusion

    if len(set(names)) < len(names):
        raise EnsembleError(f'{names[0]}, …: a detector is named twice; name each once')
    first = members[0]
    for member, name in zip(members, names, strict=True):
        other = next((what for key, what in ALIKE.items() if member[key] != first[key]), None)
        if other:
            raise EnsembleError(f'{name}: was tested with {other} than {names[0]}; test both alike')
        if member.get('refused'):
            raise EnsembleError(f'{name}: refused an image, expected the test of a checkpoint; name that')
        if any('segmentation' in one for one in member['detections']):
            raise EnsembleError(f'{name}: predicts masks, which have no mean; name detectors of boxes')
    found: dict = {image['id']: [([], [], []) for _ in members] for image in first['truth']['images']}
    for position, member in enumerate(members):
        for one in member['detections']:
            boxes, scores, labels = found[one['image_id']][position]
            x, y, width, height = one['bbox']
            boxes.append([x, y, x + width, y + height])
            scores.append(one['score'])
            labels.append(one['category_id'])
    detections = []
    for image_id, lists in found.items():
        fused = weighted_boxes_fusion(*(list(column) for column in zip(*lists, strict=True)), iou_thr=iou)
        for (x1, y1, x2, y2), score, label in zip(*(column.tolist() for column in fused), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            detections.append(dict(image_id=image_id, category_id=label, bbox=box, score=score))
    return first | dict(detections=detections, checkpoint=f'ensemble of {", ".join(names)}')


def measure(predictions: dict) -> dict[str, float]:
    """Return AP50, AP, AP50 of each class and the recall of the first class at half a false alarm an image.

    Values are in [0, 1]; those of a class without an annotated box are left out.
    """
    images = read_images(predictions['truth'], predictions['detections'])
    everything = np.arange(len(images))
    curves = [
        [average_precision_at(images, label, iou)(everything) for iou in IOUS]
        for label in range(len(predictions['classes']))
    ]
    present = [curve for curve in curves if curve[0] is not None]
    values = dict(AP50=_mean([curve[0] for curve in present]), AP=_mean([v for c in present for v in c]))
    values |= {f'AP50_{name}': curve[0] for name, curve in zip(predictions['classes'], curves, strict=True)}
    recall = recall_at(match_all(images), 0.5)(everything)
    values[f'recall_{predictions["classes"][0]}_at_0.5'] = recall
    return {key: value for key, value in values.items() if value is not None}


def _mean(values: list) -> float | None:
    return float(np.mean(values)) if values else None


def _read(run: Path, split: str) -> dict:
    path = run / FILES[split]
    try:
        content = json.loads(path.read_bytes())
        read_images(content['truth'], content['detections'])
    except (OSError, ValueError, KeyError, TypeError, MeasureError) as error:
        raise EnsembleError(
            f'{path}: expected boxes as tools/test.py writes them ({type(error).__name__}: {error}); test '
            'the detector again'
        ) from None
    return dict(content)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a Markdown table of the detectors and their ensemble; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m projects.report.ensemble',
        description='Average the boxes of several detectors (weighted boxes fusion) and measure the result. '
        'An ensemble takes the time of all its members, and is not exported to the line.',
        epilog='example: python -m projects.report.ensemble work_dirs/study/castings/ARM/seed* --out '
        'work_dirs/ensemble; python tools/report.py work_dirs/ensemble',
    )
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN', help='work dir with predictions.json')
    parser.add_argument('--out', type=Path, metavar='OUT', help='work dir to write, for tools/report.py')
    parser.add_argument('--val', action='store_true', help='measure on val alone; test stays closed')
    parser.add_argument(
        '--iou', type=float, default=IOU, help=f'smallest IoU of boxes that are one ({IOU}); choose it on val'
    )
    args = parser.parse_args(argv)
    if len(args.runs) < 2 or not 0 < args.iou < 1:
        parser.error('expected two runs at least, and an --iou between 0 and 1')
    if args.val and args.out:
        parser.error('--out needs the predictions of test; leave --val out')
    names = [str(run) for run in args.runs]
    on_val = all((run / FILES['val']).is_file() for run in args.runs)
    fused, rows = {}, []
    try:
        for split in ['val'] if args.val else ['val', 'test'] if on_val else ['test']:
            members = [_read(run, split) for run in args.runs]
            fused[split] = fuse(members, names, args.iou)
            rows += [(split, name, measure(member)) for name, member in zip(names, members, strict=True)]
            rows.append((split, 'ensemble', measure(fused[split])))
    except EnsembleError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    columns = list(rows[0][2])
    print(f'| images | detector | {" | ".join(columns)} |\n|---|---|' + '---:|' * len(columns))
    for split, name, values in rows:
        cells = [f'{values[key]:.3f}' if key in values else '–' for key in columns]
        print(f'| {split} | {name} | {" | ".join(cells)} |')
    if args.out:
        command = shlex.join(['python', '-m', 'projects.report.ensemble', *(argv or sys.argv[1:])])
        _write(args.out, fused, rows[-1][2], command)
        print(f'next: python tools/report.py {args.out} --out {args.out}/report')
    return 0


def _write(out: Path, fused: dict[str, dict], metrics: dict[str, float], command: str) -> None:
    """Write a work dir as tools/test.py does."""
    for split, content in fused.items():
        write_json(out / FILES[split], content, indent=None)
    facts = provenance()
    result = dict(
        config='ensemble.py',
        checkpoint=fused['test']['checkpoint'],
        metrics={f'xray/{name}': value for name, value in metrics.items()},
        seed=None,
        **{key: facts[key] for key in ('commit', 'dirty', 'hardware')},
        command=command,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    )
    write_json(out / 'test.json', result, indent=2)


if __name__ == '__main__':
    sys.exit(main())
