"""Compare tested runs: print tables; with --out also write an HTML page, report.json and CSV tables.

Examples:
    python tools/report.py work_dirs/faster-rcnn_* --out work_dirs/report
    python tools/report.py --exported work_dirs/export/NAME --out work_dirs/report
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from projects.arguments import ToolParser  # noqa: E402
from projects.report.results import format_table, provenance, tables  # noqa: E402


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; exits 2 on wrong use."""
    parser = ToolParser(
        description=__doc__.splitlines()[0],
        epilog='example: python tools/report.py work_dirs/faster-rcnn_* --out work_dirs/report',
    )
    parser.add_argument('runs', nargs='*', metavar='RUN', help='work dir of a run tested by test.py')
    parser.add_argument(
        '--exported',
        action='append',
        type=Path,
        default=[],
        metavar='FOLDER',
        help='exported folder tested by test.py (FOLDER DATA), judged at its own threshold',
    )
    parser.add_argument(
        '--out', type=Path, help='folder for index.html, pictures/, results.md, report.json and CSV tables'
    )
    parser.add_argument(
        '--max-escape', type=float, default=0.05, metavar='P', help='critical escape rate to prove (0.05)'
    )
    parser.add_argument('--reject-minor', action='store_true', help='minor defects also reject a part')
    parser.add_argument('--pixel-pitch', type=float, metavar='MM', help='mm per px at the part: POD in mm')
    parser.add_argument(
        '--gallery',
        type=int,
        default=500,
        metavar='N',
        help='largest number of pictures in the page (500), further escapes go beside it; 0: no pictures',
    )
    parser.add_argument(
        '--latency', type=Path, metavar='F', help='output of `tools/benchmark.py infer`, shown in the page'
    )
    args = parser.parse_args(argv)
    if not args.runs and not args.exported:
        parser.error('expected a RUN, or an exported folder by --exported')
    if args.latency and not args.latency.is_file():
        parser.error(f'--latency {args.latency}: no such file; write it with tools/benchmark.py infer > FILE')
    if not 0 < args.max_escape < 1:
        parser.error(f'--max-escape {args.max_escape}: expected a rate between 0 and 1')
    if args.pixel_pitch is not None and not args.pixel_pitch > 0:
        parser.error(f'--pixel-pitch {args.pixel_pitch}: expected mm above zero')
    if args.gallery < 0:
        parser.error(f'--gallery {args.gallery}: expected zero or more')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    # Statistics and charts take a second to import.
    from projects.report.runs import read_runs

    exported, refused = read_exported(args.exported)
    runs, left_out = read_runs([Path(run) for run in args.runs], exported)
    refused += left_out
    for reason in refused:
        print(f'left out: {reason}', file=sys.stderr)
    if not runs:
        print('report: no tested run among the folders given; run tools/test.py first', file=sys.stderr)
        return 1
    names = [run.name for run in runs]
    results = [
        {**run.result, 'run': name if names.count(name) == 1 else str(run.folder)}
        for name, run in zip(names, runs, strict=True)
    ]
    parts = tables(results)
    for title, header, rows in parts:
        print(f'\n{title}\n{format_table(header, rows)}')
    print(f'\n{provenance(results)}')
    if args.out or exported:
        from projects.report.compare import gather
        from projects.report.measured import Settings

        settings = Settings(args.max_escape, args.reject_minor, args.pixel_pitch)
        groups = gather(runs, settings)
    for name, sentence in judge_exported(groups) if exported else ():
        print(f'\n{name}: {sentence}')
    if args.out:
        from projects.radiograph.files import write_whole
        from projects.report.page import write_report

        command = shlex.join(['python', 'tools/report.py', *(sys.argv[1:] if argv is None else argv)])
        latency = args.latency.read_text() if args.latency else ''
        summary = write_report(
            args.out, runs, refused, settings, args.gallery, command, latency, groups=groups
        )
        text = '\n\n'.join(f'**{t}**\n\n{format_table(h, r, markdown=True)}' for t, h, r in parts)
        write_whole(args.out / 'results.md', f'{text}\n\n{provenance(results)}\n')
        print('\n' + '\n'.join(summary['verdict']))
        print(f'\nwritten: {args.out}/index.html, report.json, results.md and CSV tables')
        if beside := summary['pictures']['beside']:
            print(f'{args.out}/pictures/: {beside} more escapes; keep it beside index.html')
    return 1 if refused else 0


def read_exported(folders: Sequence[Path]) -> tuple[list[tuple], list[str]]:
    """Read tested exported folders; returns (test folder, facts of the export) of each, and refusals."""
    from projects.line.runtime import FolderError, folder
    from projects.report.runs import LineFolder

    found, refused = [], []
    for path in folders:
        test = folder.tested_beside(path)
        try:
            facts = folder.read(path)
            engine = json.loads((test / 'test.json').read_text())['exported']['engine']
            files = facts.files_of(engine)
        except FolderError as error:
            refused.append(str(error))
            continue
        except (OSError, ValueError, KeyError, TypeError):
            refused.append(f'{path}: not tested; run tools/test.py {path} DATA (its annotation file)')
            continue
        line = LineFolder(
            name=path.resolve().name,
            engine=engine,
            precision=facts.precision,
            threshold=facts.threshold,
            threshold_reason=facts.threshold_reason,
            rejects_minor=len(facts.rejecting) > 1,
            cost_in_words=facts.cost_in_words(),
            origin=facts.origin,
            files=files,
            digest=folder.digest_of(facts),
        )
        found.append((test, line))
    return found, refused


def judge_exported(groups: Sequence) -> Iterator[tuple[str, str]]:
    """Yield the name of each exported folder and a sentence about the proof of its test."""
    from projects.report.proof import statement_of

    for group in groups:
        for arm in group.arms:
            for one in arm.members:
                if one.run.exported:
                    yield one.run.name, statement_of(one)


if __name__ == '__main__':
    sys.exit(main())
