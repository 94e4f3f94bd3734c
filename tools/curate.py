"""Choose the pretraining images of an archive by the rules in a small YAML file.

The tool writes a list of images for configs, a table of every excluded image with the reason, and a ledger
with the numbers of all, kept and excluded images by reason.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser, exit_code  # noqa: E402

EXAMPLE = """curate.yaml:
  archive: data/industrial/unlabeled
  calibration: (?i)(^|/)(dark|flat|offset|gain)[^/]*$
  blank: 0.02
  near_duplicates: 1
  series: {by: '^([^/]+)/', most: 500}

example:
  python tools/curate.py curate.yaml data/industrial/curated.txt
  python tools/train.py CONFIG --cfg-options train_dataloader.dataset.ann_file=curated.txt"""


def main(argv: list[str] | None = None) -> int:
    """Curate; returns 0 done, 2 wrong use."""
    parser = ToolParser(__doc__, EXAMPLE)
    parser.add_argument('settings', type=Path, metavar='YAML', help='file of rules')
    parser.add_argument('out', type=Path, metavar='LIST', help='list to write, such as curated.txt')
    parser.add_workers()
    args = parser.parse_args(argv)
    parser.check_range('workers', args.workers, 1, 256)
    return exit_code(lambda: choose(args), args.out)


def choose(args: argparse.Namespace) -> None:
    """Write the list, its table and its ledger, and print the ledger."""
    from tqdm import tqdm

    from projects.prepare.curation.curate import curate, write
    from projects.prepare.curation.settings import read_settings

    def bar(total: int):  # noqa: ANN202 (tqdm's own)
        return tqdm(total=total, unit='img', disable=None, leave=False).update

    chosen = curate(read_settings(args.settings), args.workers, bar)
    files = write(chosen, args.out)
    print(chosen.ledger())
    print(f'written: {files["list"]}, {files["dropped"]}, {files["ledger"]}')


if __name__ == '__main__':
    sys.exit(main())
