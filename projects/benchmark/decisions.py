"""Benchmark of a decision on the page after many others: writing the record and a copy of the radiograph.

A pause separates the decisions, so that the page writes corrections during some of them. Without arguments
each decision is on a different drawn radiograph, found by a stand-in detector that takes no time. Given
radiographs are decided on in turn.

Example:
    python -m projects.benchmark.decisions
    python -m projects.benchmark.decisions exported/castings part.png --before 50000
"""

import argparse
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from projects.arguments import one_line_for_bad_input
from projects.line.page.record import RECORD, Record
from projects.line.page.session import Session
from projects.line.runtime import Inspector

from .stand_in import add_arguments, chosen

SIDE = 512  # px of a drawn radiograph


@one_line_for_bad_input
def main(argv: list[str] | None = None) -> int:
    """Print the times of the timed decisions; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    add_arguments(parser)
    parser.add_argument('--before', type=int, default=50_000, metavar='N', help='decisions before (50,000)')
    parser.add_argument('--decisions', type=int, default=150, metavar='N', help='that are timed (150)')
    parser.add_argument('--pause', type=float, default=0.1, metavar='S', help='seconds between two (0.1)')
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as place:
        model, images = chosen(parser, args, Path(place), SIDE, args.decisions)
        inspector, out = Inspector(model), Path(place, 'out')
        with closing(Session(inspector, out)) as session:
            key = session.add(images[0].name, images[0])
            session.inspect(key)
            if session.items[key].state != 'found':
                print(f'error: {session.items[key].reason}', file=sys.stderr)
                return 1
            session.decide(key, 'accept', [])
            (entry,) = session.decisions.latest.values()
        _fill(out, entry, args.before)
        begin = time.perf_counter()
        with closing(Session(inspector, out)) as session:
            start = time.perf_counter() - begin
            keys = [session.add(path.name, path) for path in images]
            session.inspect_all(keys)
            seconds = []
            for k in range(args.decisions):
                begin = time.perf_counter()
                session.decide(keys[k % len(keys)], 'accept', [])
                seconds.append(time.perf_counter() - begin)
                time.sleep(args.pause)
            size = (out / RECORD).stat().st_size
    median, worst = np.median(seconds), max(seconds)
    print(
        f'{args.before} decisions before ({size / 1e6:.0f} MB, read at the start in {start:.1f} s): one more '
        f'takes {median:.4f} s (median of {len(seconds)}), {worst:.4f} s at most'
    )
    return 0


def _fill(out: Path, entry: dict, count: int) -> None:
    """Write a record of `count` copies of a decision, each on a different radiograph."""
    (out / RECORD).unlink()
    record = Record(out / RECORD, durable=False)
    for k in range(count):
        record.append(
            {key: entry[key] for key in entry if key not in ('number', 'previous')} | dict(file=f'{k}.png')
        )


if __name__ == '__main__':
    sys.exit(main())
