"""Test a checkpoint: print metrics, write <work dir>/test.json and predictions, draw pictures."""

import argparse
import datetime
import importlib.metadata
import math
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects import __version__  # noqa: E402
from projects.arguments import ToolParser  # noqa: E402

if TYPE_CHECKING:
    from mmengine.runner import TestLoop

    from projects.xray.datasets import XrayDefects

VERSIONS = ('torch', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmpretrain', 'numpy')
SHOWN = 10  # number of refused frames that are listed
LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = ToolParser(
        description=__doc__,
        usage='test.py [options] {CONFIG CHECKPOINT | FOLDER DATA}',
        epilog='examples:\n  python tools/test.py configs/small/NAME.py work_dirs/NAME/epoch_12.pth '
        '--show-dir work_dirs/NAME/pictures\n'
        '  python tools/test.py work_dirs/export/NAME data/synthetic/test.json',
    )
    parser.add_argument('config', help='config file; or an exported folder')
    parser.add_argument('checkpoint', help='checkpoint of that config; or an annotation file (COCO)')
    parser.add_argument(
        '--work-dir',
        help='folder for test.json and predictions.json; default: work_dirs/<config stem>, or FOLDER.test',
    )
    folder = parser.add_argument_group('options of an exported folder')
    folder.add_argument('--images', metavar='DIR', help='folder of the images (images/ beside DATA)')
    folder.add_argument(
        '--severity',
        metavar='MAP',
        help='map from defect types to classes (default: that of the validation set)',
    )
    folder.add_argument('--engine', choices=('openvino', 'onnxruntime'), help='default: openvino')
    parser.add_argument(
        '--val',
        action='store_true',
        help='first predict the val set into predictions_val.json, on which the report fixes thresholds',
    )
    parser.add_argument('--out', metavar='F', help='also write the raw predictions to this .pkl file')
    parser.add_argument(
        '--show-dir', metavar='DIR', help='folder for PNG files with predictions beside the truth (detectors)'
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='launcher of the ranks')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='K=V',
        help='override config values, e.g. test_dataloader.num_workers=0',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.out and not args.out.endswith('.pkl'):
        parser.error(f'--out {args.out}: expected a name that ends in .pkl')
    exported = Path(args.config).is_dir()
    others = ('val', 'out', 'show_dir', 'cfg_options') if exported else ('images', 'severity', 'engine')
    for name in others:
        if getattr(args, name):
            whose = 'CONFIG CHECKPOINT' if exported else 'an exported FOLDER'
            parser.error(f'--{name.replace("_", "-")}: of {whose} alone; leave it out')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    # The libraries take seconds to import; --help and wrong use do not need them.
    from projects.runs import running

    def run(_: Sequence[str] | None) -> int:
        if Path(args.config).is_dir():
            return test_folder(args, running, argv)
        with running.process_group_ends():
            return test(args, running, argv)

    return running.one_line_errors(run)(argv)


def test(args: argparse.Namespace, running: ModuleType, argv: Sequence[str] | None = None) -> int:
    """Load all weights strictly, test, and write the result."""
    from mmengine.evaluator import DumpResults

    from projects.radiograph.files import write_json
    from projects.report.predictions import FILES
    from projects.runs.fit import check_classes
    from projects.runs.testing import load_strictly, on_val

    cfg = running.read_config(args.config, args.cfg_options)
    if '://' not in args.checkpoint and not Path(args.checkpoint).is_file():
        raise running.UsageError(f'{args.checkpoint}: no such checkpoint; train {args.config} first')
    if not cfg.get('model') or not cfg.get('test_dataloader') or not cfg.get('test_evaluator'):
        raise running.UsageError(
            f'{args.config}: has no test_dataloader and test_evaluator, expected a probe or a detector; '
            'to test a pretraining, test a probe or a detector that starts from its weights'
        )
    if args.val and not cfg.get('val_evaluator'):
        raise running.UsageError(f'{args.config}: has no val_evaluator; leave --val out')
    running.set_work_dir(cfg, args.work_dir)
    running.set_seed(cfg)
    cfg.load_from, cfg.resume = None, False
    if args.show_dir:
        show(cfg, args.show_dir, running)
    running.prepare(cfg, args.launcher)
    runner = running.build_runner(cfg)
    meta = load_strictly(runner, args.checkpoint, args.config)
    check_classes(runner, runner.test_loop.dataloader.dataset)
    folder = Path(cfg.work_dir)
    for name in ('test.json', *FILES.values()):  # removes results of an earlier test
        if running.is_main():
            (folder / name).unlink(missing_ok=True)
    val_metrics = None
    if args.val:
        with on_val(runner, cfg):
            val_metrics = runner.test()
            keep_predictions(folder / FILES['val'], runner.test_loop, args.checkpoint, running)
        if running.is_main():
            tell_power(folder, runner.test_loop.dataloader.dataset)
    if args.out:
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    metrics = runner.test()
    keep_predictions(folder / FILES['test'], runner.test_loop, args.checkpoint, running)
    if running.is_main():
        result = dict(
            config=args.config,
            checkpoint=args.checkpoint,
            metrics=without_nan(metrics),
            **({'val_metrics': without_nan(val_metrics)} if args.val else {}),
            # The seed of the training; testing makes no random draws.
            seed=meta.get('seed'),
        )
        write_json(folder / 'test.json', result | origin(argv, args.config), indent=2)
        print(f'wrote {folder / "test.json"}')
    return 0


def tell_power(folder: Path, test_set: 'XrayDefects') -> None:
    """Print the parts' threshold from val, and the chance that test proves it, before test is used.

    Args:
        folder: Folder with the predictions of val; an image classifier has no threshold.
        test_set: Test set; only its annotations are read.
    """
    from projects.errors import MMXrayError
    from projects.measures.images import read_images
    from projects.measures.matching import match_all
    from projects.measures.parts import gather_parts
    from projects.measures.proof import choose_threshold
    from projects.report.measured import Settings
    from projects.report.predictions import FILES, read_predictions
    from projects.xray.datasets import load_defects

    if not (folder / FILES['val']).is_file():
        return
    try:
        val = read_predictions(folder, 'val')
        if val.task != 'detection':
            return
        truth = load_defects(test_set.ann_file, val.classes, test_set.severity)
        parts, of_test = (
            gather_parts(match_all(images)) for images in (val.inspected, read_images(truth, []))
        )
        critical = sum(part.truth == 'critical' for part in of_test)
        statement = choose_threshold(parts, Settings().max_escape, critical).statement
    except MMXrayError as error:
        statement = f'no threshold of parts: {error}'
    print(f'before test is opened: {statement}')


def test_folder(args: argparse.Namespace, running: ModuleType, argv: Sequence[str] | None = None) -> int:
    """Run the engine of an exported folder on an annotated set, and write the result beside the folder."""
    from projects.line.export.evaluate import evaluate
    from projects.line.runtime.folder import tested_beside
    from projects.radiograph.files import write_json
    from projects.report.predictions import FILES

    source, data = Path(args.config), Path(args.checkpoint)
    if not data.is_file():
        raise running.UsageError(f'{data}: no such annotation file; give the COCO file of the test set')
    images = Path(args.images) if args.images else None
    predictions, result = evaluate(source, data, images, args.severity, args.engine or 'openvino')
    folder = Path(args.work_dir) if args.work_dir else tested_beside(source)
    write_json(folder / FILES['test'], predictions, indent=None)
    write_json(folder / 'test.json', result | dict(seed=None) | origin(argv), indent=2)
    print(f'wrote {folder}/test.json and {FILES["test"]}')
    tell_refused(predictions['refused'], len(predictions['truth']['images']))
    print(f'next: python tools/report.py --exported {args.config} --out work_dirs/report')
    return 0


def tell_refused(refused: Mapping[str, str], images: int) -> None:
    """Print the number of frames that the folder refused, and the first ones with their reasons."""
    if not refused:
        return
    print(
        f'{len(refused)} of {images} radiographs were refused, as the line puts them into quarantine; the '
        'report counts their parts against the detector:'
    )
    for name, reason in list(refused.items())[:SHOWN]:
        print(f'  {name}: {reason}')
    if len(refused) > SHOWN:
        print(f'  and {len(refused) - SHOWN} more: refused.csv of the report')


def origin(argv: Sequence[str] | None, config: str | None = None) -> dict:
    """Return the origin of a result: commit, machine, versions, command and date."""
    from projects.runs import provenance

    facts = provenance.provenance(config)
    return dict(
        commit=facts['commit'],
        dirty=facts['dirty'],
        hardware=facts['hardware'],
        versions={'python': platform.python_version(), 'mmxray': __version__}
        | {name: importlib.metadata.version(name) for name in VERSIONS},
        command=shlex.join(['python', 'tools/test.py', *(sys.argv[1:] if argv is None else argv)]),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    )


def without_nan(metrics: dict) -> dict:
    """Replace NaN (the AP of a class without boxes) by None, since JSON has no NaN."""
    return {key: None if math.isnan(value) else float(value) for key, value in metrics.items()}


def keep_predictions(path: Path, loop: 'TestLoop', checkpoint: str, running: ModuleType) -> None:
    """Write the model's predictions on every image, if a metric kept them."""
    from projects.radiograph.files import write_json
    from projects.report.predictions import describe_data

    kept = [metric.predictions for metric in loop.evaluator.metrics if hasattr(metric, 'predictions')]
    if kept and running.is_main():
        write_json(path, describe_data(kept[0], loop.dataloader.dataset, checkpoint), indent=None)
        print(f'wrote {path}')


def show(cfg: Mapping, folder: str, running: ModuleType) -> None:
    """Let the detector's visualization hook draw every test image into `folder`."""
    hook = cfg.default_hooks.get('visualization') or {}
    if hook.get('type') != 'XrayVisualizationHook':
        raise running.UsageError(
            f'{cfg.filename}: --show-dir expects XrayVisualizationHook as default_hooks.visualization, which '
            'detectors have; leave --show-dir out'
        )
    hook.update(draw=True, num_images=None, out_dir=folder)


if __name__ == '__main__':
    sys.exit(main())
