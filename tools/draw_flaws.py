"""Draw flaws of known size and contrast into your own radiographs, as a test set for the POD.

Example:
    python tools/draw_flaws.py data/industrial/sound data/virtual --pitch 0.15

writes data/virtual/images/*.png and data/virtual/test.json (COCO; box, mask, type, contrast and
detectability of every flaw). Use sound radiographs: a real flaw without a box would count as a false call.
Then test a detector on this set; the report shows its POD by size and by contrast:

    python tools/test.py CONFIG CHECKPOINT --work-dir work_dirs/virtual --cfg-options \
test_dataloader.dataset.data_root=data/virtual test_dataloader.dataset.ann_file=test.json \
test_dataloader.dataset.data_prefix.img=images test_evaluator.ann_file=data/virtual/test.json
    python tools/report.py work_dirs/virtual --out work_dirs/virtual/report

The same arguments draw the same flaws. --class defect gives all types one class, for detectors with a single
class.
"""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import yaml
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser  # noqa: E402
from projects.radiograph.image import ImagingError  # noqa: E402
from projects.radiograph.listing import list_radiographs  # noqa: E402
from projects.radiograph.window import check_window  # noqa: E402
from projects.synthetic.drawn import Recipe  # noqa: E402
from projects.synthetic.virtual import draw_virtual  # noqa: E402
from projects.xray.classes import CASTINGS  # noqa: E402

MOST = 1000  # flaws per image; many times what finds room in one


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; wrong values end the program with status 2."""
    head, example = __doc__.split('\n\n', 1)
    parser = ToolParser(head, example)
    parser.add_argument('source', type=Path, metavar='SRC', help='folder of sound radiographs, recursive')
    parser.add_argument('out', type=Path, metavar='OUT', help='new folder')
    parser.add_argument(
        '--list', type=Path, metavar='FILE', help='images below SRC, one a line; default: all'
    )
    pair = dict(nargs=2, metavar=('LOW', 'HIGH'))
    parser.add_argument('--number', type=int, default=(2, 5), help='flaws per image (2 5)', **pair)
    parser.add_argument(
        '--pitch', type=float, nargs='+', default=[0.1, 0.4], metavar='MM', help='mm per px, or a range'
    )
    parser.add_argument(
        '--contrast',
        type=float,
        default=(0.005, 0.5),
        help='share of additional transmitted radiation at the peak of a flaw (0.005 0.5)',
        **pair,
    )
    parser.add_argument('--types', nargs='+', metavar='TYPE', default=list(CASTINGS), help='default: all 19')
    parser.add_argument('--air', type=float, metavar='LEVEL', help='gray levels from this one on are air')
    parser.add_argument('--film', action='store_true', help='less metal is darker, as on film')
    parser.add_argument('--class', dest='label', metavar='NAME', help='one class for all types')
    parser.add_argument(
        '--group', metavar='REGEX', help='its match in the path, or its first group, is the part'
    )
    parser.add_argument(
        '--window', nargs='+', default=['type=full'], metavar='K=V', help="LoadXray's window (type=full)"
    )
    parser.add_argument('--seed', type=int, default=0, help='another seed draws other flaws (0)')
    args = parser.parse_args(argv)
    pitch = args.pitch * 2 if len(args.pitch) == 1 else args.pitch
    for name, values in (('pitch', pitch), ('contrast', args.contrast)):
        if len(values) != 2 or not 0 < values[0] <= values[1] < math.inf:
            parser.error(f'--{name} {" ".join(map(str, values))}: expected 0 < LOW <= HIGH')
    if args.air is not None and not math.isfinite(args.air):
        parser.error(f'--air {args.air}: expected a gray level')
    if args.label == '':
        parser.error('--class: expected the name of a class, not nothing')
    if not 0 <= args.number[0] <= args.number[1] <= MOST or args.seed < 0:
        parser.error(
            f'--number {" ".join(map(str, args.number))} --seed {args.seed}: expected 0 <= LOW <= HIGH <= '
            f'{MOST} and a seed above -1'
        )
    unknown = sorted(set(args.types) - set(CASTINGS))
    if unknown:
        parser.error(f'--types {unknown[0]}: expected some of {", ".join(CASTINGS)}')
    try:
        re.compile(args.group or '')
        args.window = {k: yaml.safe_load(v) for k, _, v in (item.partition('=') for item in args.window)}
        check_window(args.window)
    except (re.error, ImagingError, yaml.YAMLError) as error:
        parser.error(f'--group or --window: {" ".join(str(error).split())}')
    # Flaws that the eye or a detector may miss are drawn too, so visibility has no lower limit.
    args.recipe = Recipe(
        number=tuple(args.number),
        pitch=tuple(pitch),
        contrast=tuple(args.contrast),
        opacity=(3.0, 6.0),
        detectability=0.0,
        visible=0.0,
        weights=dict.fromkeys(args.types, 1.0),
        air=args.air,
    )
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    args = parse_args(argv)
    problem = _problem(args)
    if problem:
        print(f'error: {problem}', file=sys.stderr)
        return 2
    try:
        names = _names(args)
        if not names:
            print(f'error: {args.list or args.source}: no radiograph; expected one at least', file=sys.stderr)
            return 2
        coco = draw_virtual(
            args.source,
            names,
            args.out,
            args.recipe,
            args.seed,
            args.window,
            args.film,
            args.label,
            args.group,
            partial(tqdm, unit='image', disable=None),
        )
    except ImagingError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except UnicodeDecodeError:
        print(f'error: {args.list}: expected text in UTF-8; write the list anew', file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f'error: {error.filename or args.out}: {error.strerror}; correct the path or free the disk',
            file=sys.stderr,
        )
        return 1
    print(f'{args.out}: {len(coco["annotations"])} flaws in {len(names)} images')
    return 0


def _problem(args: argparse.Namespace) -> str | None:
    """Return an error about the arguments, or None."""
    if not args.source.is_dir():
        return f'{args.source}: expected a folder of radiographs; correct SRC'
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        return f'{args.out}: expected a new or empty folder; name another OUT'
    if args.out.resolve().is_relative_to(args.source.resolve()):
        return f'{args.out}: lies in SRC and would be read again; name another OUT'
    return None


def _names(args: argparse.Namespace) -> list[str]:
    if args.list is None:
        return list_radiographs(args.source)[0]
    return [line.strip() for line in args.list.read_text('utf-8').splitlines() if line.strip()]


if __name__ == '__main__':
    sys.exit(main())
