"""The command that inspects radiographs: COCO JSON, CSV and overlays per shard; a restart continues."""

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from projects.arguments import ToolParser
from projects.radiograph.files import sha256

from . import FolderError, Inspector
from .archive import ArchiveError, Report, Summary, check_apart, find_images, inspect_archive, parse_shard
from .broker import Broker, BrokerError
from .drift import Line
from .engines import ENGINES, EngineError
from .folder import NO_BAND
from .inspector import Inspection
from .results import as_result
from .structured import check_available, write_report
from .watch import Watch


def parse_args(argv: list[str] | None, with_configs: bool) -> argparse.Namespace:
    """Parse the command line; exits 2 on wrong use.

    Args:
        argv: Arguments, or None for the process's.
        with_configs: Whether a config and a checkpoint may replace an exported folder.
    """
    source = '{FOLDER | CONFIG CHECKPOINT}' if with_configs else 'FOLDER'
    called = 'python tools/infer.py' if with_configs else 'mmxray-infer'
    parser = ToolParser(
        prog=called.rpartition('/')[2],
        description='Inspect radiographs: COCO JSON, CSV and overlays per shard. Bad files are set aside. A '
        'restart continues.',
        usage=f'{called.rpartition("/")[2]} [options] {source} IMAGES --out DIR',
        epilog='exit status: 0 inspected, 1 failed, 2 wrong use, 3 no radiograph of the run could be read\n\n'
        f'example:\n  {called} work_dirs/export/NAME archive/2026 --out found --shard 2/8',
    )
    parser.add_argument(
        'source',
        nargs='+',
        help='exported folder'
        + ', or config and checkpoint' * with_configs
        + '; then a radiograph, or a folder of them',
    )
    parser.add_argument('--out', required=True, metavar='DIR', help='output folder, with a folder per shard')
    parser.add_argument(
        '--shard', default='1/1', metavar='I/N', help='inspect the I-th of N shards, divided by file names'
    )
    parser.add_argument('--threshold', type=float, metavar='S', help="threshold that replaces the folder's")
    folder = parser.add_argument_group('of an exported folder')
    folder.add_argument('--engine', choices=ENGINES, help='default: openvino')
    folder.add_argument('--threads', type=int, metavar='N', help='CPU threads in all')
    folder.add_argument('--streams', type=int, metavar='N', help='radiographs at a time (1)')
    folder.add_argument('--key', metavar='FILE', help='public ed25519 key (PEM) that must have signed it')
    watched = parser.add_argument_group('a folder into which radiographs arrive')
    watched.add_argument(
        '--watch',
        action='store_true',
        help='inspect arriving radiographs until ended, each with one result in OUT/results',
    )
    watched.add_argument(
        '--settle',
        type=float,
        default=2.0,
        metavar='S',
        help='seconds without a change after which a file counts as complete (2)',
    )
    Line.add_options(parser)
    watched.add_argument(
        '--shadow', metavar='FOLDER', help='a second detector, whose verdicts are recorded and not acted upon'
    )
    watched.add_argument(
        '--mqtt', metavar='URL', help='also send results to a broker: mqtt[s]://[USER@]HOST[:PORT]/TOPIC'
    )
    watched.add_argument('--mqtt-password', type=Path, metavar='FILE', help="file with the user's password")
    watched.add_argument(
        '--mqtt-ca', type=Path, metavar='FILE', help="CA certificates (PEM) to verify the broker's"
    )
    parser.add_argument(
        '--sr', action='store_true', help='a DICOM structured report of each DICOM file (needs highdicom)'
    )
    parser.add_argument(
        '--overlays', choices=('none', 'rejected', 'all'), default='rejected', help='pictures to write'
    )
    args = parser.parse_args(argv)
    _check(parser, args, with_configs)
    return args


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace, with_configs: bool) -> None:
    """Refuse options that do not go together."""
    if len(args.source) not in (2, 3)[: 1 + with_configs]:
        wrong = 'expected FOLDER IMAGES'
        parser.error(f'{wrong}, or CONFIG CHECKPOINT IMAGES' if with_configs else wrong)
    given = dict(engine=args.engine, threads=args.threads, streams=args.streams, key=args.key)
    args.options = {name: value for name, value in given.items() if value is not None}
    if len(args.source) == 3 and args.options:
        parser.error(f'--{next(iter(args.options))}: expected an exported folder, not CONFIG CHECKPOINT')
    if args.options.get('streams', 1) < 1 or args.options.get('threads', 1) < 1:
        parser.error('expected --streams and --threads of at least 1')
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        parser.error(f'--threshold {args.threshold}: expected a score in [0, 1]')
    for name in ('mqtt', 'shadow'):
        if getattr(args, name) and not args.watch:
            parser.error(f'--{name}: add --watch')
    if not args.watch and (args.reference_part or args.critical_share is not None or args.requalified):
        parser.error('--reference-part, --critical-share, --requalified: add --watch')
    if args.watch and (len(args.source) == 3 or args.shard != '1/1'):
        parser.error('--watch: expected an exported folder, and no --shard')
    if args.sr and len(args.source) == 3:
        parser.error('--sr: expected an exported folder, not CONFIG CHECKPOINT')
    if not 0 <= args.settle < 3600:
        parser.error(f'--settle {args.settle}: expected seconds, 0 to 3600')
    try:
        args.shard = parse_shard(args.shard)
        check_apart(Path(args.source[-1]), Path(args.out))
    except ArchiveError as error:
        parser.error(str(error))


