"""Rank the radiographs of an archive for labelling, from what two exported detectors said of them.

Worth a label is what they are unsure of (the highest score is near the threshold), or disagree on (another
score for the same find, or none).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects import __version__  # noqa: E402
from projects.errors import MMXrayError  # noqa: E402

EXAMPLE = """example:
  python tools/infer.py work_dirs/export/A archive --out found/A
  python tools/infer.py work_dirs/export/B archive --out found/B
  python tools/rank_for_labelling.py found/A/shard-1-of-1 found/B/shard-1-of-1 next.csv --most 500"""


def main(argv: list[str] | None = None) -> int:
    """Rank; returns 0 done, 2 wrong use."""
    from projects.prepare.curation.rank import ORDERS, rank, read_found, write_ranking

    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('first', type=Path, metavar='A', help='folder with coco.json, of tools/infer.py')
    parser.add_argument('second', type=Path, metavar='B', help="another detector's, on the same archive")
    parser.add_argument('out', type=Path, metavar='OUT', help='table to write (.csv), or a list (.txt)')
    parser.add_argument('--by', choices=ORDERS, default='both', help='what counts (both)')
    parser.add_argument('--most', type=int, metavar='N', help='write the first N alone')
    parser.add_argument('--version', action='version', version=f'mmxray {__version__}')
    args = parser.parse_args(argv)
    if args.most is not None and args.most < 1:
        parser.error(f'--most {args.most}: expected at least 1')
    try:
        found = read_found(args.first), read_found(args.second)
        rows = rank(*found, args.by)
        write_ranking(rows, args.out, args.most)
    except MMXrayError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f'{args.out}: expected a file that can be written ({error.strerror})', file=sys.stderr)
        return 2
    print(f'{args.out}: {min(args.most or len(rows), len(rows))} of {len(rows)} radiographs, by {args.by}')
    if unread := max(one.unread for one in found):
        print(f'note: {unread} radiographs could not be read and are not among them (quarantine.csv)')
    return 0


if __name__ == '__main__':
    sys.exit(main())
