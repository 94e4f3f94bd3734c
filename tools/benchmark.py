"""Measure input pipelines (loader), training steps (train) and detectors (infer) beside stock code;
and the cost of a growing archive (archive).

Example:
    python tools/benchmark.py loader --device-rate 2000
    python tools/benchmark.py train configs/small/simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px.py
    python tools/benchmark.py infer exported/castings --threads 2
    python tools/benchmark.py archive
"""

import argparse
import datetime
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from projects.arguments import ToolParser, positive  # noqa: E402

LOADER_CONFIGS = (
    'configs/simsiam/simsiam_resnet50_4xb64-coslr-100e_industrial-224px.py',
    'configs/simmim/simmim_swin-base_4xb64-amp-coslr-100e_industrial-384px.py',
    'configs/faster_rcnn/faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial.py',
)

# Small enough for two CPU cores; on a GPU give the full recipes.
TRAIN_CONFIGS = (
    'configs/small/simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px.py',
    'configs/small/simmim_swin-narrow_1xb32-coslr-20e_synthetic-96px.py',
)

ARCHIVE = ('leaks', 'crops', 'windows', 'index', 'records', 'stream')

# Mixed precision needs a GPU.
ALSO = ('amp', 'channels_last', 'amp+channels_last', 'compile', 'amp+channels_last+compile')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; wrong use ends the program with status 2."""
    head, example = __doc__.split('\n\n', 1)
    style = dict(epilog=example)
    parser = ToolParser(head, **style)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

    data = argparse.ArgumentParser(add_help=False)
    data.add_argument('--images', type=positive, default=64, metavar='N', help='radiographs to generate (64)')
    data.add_argument(
        '--size', type=positive, default=1024, metavar='PX', help='side of the radiographs (1024)'
    )
    data.add_argument(
        '--pack-size', type=positive, default=512, metavar='PX', help="side in pretraining's store (512)"
    )

    _add_loader(commands, parents=[data], **style)
    _add_train(commands, parents=[data], **style)
    _add_infer(commands, **style)
    _add_archive(commands, **style)
    args = parser.parse_args(argv)
    for config in args.configs:
        if not (REPO / config).is_file():
            parser.error(f'{config}: no such file, expected a config; see configs/README.md')
    return args


def _add_loader(commands: Any, **style: Any) -> None:
    loader = commands.add_parser('loader', help='images/s of input pipelines', **style)
    loader.set_defaults(run=run_loader)
    loader.add_argument(
        'configs', nargs='*', default=LOADER_CONFIGS, metavar='CONFIG', help='default: one of each kind'
    )
    loader.add_argument('--rounds', type=positive, default=7, metavar='N', help='runs of each pipeline (7)')
    loader.add_argument('--seconds', type=float, default=1, metavar='S', help='shortest time of a run (1)')
    loader.add_argument(
        '--device-rate',
        type=float,
        metavar='R',
        help='images/s that the device trains: adds the share that loaders reach',
    )
    loader.add_argument('--workers', type=positive, default=8, metavar='N', help='loader processes (8)')


def _add_train(commands: Any, **style: Any) -> None:
    train = commands.add_parser('train', help='images/s of training steps', **style)
    train.set_defaults(run=run_train)
    train.add_argument(
        'configs', nargs='*', default=TRAIN_CONFIGS, metavar='CONFIG', help='default: two small recipes'
    )
    train.add_argument('--turns', type=positive, default=3, metavar='N', help='turns of each variant (3)')
    train.add_argument('--steps', type=positive, default=10, metavar='N', help='steps of a turn (10)')
    train.add_argument(
        '--also',
        nargs='+',
        default=[],
        choices=ALSO,
        metavar='WHAT',
        help=f'also measure our packed variant with: {", ".join(ALSO)}',
    )
    train.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='K=V',
        help='override config values for all variants, e.g. train_dataloader.num_workers=2',
    )


def _add_infer(commands: Any, **style: Any) -> None:
    infer = commands.add_parser('infer', help='ms per radiograph of detectors on the CPU', **style)
    infer.set_defaults(run=run_infer, configs=())
    infer.add_argument(
        'folders',
        nargs='*',
        metavar='FOLDER',
        help='folder of tools/export.py; default: untrained ResNet-50 and student',
    )
    infer.add_argument(
        '--images', type=positive, default=10, metavar='N', help='radiographs to generate (10)'
    )
    infer.add_argument(
        '--size',
        type=positive,
        metavar='PX',
        help='side of the radiographs (that of the first folder, or 1024)',
    )
    infer.add_argument('--turns', type=positive, default=3, metavar='N', help='turns of each variant (3)')
    infer.add_argument(
        '--threads',
        type=positive,
        default=len(os.sched_getaffinity(0)),
        metavar='N',
        help='CPU threads of each variant (all cores)',
    )


def _add_archive(commands: Any, **style: Any) -> None:
    archive = commands.add_parser(
        'archive',
        help='cost of an archive: leaks, crops, windows, index, labels, a slow store',
        **style,
    )
    archive.set_defaults(run=run_archive, configs=())
    archive.add_argument(
        '--only',
        nargs='+',
        choices=ARCHIVE,
        default=ARCHIVE,
        metavar='WHAT',
        help=f'which measurements: {", ".join(ARCHIVE)} (all)',
    )
    archive.add_argument(
        '--images',
        type=several,
        nargs='+',
        default=(10_000, 20_000, 40_000, 100_000),
        metavar='N',
        help='look-alikes searched for duplicates of N / 5 others (10000 20000 40000 100000)',
    )
    archive.add_argument(
        '--hosts',
        type=several,
        nargs='+',
        default=(10_000, 20_000, 40_000),
        metavar='N',
        help='radiographs searched for crops of N / 5 of them (10000 20000 40000)',
    )
    archive.add_argument(
        '--windowed',
        type=positive,
        nargs='+',
        default=(100, 1_000),
        metavar='N',
        help='radiographs whose common window is found (100 1000)',
    )
    archive.add_argument(
        '--records',
        type=positive,
        default=1_000_000,
        metavar='N',
        help='number of images in labels and index (10^6)',
    )
    archive.add_argument('--loaders', type=positive, default=8, metavar='N', help='processes (8)')
    archive.add_argument(
        '--streamed', type=positive, default=512, metavar='N', help='radiographs in the slow store (512)'
    )
    archive.add_argument(
        '--steps', type=positive, default=20, metavar='N', help='training steps from the slow store (20)'
    )
    archive.add_argument(
        '--latency',
        type=milliseconds,
        default=50,
        metavar='MS',
        help='time of each request to the slow store (50)',
    )
    archive.add_argument('--threads', type=positive, default=1, metavar='N', help='threads of the search (1)')


def several(text: str) -> int:
    """Read a whole number above 1, so that its logarithm is above 0."""
    value = positive(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f'{value}: expected at least 2')
    return value


def milliseconds(text: str) -> float:
    """Read a time of 0 to 60,000 ms."""
    value = float(text)
    if not 0 <= value <= 60_000:
        raise argparse.ArgumentTypeError(f'{text}: expected 0 to 60000')
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    # The libraries take seconds to import; --help and wrong use do not need them.
    from projects.runs import provenance, running

    return running.one_line_errors(lambda _: args.run(args, provenance.provenance()))(argv)


def heading(what: str, facts: dict[str, Any]) -> str:
    """Return two lines about a measurement: its subject; hardware, commit, date and load average."""
    commit = facts['commit'][:10] + (' with local changes' if facts['dirty'] else '')
    load = ' '.join(f'{value:.1f}' for value in os.getloadavg())
    return f'{what}\n{facts["hardware"]}; commit {commit}; {datetime.date.today()}; load average {load}\n'


def run_loader(args: argparse.Namespace, facts: dict[str, Any]) -> int:
    """Print images/s of each config's pipelines."""
    from projects.benchmark import loader

    measured = {}
    with tempfile.TemporaryDirectory(prefix='benchmark-') as folder:
        root = Path(folder) / 'data'
        loader.write_radiographs(root, args.images, args.size)
        for config in args.configs:
            measured[Path(config).stem] = loader.measure(
                str(REPO / config), root, args.pack_size, args.rounds, args.seconds
            )
    what = f'{args.images} radiographs of {args.size} x {args.size} px, 8-bit PNG'
    print(heading(f'{what}; one process, one thread, processor time', facts))
    print(loader.table(measured, args.device_rate, args.workers))
    return 0


