"""Set up an experiment on your own data: configs in configs/own/NAME that fit the data and the machine.

Reads a data set that tools/convert_dataset.py wrote. Chooses network, input, anchors, batch and epochs, says
why in the one fragment that is to be edited, times a few steps, and prints the next commands. With --run it
does them: check, pretrain, fine-tune two arms, test, export, report; the same command goes on after a kill.
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
    parser.add_argument('data', type=Path, metavar='DATA', help='folder that tools/convert_dataset.py wrote')
    parser.add_argument(
        '--severity',
        required=True,
        metavar='F',
        help='YAML lines `type: critical` or `type: minor`; or `castings`, the map of the generated types',
    )
    parser.add_argument('--scale', choices=SCALES, help='default: by the GPUs of this machine')
    parser.add_argument('--name', metavar='N', help="default: the folder's name; every config carries it")
    parser.add_argument('--run', action='store_true', help='do all steps, or those that are left')
    parser.add_argument('--no-timing', action='store_true', help='time no steps')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    # The libraries take seconds to import: --help and wrong use do not wait for them.
    from projects.runs import running

    return running.one_line_errors(lambda _: set_up(args))(argv)


def set_up(args: argparse.Namespace) -> int:
    """Write the experiment, or keep one that is there, say what it costs, and run it if asked to."""
    from projects.experiment import command, follow

    experiment = command.set_up(args.data, args.severity, args.scale, args.name)
    if not args.run:
        command.say_next(experiment, args.severity, timed=not args.no_timing)
        return 0
    return follow.run(experiment, args.data)


if __name__ == '__main__':
    sys.exit(main())
