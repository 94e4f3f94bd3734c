"""Inspect radiographs: COCO JSON, CSV and overlays per shard; bad files are set aside; a restart goes on."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.xray.deploy import FolderError, Inspector  # noqa: E402
from projects.xray.deploy.archive import (  # noqa: E402
    ArchiveError,
    find_images,
    inspect_archive,
    parse_shard,
)
from projects.xray.deploy.engines import ENGINES, EngineError  # noqa: E402


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage='infer.py [options] {FOLDER | CONFIG CHECKPOINT} IMAGES --out DIR',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='example:\n  python tools/infer.py work_dirs/export/NAME archive/2026 --out found --shard 2/8',
    )
    parser.add_argument(
        'source',
        nargs='+',
        help='exported folder, or config and checkpoint; then a radiograph, or a folder of them',
    )
    parser.add_argument('--out', required=True, metavar='DIR', help='where each shard gets its folder')
    parser.add_argument(
        '--shard', default='1/1', metavar='I/N', help='do every N-th radiograph, from the I-th'
    )
    parser.add_argument('--engine', choices=ENGINES, default='openvino', help='of an exported folder')
    parser.add_argument('--threshold', type=float, metavar='S', help="score that counts, not the folder's")
    parser.add_argument('--threads', type=int, metavar='N', help='CPU threads in all')
    parser.add_argument('--streams', type=int, default=1, metavar='N', help='radiographs at a time (1)')
    parser.add_argument(
        '--overlays', choices=('none', 'rejected', 'all'), default='rejected', help='pictures to write'
    )
    args = parser.parse_args(argv)
    if len(args.source) not in (2, 3):
        parser.error('expected FOLDER IMAGES, or CONFIG CHECKPOINT IMAGES')
    if args.streams < 1 or (args.threads or 1) < 1:
        parser.error('expected --streams and --threads of at least 1')
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        parser.error(f'--threshold {args.threshold}: expected a score in [0, 1]')
    return args


def main(argv=None):
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    if len(args.source) == 2:
        try:
            return infer(
                args, Inspector(args.source[0], args.engine, args.threshold, args.threads, args.streams)
            )
        except (FolderError, EngineError, ArchiveError, OSError) as error:
            print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
            return 1
    # Only a config needs the libraries that take seconds to import.
    from projects.xray import running

    return running.one_line_errors(lambda _: infer(args, from_config(args, running)))(argv)


def from_config(args, running):
    """Return an inspector around the detector in PyTorch."""
    from projects.xray import export

    config, checkpoint, _ = args.source
    cfg = running.read_config(config)
    if not Path(checkpoint).is_file():
        raise running.UsageError(f'{checkpoint}: no such checkpoint; train {config} first')
    return export.inspector_of(cfg, checkpoint, args.threshold)


def infer(args, inspector):
    """Inspect, and say what was found."""
    from tqdm import tqdm

    root, names = find_images(Path(args.source[-1]))
    shard = parse_shard(args.shard)
    total = len(names[shard[0] - 1 :: shard[1]])
    done = inspect_archive(
        inspector,
        root,
        names,
        Path(args.out),
        shard,
        args.overlays,
        lambda rows: tqdm(rows, unit='img', total=total, disable=None),
    )
    print(
        f'{done.radiographs} radiographs, {done.earlier} of them in an earlier run: {done.rejected} rejected '
        f'at score >= {inspector.threshold:g}, {done.quarantined} not readable (quarantine.csv)'
    )
    print(f'wrote {Path(args.out) / f"shard-{shard[0]}-of-{shard[1]}"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
