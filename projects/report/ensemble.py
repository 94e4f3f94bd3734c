"""The ensemble of several detectors, from their predictions: python -m projects.report.ensemble RUN RUN."""

import argparse
import datetime
import hashlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from projects.errors import MMXrayError
from projects.measures.images import InspectedImage, read_images
from projects.measures.matching import match_all
from projects.measures.ranking import average_precision_at, recall_at
from projects.radiograph.files import whole_folder, write_json
from projects.runs.provenance import provenance
from projects.xray import compat  # noqa: F401 (before mmdet)

from .predictions import FILES, Predictions, read_predictions
from .runs import read_runs

IOU = 0.55  # the default of weighted boxes fusion
IOUS = np.linspace(0.5, 0.95, 10)
ALIKE = dict(classes='other classes', sha256='another annotation file', truth='other annotations')
KEPT = ('task', 'classes', 'ann_file', 'sha256', 'folder', 'window', 'truth', 'population', 'digests')


class EnsembleError(MMXrayError, ValueError):
    """Predictions cannot be brought together; one line with the remedy."""


def fuse(members: Sequence[Predictions], names: Sequence[str], iou: float = IOU) -> dict:
    """Bring the predictions of several detectors on the same images together.

    Boxes of one class that overlap become one: the mean of their corners, weighted by score. Its score is the
    mean of theirs, times the share of the detectors if fewer boxes than detectors found it (weighted boxes
    fusion, Solovyev et al., Image and Vision Computing 107, 2021; mmdet's implementation). Boxes of score or
    size zero are dropped.

    Args:
        members: Each detector's predictions.
        names: Names of the detectors.
        iou: Smallest intersection over union of boxes that are one.

    Returns:
        Content of a `predictions.json`, with window and folder of the first detector.

    Raises:
        EnsembleError: A member is no detector, was tested on other annotations or classes, refused an image,
            predicts masks, or has a score outside of [0, 1].
    """
    from mmdet.models.utils import weighted_boxes_fusion

    first = members[0]
    for member, name in zip(members, names, strict=True):
        if member.task != 'detection':
            raise EnsembleError(f'{name}: classifies whole images, which have no boxes; name detectors')
        other = next(
            (what for key, what in ALIKE.items() if getattr(member, key) != getattr(first, key)), None
        )
        if other:
            raise EnsembleError(f'{name}: was tested with {other} than {names[0]}; test both alike')
        if member.refused:
            raise EnsembleError(f'{name}: refused an image, expected the test of a checkpoint; name that')
        if any(np.isfinite(image.areas).any() for image in member.inspected):
            raise EnsembleError(f'{name}: predicts masks, which have no mean; name detectors of boxes')
        if any(((image.scores < 0) | (image.scores > 1)).any() for image in member.inspected):
            raise EnsembleError(
                f'{name}: scores outside of 0 to 1, expected probabilities; name another detector'
            )
    ids = [category['id'] for category in first.truth['categories']]
    detections = []
    images = zip(*(member.inspected for member in members), strict=True)
    for views in tqdm(images, 'averaging', len(first.inspected), unit='image', disable=None):
        fused = weighted_boxes_fusion(*zip(*map(_lists, views), strict=True), iou_thr=iou)
        for (x1, y1, x2, y2), score, label in zip(*(column.tolist() for column in fused), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            detections.append(
                dict(image_id=views[0].image_id, category_id=ids[label], bbox=box, score=min(score, 1.0))
            )
    checkpoint = f'ensemble of {", ".join(names)}; boxes of an IoU of {iou:g} averaged'
    return {key: getattr(first, key) for key in KEPT} | dict(detections=detections, checkpoint=checkpoint)


def _lists(image: InspectedImage) -> tuple[list, list, list]:
    """Return boxes, scores and labels of an image without boxes of score or size zero."""
    kept = (image.scores > 0) & (image.boxes[:, 2:] > image.boxes[:, :2]).all(1)
    return image.boxes[kept].tolist(), image.scores[kept].tolist(), image.labels[kept].tolist()


def measure(images: Sequence[InspectedImage], classes: Sequence[str]) -> dict[str, float]:
    """Return AP50, AP, AP50 of each class and the recall of the first class at half a false alarm an image.

    Values are in [0, 1]; those of a class without an annotated box are left out.
    """
    everything = np.arange(len(images))
    curves = [
        [average_precision_at(images, label, iou)(everything) for iou in IOUS]
        for label in range(len(classes))
    ]
    present = [curve for curve in curves if curve[0] is not None]
    values: dict = dict(
        AP50=_mean([curve[0] for curve in present]), AP=_mean([v for c in present for v in c])
    )
    values |= {f'AP50_{name}': curve[0] for name, curve in zip(classes, curves, strict=True)}
    values[f'recall_{classes[0]}_at_0.5'] = recall_at(match_all(images), 0.5)(everything)
    return {key: value for key, value in values.items() if value is not None}


def _mean(values: list) -> float | None:
    return float(np.mean(values)) if values else None


def read_members(runs: Sequence[Path], val_alone: bool) -> dict[str, list[Predictions]]:
    """Return the predictions of runs that the report would take, by split: val, if all have it, and test.

    Raises:
        EnsembleError: A run is given twice, or the report would leave it out.
        PredictionsError: Predictions of val are missing or invalid.
    """
    if len({run.resolve() for run in runs}) < len(runs):
        raise EnsembleError(f'{runs[0]}, …: a run is given twice; name each once')
    if val_alone:
        failed = next((run for run in runs if (run / 'failed.json').is_file()), None)
        if failed:
            raise EnsembleError(f'{failed}: failed in a study; run the study again')
        return dict(val=[read_predictions(run, 'val') for run in runs])
    found = []
    for run in runs:
        taken, left_out = read_runs([run])
        if not taken:
            raise EnsembleError((left_out or [f'{run}: is a pretraining; name tested detectors'])[0])
        found.append(taken[0])
    without = next((run.folder for run in found if run.val is None), None)
    if without:
        print(
            f'{without}: has no predictions of val, which are left out; run tools/test.py --val',
            file=sys.stderr,
        )
    val = [] if without else [run.val for run in found if run.val]
    return (dict(val=val) if val else {}) | dict(test=[run.predictions for run in found])


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
    parser.add_argument('--out', type=Path, metavar='OUT', help='new work dir to write, for tools/report.py')
    parser.add_argument('--val', action='store_true', help='measure on val alone; test stays closed')
    parser.add_argument(
        '--iou', type=float, default=IOU, help=f'smallest IoU of boxes that are one ({IOU}); choose it on val'
    )
    args = parser.parse_args(argv)
    if len(args.runs) < 2 or not 0 < args.iou < 1:
        parser.error('expected two runs at least, and an --iou between 0 and 1')
    if args.val and args.out:
        parser.error('--out needs the predictions of test; leave --val out')
    command = shlex.join(
        ['python', '-m', 'projects.report.ensemble', *(sys.argv[1:] if argv is None else argv)]
    )
    if args.out and args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        parser.error(f'--out {args.out}: expected a new or empty folder; name another')
    names = [str(run) for run in args.runs]
    fused, rows = {}, []
    try:
        for split, members in read_members(args.runs, args.val).items():
            fused[split] = fuse(members, names, args.iou)
            together = read_images(fused[split]['truth'], fused[split]['detections'])
            for name, images in zip(
                [*names, 'ensemble'], [*(m.inspected for m in members), together], strict=True
            ):
                rows.append((split, name, measure(images, members[0].classes)))
        _print(rows)
        if args.out:
            _write(args.out, fused, rows[-1][2], command)
    except MMXrayError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except OSError as error:
        print(f'error: {error.filename or args.out}: {error.strerror}; name another OUT', file=sys.stderr)
        return 1
    if args.out:
        print(f'next: python tools/report.py {shlex.quote(str(args.out))} --out work_dirs/report')
    return 0


def _print(rows: Sequence[tuple[str, str, dict[str, float]]]) -> None:
    columns = list(rows[0][2])
    print(f'| images | detector | {" | ".join(columns)} |\n|---|---|' + '---:|' * len(columns))
    for split, name, values in rows:
        cells = [f'{values[key]:.3f}' if key in values else '–' for key in columns]
        print(f'| {split} | {name} | {" | ".join(cells)} |')


def _write(out: Path, fused: dict[str, dict], metrics: dict[str, float], command: str) -> None:
    """Write a work dir as tools/test.py does; it records no training, so that nothing is proven of it."""
    checkpoint = fused['test']['checkpoint']
    facts = provenance()
    # A name of its own for each ensemble, which names no arm.
    name = hashlib.sha256(checkpoint.encode()).hexdigest()[:8]
    result = dict(
        config=f'ensemble-{name}.py',
        checkpoint=checkpoint,
        metrics={f'xray/{key}': value for key, value in metrics.items()},
        seed=None,
        **{key: facts[key] for key in ('commit', 'dirty', 'hardware')},
        command=command,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    )
    with whole_folder(out):
        for split, content in fused.items():
            write_json(out / FILES[split], content, indent=None)
        write_json(out / 'test.json', result, indent=2)


if __name__ == '__main__':
    sys.exit(main())