def run_train(args: argparse.Namespace, facts: dict[str, Any]) -> int:
    """Print images/s of each config's training steps."""
    import torch

    from projects.benchmark import loader, train
    from projects.runs import running

    if any('amp' in name for name in args.also) and not torch.cuda.is_available():
        raise running.UsageError('--also amp: no CUDA here, and mixed precision needs a GPU; leave it out')
    measured = {}
    with tempfile.TemporaryDirectory(prefix='benchmark-') as folder:
        root = Path(folder) / 'data'
        loader.write_radiographs(root, args.images, args.size)
        for config in args.configs:
            measured[Path(config).stem] = train.measure(
                str(REPO / config),
                root,
                args.pack_size,
                args.turns,
                args.steps,
                args.also,
                args.cfg_options,
            )
    what = f'{args.images} radiographs of {args.size} x {args.size} px, 8-bit PNG; {args.turns} turns of '
    print(heading(f'{what}{args.steps} steps', facts))
    print(train.table(measured))
    return 0


def run_infer(args: argparse.Namespace, facts: dict[str, Any]) -> int:
    """Print the time per radiograph of stock detectors and exports."""
    from projects.benchmark import graphs, infer, loader
    from projects.benchmark import variants as benchmark_variants
    from projects.line.runtime import folder as exported

    size = args.size or (max(exported.read(args.folders[0]).native) if args.folders else 1024)
    with tempfile.TemporaryDirectory(prefix='benchmark-') as folder:
        root = Path(folder)
        loader.write_radiographs(root / 'data', args.images, size)
        images = sorted((root / 'data' / 'images').iterdir())
        checkpoint = benchmark_variants.write_untrained(root / 'r50.pth', size)
        folders = args.folders or benchmark_variants.export_untrained(root, size, images)
        variants = benchmark_variants.variants_of(folders, checkpoint, {} if args.folders else infer.GOALS)
        infer.measure(variants, images, args.turns, args.threads, size)
    rates = benchmark_variants.run_in_subprocess('matrix products', graphs.matmul_rates, args.threads)
    what = f'{args.images} radiographs of {size} x {size} px, 8-bit PNG; {args.turns} turns; '
    print(heading(f'{what}{args.threads} threads', facts))
    print(infer.table(variants, rates))
    return 0


