"""Check the data set of a config before training: files, boxes, classes, leaks, window, anchors.

Every image is decoded once, in parallel. The tool prints a table and writes dataset.json and dataset.html
(contact sheet with the worst images first, histograms, box sizes). For a detector or probe with pretrained
weights, it compares the images of the pretraining with the test split. For a pretraining config, it compares
its images with the test splits of the configs that start from it.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser  # noqa: E402


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits 2 on wrong use."""
    parser = ToolParser(
        description=__doc__,
        epilog='exit status: 0 no error (warnings may be), 1 errors found, 2 wrong use\n\nexample:\n  python '
        'tools/check_dataset.py configs/faster_rcnn/faster-rcnn_r50-in1k-pre_fpn_4xb4-6x_gdxray-b.py',
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--out', type=Path, metavar='DIR', help='folder to write; default: work_dirs/<config stem>'
    )
    parser.add_workers()
    parser.add_argument('--cfg-options', nargs='+', metavar='K=V', help='override config values')
    args = parser.parse_args(argv)
    parser.check_range('workers', args.workers, 1, 256)
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    # The libraries take seconds to import; --help and wrong use do not need them.
    from projects.runs import running

    return running.one_line_errors(lambda _: check(args))(argv)


def check(args: argparse.Namespace) -> int:
    """Examine the data set of a config, print the report and write it."""
    from projects.prepare import page
    from projects.prepare.examine import examine
    from projects.prepare.findings import ERROR
    from projects.prepare.table import format_report
    from projects.radiograph.files import write_json, write_whole
    from projects.runs import running

    cfg = running.read_experiment(args.config, args.cfg_options)
    running.set_work_dir(cfg, args.out and str(args.out))
    report, findings, evidence = examine(cfg, args.config, args.workers, args.cfg_options)
    out = Path(cfg.work_dir)
    write_whole(out / 'dataset.html', page.render(report, findings, **evidence))
    write_json(out / 'dataset.json', report)
    print(format_report(report, findings))
    print(f'\nwritten: {out / "dataset.json"}, {out / "dataset.html"}')
    return 1 if any(finding.level == ERROR for finding in findings) else 0


if __name__ == '__main__':
    sys.exit(main())
