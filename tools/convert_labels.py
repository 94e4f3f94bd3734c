"""Convert labels from COCO JSON to Parquet, or back, without loss: for sets of more than 100,000 images.

Configs name either as `ann_file`. Parquet has no limit of size, and memory does not grow with it.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects import __version__  # noqa: E402
from projects.errors import MMXrayError  # noqa: E402
from projects.prepare.parquet import convert_labels, note_of_size  # noqa: E402

EXAMPLE = """examples:
  python tools/convert_labels.py data/industrial/train.json data/industrial/train.parquet
  python tools/convert_labels.py data/industrial/train.parquet for_cvat.json"""


def main(argv: list[str] | None = None) -> int:
    """Convert; returns 0 done, 2 wrong use."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, metavar='IN', help='file to read, .json or .parquet')
    parser.add_argument('out', type=Path, metavar='OUT', help='file to write, .parquet or .json')
    parser.add_argument('--version', action='version', version=f'mmxray {__version__}')
    args = parser.parse_args(argv)
    try:
        counts = convert_labels(args.source, args.out)
    except MMXrayError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f'{args.out}: expected a file that can be written ({error.strerror})', file=sys.stderr)
        return 2
    print(
        f'{args.out}: {counts["images"]} images, {counts["boxes"]} boxes, '
        f'of which {counts["crowd"]} are crowd or ignored'
    )
    if args.out.suffix.lower() == '.json' and (note := note_of_size(args.out)):
        print(note)
    return 0


if __name__ == '__main__':
    sys.exit(main())
