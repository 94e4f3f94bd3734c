"""Pack a folder of radiographs into a memory-mapped store: decoded, windowed and shrunk once.

Example:
    python tools/pack_images.py data/industrial/unlabeled data/industrial/packed --size 512

Then `data_prefix=dict(img_path='packed')` in the dataset and `size=512` in its LoadXray read the store.
512 px suffice for views of 224 px and for SimMIM's 384 px; views of 448 px need 1024, or they are magnified.
SRC and OUT may be URLs, such as s3://castings/packed: a training reads such a store in blocks. After a kill,
the same command continues. It refuses a store whose source images have changed (by file size and time) or
disappeared. --verify compares every image with its checksum, and every source file with the packed one.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser  # noqa: E402
from projects.radiograph import pack as packing  # noqa: E402
from projects.radiograph.image import ImagingError  # noqa: E402
from projects.radiograph.pack_remote import pack_to_url  # noqa: E402
from projects.radiograph.parts import of_several_folders  # noqa: E402
from projects.radiograph.recipe import Recipe  # noqa: E402
from projects.radiograph.remote import is_url, sizes  # noqa: E402
from projects.radiograph.store import open_store  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; wrong values end the program with status 2."""
    head, example = __doc__.split('\n\n', 1)
    parser = ToolParser(head, example)
    parser.add_argument('source', metavar='SRC', help='folder of radiographs, recursive, or its URL')
    parser.add_argument('out', metavar='OUT', help='the store: a new folder or URL, or an unfinished store')
    parser.add_argument(
        '--size',
        type=int,
        default=512,
        metavar='PX',
        help='shorter side after shrinking; 0 keeps the size (512)',
    )
    parser.add_argument('--bits', type=int, default=8, choices=(8, 16), help='depth of the pixels (8)')
    parser.add_argument(
        '--window',
        nargs='+',
        default=['type=full'],
        metavar='K=V',
        help="LoadXray's window, e.g. type=absolute low=0 high=4095 (type=full)",
    )
    parser.add_argument(
        '--group', metavar='REGEX', help='its first group in the path is the part; default: no part'
    )
    parser.add_argument(
        '--workers', type=int, default=len(os.sched_getaffinity(0)), metavar='N', help='processes (all cores)'
    )
    parser.add_argument('--verify', action='store_true', help='check an existing store instead of packing')
    args = parser.parse_args(argv)
    if args.size < 0 or args.workers < 1:
        parser.error(f'--size {args.size} --workers {args.workers}: expected at least 0 and 1')
    try:
        window = {
            key: yaml.safe_load(value) for key, _, value in (item.partition('=') for item in args.window)
        }
        args.recipe = Recipe(args.size, args.bits, window)
    except (ImagingError, yaml.YAMLError) as error:
        parser.error(f'--window {" ".join(args.window)}: {" ".join(str(error).split())}')
    try:
        re.compile(args.group or '')
    except re.error as error:
        parser.error(f'--group {args.group}: {error}')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    try:
        return (verify if args.verify else pack)(args)
    except ImagingError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1


def progress(results: Iterable, total: int) -> Iterator:
    """Show a bar on a terminal."""
    return tqdm(results, total=total, unit='image', disable=None)


def pack(args: argparse.Namespace) -> int:
    """Write the store; unreadable files are listed and make the exit code 1."""
    arguments = args.source, args.out, args.recipe, args.group, args.workers, progress
    store, left_out = (pack_to_url if is_url(args.out) else packing.pack)(*arguments)
    size = sum(sizes(args.out).values()) if is_url(args.out) else folder_size(args.out)
    print(f'{args.out}: {len(store)} images, {size / 1e6:,.0f} MB, {len(left_out)} files left out')
    shared = args.group and of_several_folders({store.name(k): store.part(k) for k in range(len(store))})
    if shared:
        print(f'note: {shared}')
    for reason in left_out.values():
        print(f'left out: {reason}', file=sys.stderr)
    return 1 if left_out else 0


def folder_size(folder: str) -> int:
    """Bytes of a local store."""
    return sum(path.stat().st_size for path in Path(folder).iterdir())


def verify(args: argparse.Namespace) -> int:
    """Check the store; each fault is printed and makes the exit code 1."""
    store = open_store(args.out)
    source = args.source if is_url(args.source) or Path(args.source).is_dir() else None
    faults = packing.verify(store, source, args.workers, progress)
    for fault in faults:
        print(fault, file=sys.stderr)
    compared = 'source files compared' if source else f'{args.source} is not here: source files not compared'
    print(f'{args.out}: {len(store)} images, {len(faults)} faults; {compared}')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
