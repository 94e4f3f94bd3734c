"""Print the results of tested runs as one table per task, and keep them as JSON and Markdown.

Example:
    python tools/report.py work_dirs/faster-rcnn_* --out work_dirs/report
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from projects.xray.report.results import (  # noqa: E402
    ResultsError,
    format_table,
    load_results,
    provenance,
    tables,
)


def parse_args(argv):
    """Read the command line; exits 2 on wrong use."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog='example: python tools/report.py work_dirs/faster-rcnn_* --out work_dirs/report',
    )
    parser.add_argument('runs', nargs='+', metavar='RUN', help='work dir of a run that test.py tested')
    parser.add_argument('--out', type=Path, help='folder for report.json and results.md')
    return parser.parse_args(argv)


def main(argv=None):
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    results, refused = load_results([Path(run) for run in args.runs])
    for reason in refused:
        print(f'left out: {reason}', file=sys.stderr)
    if not results:
        print('report: no tested run among the folders given; run tools/test.py first', file=sys.stderr)
        return 1
    try:
        parts = tables(results)
    except ResultsError as error:
        print(f'report: {error}', file=sys.stderr)
        return 1
    for title, header, rows in parts:
        print(f'\n{title}\n{format_table(header, rows)}')
    print(f'\n{provenance(results)}')
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / 'report.json').write_text(json.dumps(results, indent=1) + '\n')
        text = '\n\n'.join(f'**{t}**\n\n{format_table(h, r, markdown=True)}' for t, h, r in parts)
        (args.out / 'results.md').write_text(f'{text}\n\n{provenance(results)}\n')
        print(f'\nwritten: {args.out}/report.json, {args.out}/results.md')
    return 1 if refused else 0


if __name__ == '__main__':
    sys.exit(main())
