"""Set up an experiment on your own data: write configs for the data and the machine to configs/own/NAME.

The tool reads a data set written by tools/convert_dataset.py. It chooses network, input, anchors, batch and
epochs, and writes the reasons into the fragment that you edit. It times a few steps and prints the next
commands. With --run it executes them: check, pretrain, fine-tune two arms, test, export, report. After a
kill, the same command continues.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser  # noqa: E402

SCALES = ('cpu', 'one-gpu', 'four-gpu')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits 2 on wrong use."""
    parser = ToolParser(
        description=__doc__,
        epilog='exit status: 0 done, 1 a step failed, 2 wrong use\n\nexample:\n'
        '  python tools/new_experiment.py data/housings --severity severity.yaml --scale cpu',
    )
    parser.add_argument('data', type=Path, metavar='DATA', help='folder written by tools/convert_dataset.py')
    parser.add_argument(
        '--severity',
        required=True,
        metavar='F',
        help='YAML lines `type: critical` or `type: minor`; or `castings`, the map of the generated types',
    )
    parser.add_argument('--scale', choices=SCALES, help='default: by the GPUs of this machine')
    parser.add_argument('--name', metavar='N', help="part of each config's name; default: the folder's name")
    parser.add_argument('--run', action='store_true', help='run all unfinished steps')
    parser.add_argument('--no-timing', action='store_true', help='do not time steps')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    # The libraries take seconds to import; --help and wrong use do not need them.
    from projects.runs import running

    return running.one_line_errors(lambda _: set_up(args))(argv)


def set_up(args: argparse.Namespace) -> int:
    """Write the experiment or find an existing one, then print its cost or run it."""
    from projects.experiment import command, follow

    experiment = command.set_up(args.data, args.severity, args.scale, args.name)
    if not args.run:
        command.say_next(experiment, args.severity, timed=not args.no_timing)
        return 0
    return follow.run(experiment, args.data)


if __name__ == '__main__':
    sys.exit(main())