def main(
    argv: list[str] | None = None, from_config: Callable[[argparse.Namespace], int] | None = None
) -> int:
    """Run the command; returns the exit code.

    Args:
        argv: Arguments, or None for the process's.
        from_config: Runs the command for a config and a checkpoint, which needs the training stack.
    """
    args = parse_args(argv, from_config is not None)
    if from_config is not None and len(args.source) == 3:
        return from_config(args)
    try:
        if args.sr:
            check_available()
        inspector = Inspector(args.source[0], threshold=args.threshold, **args.options)
        return watch(args, inspector) if args.watch else infer(args, inspector)
    except (FolderError, EngineError, ArchiveError, BrokerError, OSError) as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        return 1


def infer(args: argparse.Namespace, inspector: Inspector) -> int:
    """Inspect an archive and print the counts."""
    from tqdm import tqdm

    source, out = Path(args.source[-1]), Path(args.out)
    root, names = find_images(source, say_passed_over)
    print(f'detector {inspector.digest}')
    done = inspect_archive(
        inspector,
        root,
        names,
        out,
        args.shard,
        args.overlays,
        lambda rows, earlier, total: tqdm(rows, unit='img', initial=earlier, total=total, disable=None),
        reporter(inspector) if args.sr else None,
    )
    print(
        f'{done.radiographs} radiographs, {done.earlier} of them in an earlier run: {done.rejected} rejected '
        f'at score >= {inspector.threshold:g}, {done.quarantined} not readable (quarantine.csv)'
    )
    warn_of_rejects(inspector, done)
    if inspector.opinion:
        print(f'{done.flagged} flagged by the second opinion (images.csv): look at them, accepted ones too')
    print(f'wrote {out / f"shard-{args.shard[0]}-of-{args.shard[1]}"}')
    if done.tried and done.failed == done.tried:
        print(
            f'error: {source}: none of the {done.tried} radiographs to do could be read; see quarantine.csv',
            file=sys.stderr,
        )
        return 3
    return 0


def reporter(inspector: Inspector) -> Report:
    """Return a function that writes the structured report of a radiograph."""

    def report(name: str, path: Path, inspection: Inspection, target: Path) -> None:
        why = write_report(path, as_result(name, sha256(path), inspection, inspector), target)
        if why.startswith('none: lacks'):
            print(f'{path}: structured report {why}', file=sys.stderr)

    return report


