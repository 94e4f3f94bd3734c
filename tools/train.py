"""Train a config: pretraining, linear probe, detector or distillation."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.arguments import ToolParser  # noqa: E402

if TYPE_CHECKING:
    from mmengine.config import Config

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = ToolParser(
        description=__doc__,
        epilog='example:\n  python tools/train.py configs/small/NAME.py --cfg-options randomness.seed=1\n'
        'exit codes: 0 trained, 1 failed, 2 wrong use, 143 ended by SIGTERM: --resume goes on',
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder of the run; default: work_dirs/<config stem>')
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        '--resume',
        action='store_true',
        help='continue from the last complete checkpoint of the work dir, as if the run had not stopped; '
        'without checkpoints the run starts from the beginning',
    )
    start.add_argument('--load-from', metavar='F', help='start from the weights of a checkpoint, at epoch 0')
    parser.add_argument('--amp', action='store_true', help='use mixed precision, also if the config does not')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='has no effect: the batch is always adapted to the number of ranks',
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='launcher of the ranks')
    parser.add_argument(
        '--cfg-options', nargs='+', metavar='K=V', help='override config values, e.g. train_cfg.max_epochs=2'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    # The libraries take seconds to import; --help and wrong use do not need them.
    from projects.runs import running

    def run(_: Sequence[str] | None) -> int:
        with running.process_group_ends():
            return train(args, running)

    return running.one_line_errors(run)(argv)


def train(args: argparse.Namespace, running: ModuleType) -> int:
    """Read the config, print the run's provenance, and train."""
    cfg = running.read_experiment(args.config, args.cfg_options)
    running.set_work_dir(cfg, args.work_dir)
    seed = running.set_seed(cfg)
    if args.load_from:
        if '://' not in args.load_from and not Path(args.load_from).is_file():
            raise running.UsageError(
                f'{args.load_from}: no such checkpoint, expected by --load-from; give an existing .pth file'
            )
        cfg.load_from = args.load_from
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        cfg.auto_scale_lr = dict(cfg.get('auto_scale_lr') or {}, enable=True)
    running.prepare(cfg, args.launcher)
    with running.alone_in(cfg.work_dir):
        return start(args, cfg, seed, running)


def start(args: argparse.Namespace, cfg: 'Config', seed: int, running: ModuleType) -> int:
    """Train with a prepared config, in a locked work dir."""
    from projects.runs import provenance
    from projects.runs.fit import check_fit

    fitted = [*running.fit_batch(cfg), *running.magnified_views(cfg)]
    last = running.choose_start(cfg.work_dir, args.resume)
    if last:
        # Otherwise the runner would resume from the config's own load_from.
        cfg.resume, cfg.load_from = True, last

    facts = provenance.provenance(args.config)
    code = facts['commit'] + (' with local changes' if facts['dirty'] else '')
    start = f'resumes {last}' if last else 'starts at epoch 0'
    lines = [f'commit {code}', f'config {args.config}', f'seed {seed}', facts['hardware'], start]
    if running.is_main():
        print('\n'.join(['; '.join(lines), *fitted]), flush=True)
    runner = running.build_runner(cfg)
    check_fit(runner)
    if running.is_main():
        for line in provenance.note_start(cfg, facts, seed, resumed=bool(last)):
            runner.logger.warning(line)
    runner.logger.info('Run: %s', '\n'.join(['; '.join(lines), *fitted]))
    runner.train()
    return 0


if __name__ == '__main__':
    sys.exit(main())
