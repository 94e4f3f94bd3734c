"""Check the installation, and the data, classes and weights of configs, before a training starts.

Example:
    python tools/doctor.py
    python tools/doctor.py configs/faster_rcnn/faster-rcnn_r50-simsiam-pre_fpn_4xb4-2x_industrial.py
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser  # noqa: E402  (these modules import the standard library alone)
from projects.prepare.installation import Row, check_environment, format_rows  # noqa: E402
from projects.prepare.preflight import check_config  # noqa: E402


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; exits 2 on wrong use."""
    parser = ToolParser(
        description=__doc__.splitlines()[0],
        epilog='example: python tools/doctor.py configs/small/*_synthetic.py',
    )
    parser.add_argument('configs', nargs='*', type=Path, metavar='CONFIG', help='config file to check')
    parser.add_argument(
        '--cfg-options', nargs='+', metavar='K=V', help='override config values, as the training will'
    )
    args = parser.parse_args(argv)
    for config in args.configs:
        if not config.is_file():
            parser.error(f'{config}: no such config file; the experiments are in configs/*/*.py')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns 0 if all checks passed and 1 if one failed."""
    args = parse_args(argv)
    tables = {'environment': check_environment()}
    for config in args.configs:
        tables[str(config)] = check_config(config, args.cfg_options)
    for title, rows in tables.items():
        cost = None if title == 'environment' else cost_here(title, rows, args.cfg_options)
        print(f'{title}\n{format_rows(rows)}\n' + (f'  {cost}\n' if cost else ''))
    rows = [row for rows in tables.values() for row in rows]
    failed = sum(bool(row.remedy) for row in rows)
    print(f'{failed} of {len(rows)} checks failed' if failed else f'all {len(rows)} checks passed')
    return 1 if failed else 0


def cost_here(config: str, rows: Sequence[Row], options: Sequence[str] | None) -> str | None:
    """Return the cost of a recipe on this CPU; None with a GPU, or if the config cannot be read."""
    if any(row.name == 'config' for row in rows):
        return None
    import torch

    from projects.experiment.reckoning import cost_on_cpu
    from projects.runs.running import read_experiment

    if torch.cuda.is_available():
        return None
    cost = cost_on_cpu(read_experiment(config, options))
    return (
        cost and f'cost      {cost}; for less: python tools/new_experiment.py DATA --severity F --scale cpu'
    )


if __name__ == '__main__':
    sys.exit(main())
