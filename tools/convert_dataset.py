"""Convert a labelled radiograph set to the COCO layout that the configs read."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.xray import gdxray  # noqa: E402
from projects.xray.converters import ConvertError, UsageError  # noqa: E402

EXAMPLE = """example:
  python tools/convert_dataset.py gdxray GDXray/Castings data/gdxray \\
      --train-list castings_train.txt --test-list castings_test.txt"""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    formats = parser.add_subparsers(dest='format', required=True, metavar='FORMAT')
    gdx = formats.add_parser(
        'gdxray',
        help='GDXray castings, protocol B and, with both lists, protocol A',
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    gdx.add_argument('src', type=Path, metavar='SRC', help='folder with C0001, C0002, … or the one above it')
    gdx.add_argument('out', type=Path, metavar='OUT', help='folder to write, such as data/gdxray')
    gdx.add_argument('--train-list', type=Path, metavar='F', help="protocol A's train images, one a line")
    gdx.add_argument('--test-list', type=Path, metavar='F', help="protocol A's test images, one a line")
    gdx.add_argument(
        '--drop-series', nargs='+', default=[], metavar='S', help='series to leave out, such as C0055'
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Convert; returns 0 done, 1 bad data, 2 wrong use."""
    args = parse_args(argv)
    try:
        ledgers = gdxray.convert(args.src, args.out, args.train_list, args.test_list, tuple(args.drop_series))
    except ConvertError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        print(
            f'{error.filename}: expected a readable source and a writable OUT ({error.strerror})',
            file=sys.stderr,
        )
        return 2
    for ledger in ledgers:
        print(ledger)
    return 0


if __name__ == '__main__':
    sys.exit(main())
