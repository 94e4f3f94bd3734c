"""Inspect an archive in parallel shards, here or as jobs of a cluster, and merge their tables into one.

Further options are those of tools/infer.py.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser  # noqa: E402
from projects.line.runtime import command  # noqa: E402

EXAMPLE = """example:
  python tools/infer_shards.py FOLDER archive --out found --shards 64 --profile configs/study/slurm

exit status: 0 one table of all shards, 1 a shard failed: start again, nothing is repeated; 2 wrong use,
3 none of the radiographs could be read"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    parser = ToolParser(__doc__, EXAMPLE, allow_abbrev=False)
    parser.add_argument('folder', metavar='FOLDER', help='exported folder')
    parser.add_argument('images', metavar='IMAGES', help='folder of radiographs')
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='folder for the table and the shards'
    )
    parser.add_argument(
        '--shards', type=int, required=True, metavar='N', help='number of shards, split by file names'
    )
    parser.add_argument(
        '--jobs', type=int, metavar='N', help='shards at the same time (1 here, 50 on a cluster)'
    )
    parser.add_argument(
        '--profile', metavar='DIR', help='profile of Snakemake, such as configs/study/kubernetes'
    )
    parser.add_argument(
        '--minutes', type=int, default=24 * 60, metavar='N', help='time limit of a shard on a cluster (1440)'
    )
    parser.add_argument('--dry-run', action='store_true', help='show the jobs')
    parser.add_version()
    args, options = parser.parse_known_args(argv)
    for name, most in (('shards', 10_000), ('minutes', 10**6), ('jobs', 10_000)):
        value = getattr(args, name)
        if value is not None:
            parser.check_range(name, value, 1, most)
    for path in (args.folder, args.images):
        if not Path(path).is_dir():
            parser.error(f'{path}: no such folder, expected FOLDER of tools/export.py and IMAGES')
    if {'--watch', '--shard'} & set(options):
        parser.error('--watch, --shard: of tools/infer.py alone')
    options = [args.folder, args.images, *options]
    # Reports wrong options of tools/infer.py before a shard starts.
    command.parse_args([*options, '--out', str(args.out), '--shard', f'1/{args.shards}'], True)
    from projects.study.shards import inspect_shards

    code = inspect_shards(
        options,
        args.out,
        args.shards,
        args.minutes,
        args.jobs,
        args.profile,
        ['--dry-run'] if args.dry_run else [],
    )
    if code:
        reason = (
            'none of the radiographs could be read; see quarantine.csv'
            if code == 3
            else 'not all shards were inspected and merged, as said above; start again, nothing is repeated'
        )
        print(f'error: {args.out}: {reason}', file=sys.stderr)
    return code if code in (0, 3) else 1


if __name__ == '__main__':
    sys.exit(main())
