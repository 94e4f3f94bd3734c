"""Rank the radiographs of an archive for labelling, by the results of two exported detectors.

A radiograph is worth labelling if the detectors are unsure (the highest score is near the threshold) or
disagree (different scores for the same flaw, or a flaw that only one finds).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser, exit_code  # noqa: E402

EXAMPLE = """example:
  python tools/infer.py work_dirs/export/A archive --out found/A
  python tools/infer.py work_dirs/export/B archive --out found/B
  python tools/rank_for_labelling.py found/A/shard-1-of-1 found/B/shard-1-of-1 next.csv --most 500"""


def main(argv: list[str] | None = None) -> int:
    """Rank; returns 0 done, 2 wrong use."""
    from projects.prepare.curation.rank import ORDERS

    parser = ToolParser(__doc__, EXAMPLE)
    parser.add_argument('first', type=Path, metavar='A', help='folder with coco.json, of tools/infer.py')
    parser.add_argument(
        'second', type=Path, metavar='B', help='the same of another detector on the same archive'
    )
    parser.add_argument('out', type=Path, metavar='OUT', help='table to write (.csv), or a list (.txt)')
    parser.add_argument('--by', choices=ORDERS, default='both', help='criterion (both)')
    parser.add_argument('--most', type=int, metavar='N', help='write only the first N')
    args = parser.parse_args(argv)
    if args.most is not None and args.most < 1:
        parser.error(f'--most {args.most}: expected at least 1')
    return exit_code(lambda: write_order(args), args.out)


def write_order(args: argparse.Namespace) -> None:
    """Write the ranking, and print its number of radiographs."""
    from projects.prepare.curation.rank import rank, read_found, write_ranking

    found = read_found(args.first), read_found(args.second)
    rows = rank(*found, args.by)
    write_ranking(rows, args.out, args.most)
    print(f'{args.out}: {min(args.most or len(rows), len(rows))} of {len(rows)} radiographs, by {args.by}')
    if unread := max(one.unread for one in found):
        print(f'note: {unread} radiographs could not be read and are not among them (quarantine.csv)')


if __name__ == '__main__':
    sys.exit(main())
