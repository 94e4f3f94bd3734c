"""Merge the complete shards of an inspected archive into one table, as coco.json and CSV."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser  # noqa: E402
from projects.line.runtime.merge import merge_shards  # noqa: E402
from projects.line.runtime.tables import ArchiveError  # noqa: E402

EXAMPLE = """example:
  for i in 1 2 3 4; do python tools/infer.py FOLDER archive --out found --shard $i/4 & done; wait
  python tools/merge_shards.py found

exit status: 0 merged, 1 shards are missing or not complete, or do not belong together"""


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0 if merged, else 1."""
    parser = ToolParser(__doc__, EXAMPLE)
    parser.add_argument('out', type=Path, metavar='OUT', help='--out of tools/infer.py')
    args = parser.parse_args(argv)
    try:
        merged = merge_shards(args.out)
    except ArchiveError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(
        f'{args.out}: {merged.radiographs} radiographs, {merged.rejected} rejected, {merged.quarantined} not '
        'readable (quarantine.csv)'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
