"""Write the labels of a converted data set as one COCO file, for CVAT, Label Studio and other tools.

In CVAT, choose Upload annotations, COCO 1.0, in a task with the images of DATA/images. For Label Studio,
write the file with --label-studio and convert it to tasks with `label-studio-converter import coco`. Convert
the corrected labels with `convert_dataset.py coco`.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser, exit_code  # noqa: E402
from projects.prepare.export import export_labels  # noqa: E402

EXAMPLE = 'example:\n  python tools/export_labels.py data/industrial instances_default.json'


def main(argv: list[str] | None = None) -> int:
    """Export; returns 0 done, 2 wrong use."""
    parser = ToolParser(__doc__, EXAMPLE)
    parser.add_argument('data', type=Path, metavar='DATA', help='OUT of tools/convert_dataset.py')
    parser.add_argument('out', type=Path, metavar='OUT', help='file to write')
    parser.add_argument(
        '--label-studio',
        action='store_true',
        help='masks as polygons, and no box for a polygon, since the importer reads nothing else',
    )
    args = parser.parse_args(argv)
    return exit_code(lambda: export(args), args.out)


def export(args: argparse.Namespace) -> None:
    """Write the file of labels, and print its numbers of images and boxes."""
    counts = export_labels(args.data, args.out, args.label_studio)
    print(
        f'{args.out}: {counts["images"]} images, {counts["boxes"]} boxes, of which {counts["outlined"]} have '
        f'a polygon or mask and {counts["crowd"]} are crowd or difficult'
    )
    if args.label_studio and counts['crowd']:
        print(f'note: Label Studio knows no crowd: {counts["crowd"]} boxes arrive as plain ones')


if __name__ == '__main__':
    sys.exit(main())