def watch(args: argparse.Namespace, inspector: Inspector) -> int:
    """Inspect the radiographs that arrive in a folder, until SIGINT or SIGTERM."""
    root, out, stop = Path(args.source[-1]), Path(args.out), threading.Event()
    if not root.is_dir():
        raise ArchiveError(f'{root}: expected a folder to watch; make it, or correct the path')
    print(f'detector {inspector.digest}\nwatching {root}; results go to {out}', flush=True)
    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, lambda *_: stop.set())
            stack.callback(signal.signal, number, before)
        broker = Broker(args.mqtt, args.mqtt_password, args.mqtt_ca) if args.mqtt else None
        if broker:
            stack.callback(broker.close)
        report = write_report if args.sr else None
        shadow = Inspector(args.shadow, **args.options) if args.shadow else None
        newer = Successor(args, inspector)
        watched = Watch(inspector, root, out, args.settle, broker, Line.of(args), report, shadow, newer)
        watched.run(stop, on_result=say_results())
        if watched.shadow:
            print(watched.shadow.in_words())
    return 0


class Successor:
    """Detects that the link to the exported folder has changed: to the next detector, or back to the last.

    Args:
        args: Arguments of the command.
        inspector: The first detector.
    """

    def __init__(self, args: argparse.Namespace, inspector: Inspector):
        self._args, self._digest = args, inspector.digest
        self._place = Path(args.source[0]).resolve()

    def __call__(self) -> Inspector | None:
        """Return the next detector; None if the link has not changed or the new folder is refused."""
        place = Path(self._args.source[0]).resolve()
        if place == self._place:
            return None
        self._place = place
        try:
            other = Inspector(place, threshold=self._args.threshold, **self._args.options)
        except (FolderError, EngineError, OSError) as error:
            reason = ' '.join(str(error).split())
            print(f'not taken, {self._digest} goes on: {reason}', file=sys.stderr, flush=True)
            return None
        print(f'detector {other.digest}, before it {self._digest}', flush=True)
        self._digest = other.digest
        return other


def say_results() -> Callable[[dict[str, Any]], None]:
    """Return a function that prints each verdict, and each reason to requalify the detector once."""
    told: set[str] = set()

    def say(result: dict[str, Any]) -> None:
        flag = ', flagged by the second opinion: look at it' if result['flagged'] else ''
        print(f'{result["name"]}: {result["verdict"]}{flag}', flush=True)
        for reason in result['requalify']:
            if reason not in told:
                told.add(reason)
                print(f'requalify: {reason}', file=sys.stderr, flush=True)

    return say


def warn_of_rejects(inspector: Inspector, done: Summary) -> None:
    """Print the cost of the threshold, and warn if more is rejected than sound parts explain."""
    exported, limit = inspector.exported, inspector.exported.max_false_reject
    if not exported.gray_levels:
        print(f'note: {NO_BAND}')
    expected = exported.false_reject(inspector.threshold)
    if expected is None:
        print('what the threshold costs is not known: no validation part is known to be sound')
    elif inspector.threshold == exported.threshold:
        print(f'the threshold costs: {exported.cost_in_words()}')
    else:
        print(f'the threshold costs: at most {expected:.1%} of the sound validation parts rejected')
    if expected is not None and expected > limit:
        print(
            f'warning: the threshold rejects more than {limit:.0%} of the sound validation parts',
            file=sys.stderr,
        )
    seen = done.radiographs - done.quarantined
    if seen and done.rejected > limit * seen:
        print(
            f'warning: {done.rejected / seen:.0%} of the radiographs are rejected, more than the {limit:.0%} '
            'of sound parts that the folder may reject. Unless that many parts are defective, the '
            'radiographs differ from its validation set: look at some; check depth, machine and part type',
            file=sys.stderr,
        )


def say_passed_over(names: list[str]) -> None:
    """Print the number and some names of the files that are not inspected."""
    if names:
        print(f'passed over {len(names)} other files, such as {names[:3]}')


if __name__ == '__main__':
    sys.exit(main())
