"""Command lines: the parser that all tools share, numbers within limits, errors in one line."""

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from projects import __version__
from projects.errors import MMXrayError, one_line


class ToolParser(argparse.ArgumentParser):
    """A parser that keeps the lines of its description and of its examples, and answers --version.

    Args:
        description: What the tool does.
        epilog: Exit codes and examples.
        **options: Of `argparse.ArgumentParser`.
    """

    def __init__(self, description: str | None = None, epilog: str | None = None, **options: object):
        options.setdefault('formatter_class', argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, epilog=epilog, **options)

    def parse_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse the command line; --version ends the process, wrong use ends it with status 2."""
        self.add_version()
        return super().parse_args(args, namespace)

    def add_version(self) -> None:
        """Add `--version` as the last option; `parse_args` calls this, `parse_known_args` does not."""
        self.add_argument('--version', action='version', version=f'mmxray {__version__}')

    def add_workers(self) -> None:
        """Add `--workers`; the default is the number of cores of this process."""
        cores = len(os.sched_getaffinity(0))
        self.add_argument('--workers', type=int, default=cores, metavar='N', help='processes (all cores)')

    def check_range(self, name: str, value: float, low: float, high: float) -> None:
        """End with status 2 unless the option `--name` is from `low` to `high`."""
        if not low <= value <= high:
            self.error(f'--{name} {value}: expected a number from {low} to {high}')


def positive(text: str) -> int:
    """Read a whole number above 0; for `type=`."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text}: expected at least 1')
    return value


def one_line_for_bad_input(main: Callable[..., int]) -> Callable[..., int]:
    """Turn an error in a program's input into one line on stderr and exit status 2.

    For programs without a config; programs with a config use `projects.runs.running.one_line_errors`.

    Args:
        main: Takes the arguments (None: those of the process) and returns the exit status.
    """

    @functools.wraps(main)
    def wrapper(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except MMXrayError as error:
            message = one_line(error, 500)
        except OSError as error:
            if error.filename is None:
                raise
            message = f'{error.filename}: cannot be used ({error.strerror}); correct the path'
        print(f'error: {message}', file=sys.stderr)
        return 2

    return wrapper


def exit_code(write: Callable[[], None], out: Path) -> int:
    """Run `write`, which writes `out`, and return 0; after an error print one line and return 2."""
    try:
        write()
    except MMXrayError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f'{out}: expected a file that can be written ({error.strerror})', file=sys.stderr)
        return 2
    return 0
