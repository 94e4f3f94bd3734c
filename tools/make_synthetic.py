"""Generate radiographs of castings with 19 defect types: images, boxes and masks, split by part.

Example:
    python tools/make_synthetic.py data/synthetic --labeled 400 --unlabeled 800 --size 1024 --bits 16

writes data/synthetic/images/*.png with {train,val,test}.json (COCO; `part` and `view` per image; mask,
`contrast` and `flaw`, the physical defect, per box) and data/synthetic/unlabeled/*.png from other parts. The
same arguments give the same bytes on the same machine, for any --workers. The same command continues an
interrupted run.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser  # noqa: E402
from projects.synthetic import generate  # noqa: E402

BITS = (8, 12, 14, 16)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; wrong values end the program with status 2."""
    head, example = __doc__.split('\n\n', 1)
    parser = ToolParser(head, example)
    parser.add_argument(
        'out', type=Path, metavar='OUT', help='folder to write: new, or of an interrupted run'
    )
    parser.add_argument(
        '--unlabeled', type=int, default=600, metavar='N', help='images without annotation (600)'
    )
    parser.add_argument('--labeled', type=int, default=300, metavar='N', help='annotated images (300)')
    parser.add_argument(
        '--size', type=int, default=1024, metavar='PX', help='side of the square images (1024)'
    )
    parser.add_argument('--bits', type=int, default=16, choices=BITS, help='levels of the digitiser (16)')
    parser.add_argument(
        '--depth',
        type=float,
        default=1.0,
        metavar='F',
        help='factor of the depth of defects; 3 makes all visible (1)',
    )
    parser.add_argument(
        '--extra', type=int, default=0, metavar='N', help='additional defects in each defective part (0)'
    )
    parser.add_argument('--seed', type=int, default=0, help='another seed draws other parts (0)')
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count(), metavar='N', help='processes (all cores)'
    )
    args = parser.parse_args(argv)
    for name, low, high in (
        ('labeled', 0, 10**6),
        ('unlabeled', 0, 10**6),
        ('size', 128, 4096),
        ('depth', 0.1, 10),
        ('extra', 0, 20),
        ('seed', 0, 2**63 - 1),
        ('workers', 1, 1024),
    ):
        parser.check_range(name, getattr(args, name), low, high)
    if args.labeled + args.unlabeled == 0:
        parser.error('nothing to draw: --labeled or --unlabeled must be above 0')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    args = parse_args(argv)
    parameters = {key: getattr(args, key) for key in generate.FLAGS}
    # The images of two versions of the generator must not be mixed in one folder.
    parameters['generator'] = generate.version()
    try:
        problem = generate.claim(args.out, parameters)
        if problem:
            print(f'make_synthetic: {problem}', file=sys.stderr)
            return 2
        generate.generate(args.out, parameters, args.workers)
        return 0
    except OSError as error:
        where = error.filename or args.out
        print(
            f'make_synthetic: {where}: {error.strerror}; free the disk or name another OUT', file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print('make_synthetic: interrupted; the same command continues the run', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
