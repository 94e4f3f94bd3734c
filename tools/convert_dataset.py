"""Convert a labelled radiograph set to the COCO layout that the configs read."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser  # noqa: E402
from projects.prepare import gdxray, welds  # noqa: E402
from projects.prepare.convert import convert  # noqa: E402
from projects.prepare.ledger import ConvertError, UsageError  # noqa: E402

EXAMPLE = """example:
  python tools/convert_dataset.py gdxray GDXray/Castings data/gdxray \\
      --train-list castings_train.txt --test-list castings_test.txt
  python tools/convert_dataset.py labelme inspected data/industrial \\
      --severity severity.yaml --group '(P[0-9]+)_view'"""

FORMATS = {
    'voc': 'Pascal VOC: one XML file per image',
    'yolo': 'YOLO: labels/*.txt beside images/, and data.yaml or classes.txt',
    'labelme': 'labelme: one JSON file per image',
    'coco': 'COCO JSON with its images',
}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = ToolParser(__doc__, EXAMPLE)
    formats = parser.add_subparsers(dest='format', required=True, metavar='FORMAT')

    def add(name: str, text: str, src: str) -> argparse.ArgumentParser:
        sub = formats.add_parser(name, help=text, description=text, epilog=EXAMPLE)
        sub.add_argument('src', type=Path, metavar='SRC', help=src)
        sub.add_argument('out', type=Path, metavar='OUT', help='folder to write, such as data/industrial')
        return sub

    gdx = add(
        'gdxray',
        'GDXray castings: protocol B and, with both lists, protocol A',
        'folder with C0001, C0002, … or its parent folder',
    )
    gdx.add_argument('--train-list', type=Path, metavar='F', help="protocol A's train images, one a line")
    gdx.add_argument('--test-list', type=Path, metavar='F', help="protocol A's test images, one a line")
    gdx.add_argument(
        '--drop-series', nargs='+', default=[], metavar='S', help='series to leave out, such as C0055'
    )
    films = add(
        'gdxray-welds',
        'GDXray welds: tiles of ten annotated films with masks, folds by film, other films as archive',
        'folder with W0001, W0002, … or its parent folder',
    )
    films.add_argument('--tile', type=int, default=welds.TILE, metavar='N', help='side of a tile, px (1024)')
    films.add_argument('--overlap', type=int, default=0, metavar='N', help='px that tiles share (default 0)')
    films.add_argument(
        '--folds', type=int, default=welds.FOLDS, metavar='N', help='groups of films (3); 10: each film alone'
    )
    for name, text in FORMATS.items():
        sub = add(name, text, 'folder with images and annotations')
        sub.add_argument(
            '--severity', type=Path, metavar='F', help='YAML lines `type: critical` or `type: minor`'
        )
        sub.add_argument(
            '--group',
            metavar='REGEX',
            help="searched in each image's path: the match, or its first group, names the part, which stays "
            'in one split. Without it parts are not known, and no escape rate can be proven',
        )
        sub.add_argument('--tile', type=int, metavar='N', help='cut annotated images into squares of N px')
        sub.add_argument(
            '--overlap', type=int, default=0, metavar='N', help='px that tiles share (default 0)'
        )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Convert; returns 0 done, 1 bad data, 2 wrong use."""
    args = parse_args(argv)
    try:
        if args.format == 'gdxray':
            lists = args.train_list, args.test_list
            ledgers = gdxray.convert(args.src, args.out, *lists, tuple(args.drop_series))
        elif args.format == 'gdxray-welds':
            ledgers = welds.convert(args.src, args.out, args.tile, args.overlap, args.folds)
        else:
            options = args.severity, args.group, args.tile, args.overlap
            ledgers = [convert(args.format, args.src, args.out, *options)]
    except ConvertError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        place = error.filename or args.out
        print(f'{place}: expected a readable source and a writable OUT ({error.strerror})', file=sys.stderr)
        return 2
    for ledger in ledgers:
        print(ledger)
    if args.format in FORMATS:
        put_aside = (args.out / 'quarantine.txt').read_text(encoding='utf-8').splitlines()
        for line in put_aside[:10]:
            print(f'quarantine: {line}', file=sys.stderr)
        if len(put_aside) > 10:
            print(f'quarantine: {len(put_aside) - 10} more in {args.out / "quarantine.txt"}', file=sys.stderr)
    return 0


if __name__ == '__main__':
    sys.exit(main())
