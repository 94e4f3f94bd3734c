"""Convert labels between COCO JSON and Parquet without loss, for sets of more than 100,000 images.

Configs accept both as `ann_file`. A Parquet file has no size limit, and memory does not grow with its size.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser, exit_code  # noqa: E402
from projects.prepare.parquet import convert_labels, note_of_size  # noqa: E402

EXAMPLE = """examples:
  python tools/convert_labels.py data/industrial/train.json data/industrial/train.parquet
  python tools/convert_labels.py data/industrial/train.parquet for_cvat.json"""


def main(argv: list[str] | None = None) -> int:
    """Convert; returns 0 done, 2 wrong use."""
    parser = ToolParser(__doc__, EXAMPLE)
    parser.add_argument('source', type=Path, metavar='IN', help='file to read, .json or .parquet')
    parser.add_argument('out', type=Path, metavar='OUT', help='file to write, .parquet or .json')
    args = parser.parse_args(argv)
    return exit_code(lambda: convert(args), args.out)


def convert(args: argparse.Namespace) -> None:
    """Convert the file of labels, and print its numbers of images and boxes."""
    counts = convert_labels(args.source, args.out)
    print(
        f'{args.out}: {counts["images"]} images, {counts["boxes"]} boxes, '
        f'of which {counts["crowd"]} are crowd or ignored'
    )
    if args.out.suffix.lower() == '.json' and (note := note_of_size(args.out)):
        print(note)


if __name__ == '__main__':
    sys.exit(main())
