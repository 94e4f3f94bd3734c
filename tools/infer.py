"""Inspect radiographs: COCO JSON, CSV and overlays per shard; bad files are set aside; a restart goes on."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.line.runtime import FolderError, Inspector  # noqa: E402
from projects.line.runtime.archive import ArchiveError, check_apart, find_images, inspect_archive, parse_shard
from projects.line.runtime.engines import ENGINES, EngineError  # noqa: E402


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage='infer.py [options] {FOLDER | CONFIG CHECKPOINT} IMAGES --out DIR',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='exit status: 0 inspected, 1 failed, 2 wrong use, 3 none of those to do could be read\n\n'
        'example:\n  python tools/infer.py work_dirs/export/NAME archive/2026 --out found --shard 2/8',
    )
    parser.add_argument(
        'source',
        nargs='+',
        help='exported folder, or config and checkpoint; then a radiograph, or a folder of them',
    )
    parser.add_argument('--out', required=True, metavar='DIR', help='where each shard gets its folder')
    parser.add_argument(
        '--shard', default='1/1', metavar='I/N', help='do the I-th of N shares, by the names of the files'
    )
    parser.add_argument('--threshold', type=float, metavar='S', help="score that counts, not the folder's")
    folder = parser.add_argument_group('of an exported folder')
    folder.add_argument('--engine', choices=ENGINES, help='default: openvino')
    folder.add_argument('--threads', type=int, metavar='N', help='CPU threads in all')
    folder.add_argument('--streams', type=int, metavar='N', help='radiographs at a time (1)')
    parser.add_argument(
        '--overlays', choices=('none', 'rejected', 'all'), default='rejected', help='pictures to write'
    )
    args = parser.parse_args(argv)
    if len(args.source) not in (2, 3):
        parser.error('expected FOLDER IMAGES, or CONFIG CHECKPOINT IMAGES')
    given = dict(engine=args.engine, threads=args.threads, streams=args.streams)
    args.options = {name: value for name, value in given.items() if value is not None}
    if len(args.source) == 3 and args.options:
        parser.error(f'--{next(iter(args.options))}: of an exported folder, not of CONFIG CHECKPOINT')
    if args.options.get('streams', 1) < 1 or args.options.get('threads', 1) < 1:
        parser.error('expected --streams and --threads of at least 1')
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        parser.error(f'--threshold {args.threshold}: expected a score in [0, 1]')
    try:
        args.shard = parse_shard(args.shard)
        check_apart(Path(args.source[-1]), Path(args.out))
    except ArchiveError as error:
        parser.error(str(error))
    return args


def main(argv=None):
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    if len(args.source) == 2:
        try:
            return infer(args, Inspector(args.source[0], threshold=args.threshold, **args.options))
        except (FolderError, EngineError, ArchiveError, OSError) as error:
            print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
            return 1
    # Only a config needs the libraries that take seconds to import.
    from projects.xray import running

    return running.one_line_errors(lambda _: infer(args, from_config(args, running)))(argv)


def from_config(args, running):
    """Return an inspector around the detector in PyTorch."""
    from projects.line.export import graphs

    config, checkpoint, _ = args.source
    cfg = running.read_experiment(config, loader='val_dataloader')
    if not Path(checkpoint).is_file():
        raise running.UsageError(f'{checkpoint}: no such checkpoint; train {config} first')
    return graphs.inspector_of(cfg, checkpoint, args.threshold)


def infer(args, inspector):
    """Inspect, and say what was found."""
    from tqdm import tqdm

    source, out = Path(args.source[-1]), Path(args.out)
    root, names = find_images(source, say_passed_over)
    done = inspect_archive(
        inspector,
        root,
        names,
        out,
        args.shard,
        args.overlays,
        lambda rows, earlier, total: tqdm(rows, unit='img', initial=earlier, total=total, disable=None),
    )
    print(
        f'{done.radiographs} radiographs, {done.earlier} of them in an earlier run: {done.rejected} rejected '
        f'at score >= {inspector.threshold:g}, {done.quarantined} not readable (quarantine.csv)'
    )
    print(f'wrote {out / f"shard-{args.shard[0]}-of-{args.shard[1]}"}')
    if done.tried and done.failed == done.tried:
        print(
            f'error: {source}: none of the {done.tried} radiographs to do could be read; see quarantine.csv',
            file=sys.stderr,
        )
        return 3
    return 0


def say_passed_over(names):
    """Name some of the files that are taken for something else than radiographs."""
    if names:
        print(f'passed over {len(names)} other files, such as {names[:3]}')


if __name__ == '__main__':
    sys.exit(main())
