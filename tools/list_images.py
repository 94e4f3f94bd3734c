"""Write the inventory of an archive beside it: path, size, mark, format, shape and part of each file.

Example:
    python tools/list_images.py s3://castings/raw --group '(P[0-9]+)'
    python tools/list_images.py s3://castings/raw --report s3://castings-inventory/castings/daily/2026-11-28T01-00Z/manifest.json

Trainings then take the list of images from the inventory. A second run reads only new and changed files.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser  # noqa: E402
from projects.radiograph import inventory  # noqa: E402
from projects.radiograph.image import ImagingError  # noqa: E402
from projects.radiograph.parts import of_several_folders  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; wrong use ends the program with status 2."""
    head, example = __doc__.split('\n\n', 1)
    parser = ToolParser(head, example)
    parser.add_argument('source', metavar='SRC', help='folder of radiographs, recursive, or its URL')
    parser.add_argument(
        '--group', metavar='REGEX', help='its first group in the path is the part; default: no part'
    )
    parser.add_argument(
        '--report', metavar='MANIFEST', help='manifest.json of an S3 inventory report, instead of listing SRC'
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=4 * len(os.sched_getaffinity(0)),
        metavar='N',
        help='files read at the same time (four per core)',
    )
    args = parser.parse_args(argv)
    parser.check_range('workers', args.workers, 1, 1024)
    try:
        re.compile(args.group or '')
    except re.error as error:
        parser.error(f'--group {args.group}: {error}')
    return args


def progress(results: Iterator[inventory.Entry], total: int) -> Iterator[inventory.Entry]:
    """Show a bar on a terminal."""
    return iter(tqdm(results, total=total, unit='file', disable=None))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code, 1 if files cannot be read as radiographs."""
    args = parse_args(argv)
    try:
        entries, looked = inventory.take(args.source, args.group, args.report, args.workers, progress)
    except ImagingError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    bad = [entry for entry in entries if entry.reason not in ('', 'no DICOM')]
    images = inventory.radiographs(entries)
    print(f'{args.source}: {len(images)} radiographs, {looked} files read, {len(bad)} unreadable')
    if args.group and (shared := of_several_folders({entry.path: entry.part for entry in entries})):
        print(f'note: {shared}')
    for entry in bad:
        print(f'unreadable: {entry.reason}', file=sys.stderr)
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
