"""Choose from an archive what to pretrain on, by a small YAML file of rules.

Writes a list of images that configs read, a table of every image that is left out with its reason, and the
ledger: how many came, stayed, and went for which reason.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects import __version__  # noqa: E402
from projects.errors import MMXrayError  # noqa: E402

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
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('settings', type=Path, metavar='YAML', help='file of rules')
    parser.add_argument('out', type=Path, metavar='LIST', help='list to write, such as curated.txt')
    parser.add_argument(
        '--workers', type=int, default=len(os.sched_getaffinity(0)), metavar='N', help='processes (all cores)'
    )
    parser.add_argument('--version', action='version', version=f'mmxray {__version__}')
    args = parser.parse_args(argv)
    if not 1 <= args.workers <= 256:
        parser.error(f'--workers {args.workers}: expected a number from 1 to 256')
    from tqdm import tqdm

    from projects.prepare.curation.curate import curate, write
    from projects.prepare.curation.settings import read_settings

    def bar(total: int):  # noqa: ANN202 (tqdm's own)
        return tqdm(total=total, unit='img', disable=None, leave=False).update

    try:
        chosen = curate(read_settings(args.settings), args.workers, bar)
        files = write(chosen, args.out)
    except MMXrayError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f'{args.out}: expected a file that can be written ({error.strerror})', file=sys.stderr)
        return 2
    print(chosen.ledger())
    print(f'written: {files["list"]}, {files["dropped"]}, {files["ledger"]}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
