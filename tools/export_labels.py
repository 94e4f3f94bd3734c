"""Write the labels of a converted data set as one COCO file, for CVAT, Label Studio and other tools.

In CVAT: Upload annotations, COCO 1.0, into a task of the images of DATA/images. For Label Studio, write it
with --label-studio and turn it into tasks with `label-studio-converter import coco`. What comes back is
converted with `convert_dataset.py coco`.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects import __version__  # noqa: E402
from projects.prepare.export import export_labels  # noqa: E402
from projects.prepare.ledger import ConvertError  # noqa: E402

EXAMPLE = 'example:\n  python tools/export_labels.py data/industrial instances_default.json'


def main(argv: list[str] | None = None) -> int:
    """Export; returns 0 done, 2 wrong use."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', type=Path, metavar='DATA', help='OUT of tools/convert_dataset.py')
    parser.add_argument('out', type=Path, metavar='OUT', help='file to write')
    parser.add_argument(
        '--label-studio',
        action='store_true',
        help='masks as polygons, and no box beside a polygon: its importer reads nothing else',
    )
    parser.add_argument('--version', action='version', version=f'mmxray {__version__}')
    args = parser.parse_args(argv)
    try:
        counts = export_labels(args.data, args.out, args.label_studio)
    except ConvertError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f'{args.out}: expected a file that can be written ({error.strerror})', file=sys.stderr)
        return 2
    print(
        f'{args.out}: {counts["images"]} images, {counts["boxes"]} boxes, of which {counts["outlined"]} have '
        f'a polygon or mask and {counts["crowd"]} are crowd or difficult'
    )
    if args.label_studio and counts['crowd']:
        print(f'note: Label Studio knows no crowd: {counts["crowd"]} boxes arrive as plain ones')
    return 0


if __name__ == '__main__':
    sys.exit(main())
