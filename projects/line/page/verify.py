"""The command that proves a record of decisions unchanged, together with its radiographs and corrections."""

import argparse
import sys
from pathlib import Path
from typing import Any

from projects.arguments import ToolParser
from projects.line.runtime.archive import ArchiveError
from projects.radiograph.files import sha256

from .corrections import facts_in, facts_of
from .record import FIRST, RECORD, check_entry, read_record


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = ToolParser(
        description='Prove that a record of decisions was not changed, and that it fits its radiographs.',
        epilog='exit status: 0 unchanged, 1 changed or damaged, 2 wrong use\n\n'
        'example:\n  %(prog)s work_dirs/inspect',
    )
    parser.add_argument('out', type=Path, help=f'folder of {RECORD}, --out of the page')
    parser.add_argument(
        '--head',
        metavar='HASH',
        help='hash of an earlier last line, noted elsewhere: the record must still hold this line',
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = parse_args(argv)
    path = args.out / RECORD
    if not path.is_file():
        print(f'error: {path}: expected the record of a page; correct the path', file=sys.stderr)
        return 2
    try:
        latest, hashes = _read(path)
    except (ArchiveError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    problems = _copies(args.out, latest) + _derived(args.out, latest)
    if args.head and args.head not in hashes:
        problems.append(f'{path}: expected a line of hash {args.head}: lines were removed or changed')
    for problem in problems:
        print(f'error: {problem}', file=sys.stderr)
    if problems:
        return 1
    radiographs = len({entry['file'] for entry in latest.values()})
    print(
        f'{path}: {len(hashes)} entries on {radiographs} radiographs; each entry follows from the entry '
        f'before, and the copies are the decided radiographs\n'
        f'the last entry has the hash {hashes[-1] if hashes else FIRST}'
    )
    return 0


def _read(path: Path) -> tuple[dict[tuple[str, str], dict[str, Any]], list[str]]:
    """Return the last entry of each reader on each radiograph, and the hashes of all lines."""
    latest, hashes = {}, []
    for entry, digest in read_record(path):
        check_entry(path, entry)
        latest[entry['reader'], entry['file']] = entry
        hashes.append(digest)
    return latest, hashes


def _copies(out: Path, latest: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
    """Return a line for each copy that is missing or not the decided radiograph."""
    problems = []
    for file, digest in sorted({(e['file'], e['radiograph']) for e in latest.values() if e['radiograph']}):
        copy = out / 'images' / file
        try:
            if sha256(copy) != digest:
                problems.append(f'{copy}: is not the radiograph that was decided on; bring back a copy')
        except OSError as error:
            problems.append(f'{copy}: expected the radiograph decided on ({error.strerror}); bring it back')
    return problems


def _derived(out: Path, latest: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
    """Return a line for each file of corrections that does not follow from the record."""
    problems = []
    for reader, name in (('first', 'corrections.json'), ('second', 'corrections-second.json')):
        expected = {
            e['file']: facts_of(e)
            for (who, _), e in latest.items()
            if who == reader and e['verdict'] != 'withdraw' and e['size'] != [0, 0]
        }
        path = out / name
        try:
            found = facts_in(path)
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            found = None
        if found != expected:
            problems.append(
                f'{path}: does not follow from {RECORD}; start the page on {out}, which writes it'
            )
    return problems


if __name__ == '__main__':
    sys.exit(main())
