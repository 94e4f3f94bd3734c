"""Export a detector for the line: a folder with OpenVINO and ONNX graphs, window, threshold and proof."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser, positive  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = ToolParser(
        description=__doc__,
        epilog='example:\n  python tools/export.py configs/small/NAME.py work_dirs/NAME/epoch_8.pth '
        'work_dirs/export/NAME --int8',
    )
    parser.add_argument('config', help='detector config')
    parser.add_argument('checkpoint', help='checkpoint of that config')
    parser.add_argument('out', help='folder to write; must not exist')
    parser.add_argument('--int8', action='store_true', help='quantise by NNCF; OpenVINO only')
    parser.add_argument(
        '--calib', type=positive, default=300, metavar='N', help='training radiographs for INT8 (300)'
    )
    parser.add_argument(
        '--images',
        type=positive,
        default=200,
        metavar='N',
        help='validation radiographs to compare with mmdet (200); the threshold uses all',
    )
    parser.add_argument(
        '--max-loss', type=fraction, default=0.01, metavar='L', help='allowed loss of AP50 (0.01)'
    )
    parser.add_argument(
        '--max-critical-loss',
        type=fraction,
        default=0.005,
        metavar='L',
        help='allowed loss of AP50 of the critical class (0.005)',
    )
    parser.add_argument(
        '--max-escape',
        type=fraction,
        default=0.05,
        metavar='R',
        help='highest escape rate of critical parts at the threshold, on the validation parts (0.05)',
    )
    parser.add_argument(
        '--max-false-reject',
        type=fraction,
        default=0.1,
        metavar='R',
        help='share of rejected sound parts above which export and inference warn (0.1)',
    )
    parser.add_argument(
        '--second-opinion',
        action='store_true',
        help='flag radiographs unlike the sound ones of train, also for unlabelled flaw types',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='K=V',
        help='override config values',
    )
    return parser.parse_args(argv)


def fraction(text: str) -> float:
    """Read a number in (0, 1)."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f'{value}: expected a number between 0 and 1')
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    # The libraries take seconds to import; --help and wrong use do not need them.
    from projects.runs import running

    return running.one_line_errors(lambda _: run(args, running))(argv)


def run(args: argparse.Namespace, running: ModuleType) -> int:
    """Export and print the parity table."""
    from projects.line.export import export, parity
    from projects.line.runtime.folder import NO_BAND

    cfg = running.read_experiment(args.config, args.cfg_options, loader='val_dataloader')
    if not Path(args.checkpoint).is_file():
        raise running.UsageError(f'{args.checkpoint}: no such checkpoint; train {args.config} first')
    if not cfg.get('val_dataloader') or 'roi_head' not in cfg.model:
        raise running.UsageError(f'{args.config}: expected a Faster R-CNN config of configs/')
    out = Path(args.out)
    if out.exists():
        raise running.UsageError(f'{out}: exists, expected a new folder; delete it or choose another name')
    exported = export.export(
        cfg,
        args.checkpoint,
        out,
        calibration=args.calib if args.int8 else 0,
        images=args.images,
        most_loss=args.max_loss,
        most_critical_loss=args.max_critical_loss,
        max_escape=args.max_escape,
        max_false_reject=args.max_false_reject,
        second_opinion=args.second_opinion,
    )
    print(parity.format_parity(exported.parity))
    tied = max(row.get('tied', 0) for row in exported.parity)
    if tied:
        print(
            f'warning: on {tied} of {exported.parity[0]["images"]} validation images rounding decides what '
            'mmdet finds, as many anchors share one score of its RPN: there AP50 alone was compared; train '
            'longer',
            file=sys.stderr,
        )
    if exported.calibration:
        back = ', '.join(exported.calibration['float32']) or 'none'
        print(f'INT8 from {exported.calibration["images"]} radiographs; back in float32: {back}')
    print(f'threshold {exported.threshold:g}: {exported.threshold_reason}')
    print(f'it costs: {exported.cost_in_words()}')
    if exported.cost and exported.cost['rate'] > exported.max_false_reject:
        print(
            f'warning: that is more than {exported.max_false_reject:.0%} of the sound parts; train longer or '
            'on more parts, allow more by --max-escape, or by --max-false-reject',
            file=sys.stderr,
        )
    if not exported.cost:
        print('warning: what the threshold costs is not known; no proof without parts', file=sys.stderr)
    if exported.opinion:
        opinion = exported.opinion
        print(
            f'second opinion: {opinion["flagged"]} of {opinion["sound"]} held-out sound parts flagged, '
            f'at most {opinion["upper"]:.1%} with {opinion["confidence"]:.0%} confidence'
        )
    if not exported.gray_levels:
        print(f'warning: {NO_BAND}; export with more of them', file=sys.stderr)
    print(f'next: python tools/test.py {out} DATA (annotations of test); tools/report.py --exported {out}')
    print(f'wrote {out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
