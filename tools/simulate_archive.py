"""Compute hours and cost of a pretraining on an archive of millions of radiographs, from measured rates.

Example:
    python tools/simulate_archive.py --decode 150 --cores 16 --step 900 --devices 1 --device-hour 2.5

`tools/benchmark.py loader` measures --decode (images/s of one process, packed). `tools/benchmark.py train`
measures --step on the accelerator. --latency and --bandwidth describe the object store.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser, positive  # noqa: E402
from projects.benchmark.simulation import Rates, table  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; wrong use ends the program with status 2."""
    head, example = __doc__.split('\n\n', 1)
    parser = ToolParser(head, example)
    add = parser.add_argument
    add('--decode', type=rate, required=True, metavar='R', help='images/s that one core loads')
    add('--step', type=rate, required=True, metavar='R', help='images/s that one accelerator trains')
    add('--cores', type=positive, default=16, metavar='N', help='loading cores, over all nodes (16)')
    add('--devices', type=positive, default=1, metavar='N', help='accelerators, over all nodes (1)')
    add('--nodes', type=positive, default=1, metavar='N', help='nodes (1)')
    add('--latency', type=rate, default=50, metavar='MS', help='latency of a request in ms (50)')
    add('--bandwidth', type=rate, default=300, metavar='MB', help='MB/s of one node (300)')
    add('--readers', type=positive, default=8, metavar='N', help='processes of a node that fetch blocks (8)')
    add('--image', type=rate, default=262.144, metavar='KB', help='kB of a packed image (262.144)')
    add('--files', action='store_true', help='one object per image instead of blocks of 16 MiB')
    add('--kept', action='store_true', help='local disks keep the archive after the first epoch')
    add('--epochs', type=positive, default=100, metavar='N', help='epochs (100)')
    add('--device-hour', type=price, default=0, metavar='P', help='price of an accelerator for an hour (0)')
    add('--requests', type=price, default=0.0004, metavar='P', help='price of 1,000 requests (0.0004)')
    add(
        '--images',
        type=positive,
        nargs='+',
        default=[10**6, 10**8],
        metavar='N',
        help='sizes of archives (1000000 100000000)',
    )
    return parser.parse_args(argv)


def rate(text: str) -> float:
    """Read a finite number above 0."""
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f'{text}: expected a number above 0')
    return value


def price(text: str) -> float:
    """Read a finite number that is not below 0."""
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f'{text}: expected a number of at least 0')
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    image = max(round(args.image * 1000), 1)
    blocks = dict(block_bytes=image) if args.files else {}
    rates = Rates(
        decode=args.decode,
        cores=args.cores,
        step=args.step,
        devices=args.devices,
        latency_s=args.latency / 1000,
        bandwidth=args.bandwidth * 1e6,
        nodes=args.nodes,
        readers=args.readers,
        image_bytes=image,
        device_hour=args.device_hour,
        requests_price=args.requests,
        **blocks,
    )
    print(f'{args.epochs} epochs, {args.nodes} nodes, {args.cores} cores, {args.devices} accelerators')
    print(table(rates, args.images, args.epochs, args.kept))
    return 0


if __name__ == '__main__':
    sys.exit(main())