def run_archive(args: argparse.Namespace, facts: dict[str, Any]) -> int:
    """Print the cost of an archive, each measurement from a separate process."""
    from projects.benchmark import archive, levels, records, streaming
    from projects.benchmark.variants import run_in_subprocess

    print(heading(f'an archive as it grows; {args.threads} threads', facts), flush=True)
    if 'leaks' in args.only:
        rows, memory = run_in_subprocess('leaks', archive.leaks, tuple(args.images), args.threads)
        print(archive.leaks_table(rows) + f'\nlargest memory {memory:.2f} GiB\n', flush=True)
    if 'crops' in args.only:
        rows, memory = run_in_subprocess('crops', archive.crops, tuple(args.hosts))
        print(archive.leaks_table(rows, 'crops') + f'\nlargest memory {memory:.2f} GiB\n', flush=True)
    if 'windows' in args.only:
        rows = run_in_subprocess('windows', levels.measure_all, tuple(args.windowed))
        print(levels.levels_table(rows) + '\n', flush=True)
    memory = [what for what in records.MEASURES if what in args.only]
    if memory:
        found = run_in_subprocess('memory', records.measure, memory, args.records, args.loaders)
        for what, (few, many) in found.items():
            print(records.records_table(what, few, many, args.loaders) + '\n', flush=True)
    if 'stream' in args.only:
        row = run_in_subprocess(
            'stream',
            streaming.measure_streaming,
            str(REPO / streaming.CONFIG),
            args.streamed,
            512,
            args.latency / 1000,
            args.steps,
        )
        print(streaming.streaming_table(row), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
