"""Run all runs of a study file in parallel, on this machine or on a cluster.

Examples:
    python tools/study.py configs/study/synthetic.yaml --dry-run
    python tools/study.py configs/study/synthetic.yaml
    python tools/study.py configs/study/paper.yaml --profile configs/study/slurm
    python tools/study.py configs/study/*.yaml --readme
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; unknown options go to Snakemake."""
    parser = ToolParser(
        description=__doc__,
        epilog='Further options go to Snakemake: --until STEP does one step and what it needs, -n lists the '
        'steps. A failed run is marked, and the other runs continue.',
    )
    parser.add_argument(
        'studies', nargs='+', metavar='STUDY', help='study file, such as configs/study/NAME.yaml'
    )
    parser.add_argument('--dry-run', action='store_true', help='list the runs with their estimated time')
    parser.add_argument(
        '--jobs', type=int, help='runs at the same time; default: number of GPUs, or of cores without a GPU'
    )
    parser.add_argument('--profile', help='profile of Snakemake, such as configs/study/slurm')
    parser.add_argument(
        '--readme',
        nargs='?',
        const='docs/results.md',
        metavar='F',
        help='run nothing; write the recorded results between the marks of F (docs/results.md)',
    )
    # Options with which Snakemake calls this tool: one step, and the number of GPUs planned for it.
    parser.add_argument('--job', help=argparse.SUPPRESS)
    parser.add_argument('--gpus', type=int, help=argparse.SUPPRESS)
    parser.add_version()
    args, args.further = parser.parse_known_args(argv)
    if args.further and (args.dry_run or args.readme or args.job):
        parser.error(f'unknown option {args.further[0]}')
    if args.gpus is not None and not args.job:
        parser.error('unknown option --gpus; write gpus: into the study')
    if len(args.studies) > 1 and not args.readme:
        parser.error('one study at a time; several only with --readme')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    # PyTorch takes seconds to import; --help and wrong use do not need it.
    from projects.study import launch, listing, results, schedule, step
    from projects.study.devices import devices, gpus_here
    from projects.study.plan import StudyError, read_study

    try:
        if args.readme:
            return results.write_readme(Path(args.readme), [Path(file) for file in args.studies])
        study = read_study(args.studies[0])
        if args.job:
            if args.gpus is not None:
                schedule.fit_gpus(study, args.gpus)
            return step.do(study, study.job(args.job))
        # A cluster's scheduler checks the requested GPUs itself.
        fitted = None if args.profile else schedule.fit_gpus(study, len(gpus_here()))
        if fitted:
            print(fitted)
        if args.dry_run:
            listing.show(study, args.jobs or len(devices()))
            return 0
        return launch.run(study, args.jobs, args.profile, args.further)
    except (StudyError, results.RecordError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
