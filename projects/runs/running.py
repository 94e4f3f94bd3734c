"""Steps that all tools with a config share: reading it, seed, work dir, runner, errors in one line."""

import contextlib
import errno
import fcntl
import functools
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import mmengine.dist
import mmengine.runner
import torch
from mmengine.config import Config

from projects import REPO
from projects.config import spelling, variables
from projects.config.options import parse_value
from projects.errors import MMXrayError, UsageError
from projects.xray import compat
from projects.xray.hooks.resume import ResumeError, newest_checkpoint


def read_config(path: str, options: list[str] | None = None) -> Config:
    """Read a config and apply `--cfg-options`.

    Args:
        path: Config file.
        options: `key=value` strings with dotted keys; `options.parse_value` reads the values. `xray_load.…`
            is written into every LoadXray of the config, so that all pipelines load alike, and `xray_own.…`
            into the fragment of an experiment in `configs/own/`.

    Raises:
        UsageError: The file is no readable config, or an option does not fit the config.
    """
    if not Path(path).is_file():
        raise UsageError(
            f'{path}: no such config, expected a file such as configs/small/NAME.py; see configs/'
        )
    pairs = {option: _split(option, path) for option in options or []}
    own = [(key, value) for key, value in pairs.values() if key.split('.')[0] == variables.OWN]
    try:
        with variables.own_data(own):
            cfg = Config.fromfile(path)
    except variables.VariableError as error:
        raise UsageError(str(error)) from None
    except Exception as error:  # a config is Python code and can raise any error
        raise UsageError(
            f'{path}: not readable as a config ({type(error).__name__}: {_line(error)}); correct the file, '
            'or the base that it names'
        ) from error
    if misspelling := spelling.misspelt_top(cfg):
        raise UsageError(f'{path}: {misspelling}')
    added = {option: spelling.absent_part(cfg, key) for option, (key, _) in pairs.items()}
    for option, (key, value) in pairs.items():
        if (key, value) in own:
            continue
        try:
            if key.startswith('xray_'):
                variables.set_load(cfg, key, value)
            else:
                cfg.merge_from_dict({key: value})
        except variables.VariableError as error:
            raise UsageError(str(error)) from None
        except Exception as error:  # merge_from_dict can raise any error of the nested containers
            raise _misfit(option, path, error) from error
    for option, parts in added.items():
        if parts and not parts[0].startswith('xray_') and (misspelling := spelling.misspelt(cfg, parts)):
            raise UsageError(f"--cfg-options: '{option}': {misspelling}")
    return cfg


def _split(option: str, path: str) -> tuple[str, object]:
    """Split an option for the config at `path` into key and value."""
    key, equals, value = option.partition('=')
    if not key or not equals:
        raise UsageError(
            f"--cfg-options: '{option}' has no key=value, expected for example "
            'train_dataloader.batch_size=2; write no spaces around ='
        )
    try:
        return key, parse_value(value)
    except ValueError as error:
        raise _misfit(option, path, error) from error


def _misfit(option: str, path: str, error: Exception) -> UsageError:
    return UsageError(
        f"--cfg-options: '{option}' does not fit {path} ({_line(error)}); look its keys up with "
        f'`python tools/diff_config.py {path}`'
    )


def read_experiment(path: str, options: list[str] | None = None, loader: str = 'train_dataloader') -> Config:
    """Read a config that must have a model and data, see `read_config`.

    Args:
        path: Config file.
        options: `key=value` strings.
        loader: The loader that the config must have.

    Raises:
        UsageError: The model or the loader is missing, as in a fragment; or see `read_config`.
    """
    cfg = read_config(path, options)
    if not cfg.get('model') or not cfg.get(loader):
        raise UsageError(
            f'{path}: no model or no {loader}, expected an experiment; name one such as configs/small/NAME.py'
        )
    return cfg


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """Set `cfg.work_dir` to the argument, else to the config's own, else to `work_dirs/<config stem>`."""
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(cfg.filename).stem)


def set_seed(cfg: Config) -> int:
    """Set the seed to 0 if `cfg.randomness` has none, so that a run can be repeated; return the seed."""
    randomness = dict(cfg.get('randomness') or {})
    if randomness.get('seed') is None:
        randomness['seed'] = 0
    cfg.randomness = randomness
    return randomness['seed']


def prepare(cfg: Config, launcher: str) -> None:
    """Adapt a config to the machine, print the changes, and start the process group if needed.

    Raises:
        UsageError: There are more ranks than GPUs on this machine; NCCL would hang or print a page of errors.
    """
    ranks, gpus = int(os.environ.get('LOCAL_WORLD_SIZE', 1)), torch.cuda.device_count()
    if launcher == 'pytorch' and torch.cuda.is_available() and ranks > gpus:
        raise UsageError(
            f'{ranks} ranks on {gpus} GPU{"s" * (gpus > 1)}, expected at most one on each; start {gpus}, or '
            'hide the GPUs to train on the CPU: CUDA_VISIBLE_DEVICES= tools/dist_train.sh …'
        )
    for line in compat.adapt_to_cpu(cfg, launcher):
        if is_main():
            print(line)
    cfg.launcher = launcher
    if launcher != 'none' and not torch.distributed.is_initialized():
        # Before the Runner does so: the ranks agree on a start checkpoint before the Runner is built.
        mmengine.dist.init_dist(launcher, **(cfg.get('env_cfg') or {}).get('dist_cfg', dict(backend='nccl')))


@contextlib.contextmanager
def process_group_ends():
    """Let the ranks of a run exit together, after the work in this context has ended or stopped.

    If a rank exits while another still communicates with it, the other aborts (gloo: SIGABRT), and torchrun
    reports the finished run as failed. After an error no rank waits: torchrun ends the others.
    """
    try:
        yield
    except SystemExit:
        _leave()
        raise
    _leave()


def _leave() -> None:
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def alone_in(work_dir: str) -> Iterator[None]:
    """Lock a work dir against other trainings: two would overwrite each other's checkpoints and logs.

    Raises:
        UsageError: Another process trains in the folder.
    """
    if not is_main():
        yield
        return
    Path(work_dir).mkdir(parents=True, exist_ok=True)
    with Path(work_dir, '.running').open('w') as file:
        try:
            # Unlike flock, child processes do not hold this lock: loaders outlive a kill by seconds.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UsageError(
                    f'{work_dir}: another process is training there; wait for it, or give another --work-dir'
                ) from None
            # Other errors: the file system has no locks.
        yield


def choose_start(work_dir: str, wanted: bool) -> str | None:
    """Return the checkpoint from which a run resumes, the same on every rank, or None for a new start.

    Args:
        work_dir: Work dir of the run.
        wanted: Whether `--resume` was given. If torchrun has restarted a rank (`--max-restarts`), all ranks
            resume without `--resume` too. They then use only checkpoints written since tools/launch.py
            started, since older ones in the folder belong to an earlier run.

    Raises:
        UsageError: The folder's `last_checkpoint` names a checkpoint, but none can be read.
    """
    names = 'TORCHELASTIC_RESTART_COUNT', 'XRAY_LAUNCHED'
    facts = mmengine.dist.all_gather_object([float(os.environ.get(name, 0)) for name in names])
    restarts, launched = zip(*facts)
    if not wanted and not any(restarts):
        return None
    found = [None, None]
    if mmengine.dist.is_main_process():
        try:
            found[0] = newest_checkpoint(work_dir, since=0.0 if wanted else min(launched))
        except ResumeError as error:
            found[1] = str(error)
    mmengine.dist.broadcast_object_list(found)
    if found[1]:
        raise UsageError(found[1])
    return found[0] and str(found[0])


def fit_batch(cfg: Config) -> list[str]:
    """Adapt a config to the number of GPUs, so that its training stays equivalent.

    `auto_scale_lr.base_batch_size` is the batch size for which the learning rate was chosen. If the ranks
    together load an integer fraction of it, gradients of several steps are accumulated before an update, and
    schedules that count iterations are stretched. For any other ratio learning rates are scaled linearly
    (Goyal et al., arXiv:1706.02677), also that of `SimSiamHook`. Batch norm is not corrected: it sees only
    the images that the ranks load at once. `auto_scale_lr.enable` is switched off, since mmengine would scale
    a second time.

    Args:
        cfg: Config, changed in place; the process group, if any, has been started.

    Returns:
        One line about the change; no line if the batch is as written and `enable` is not set, or if
        `auto_scale_lr` is None.

    Raises:
        UsageError: `enable` without the batch size for which the learning rate was chosen.
    """
    scaling = cfg.get('auto_scale_lr') or {}
    written = scaling.get('base_batch_size')
    per_rank = (cfg.get('train_dataloader') or {}).get('batch_size')
    enabled = scaling.get('enable')
    if enabled:
        if not written or not per_rank:
            raise UsageError(
                'auto_scale_lr.enable without auto_scale_lr.base_batch_size and train_dataloader.batch_size, '
                'expected the batch for which the learning rate was written and that of a rank; set both'
            )
        scaling.enable = False
    if not written or not per_rank:
        return []
    ranks = mmengine.dist.get_world_size()
    wrapper = cfg.optim_wrapper
    steps = wrapper.get('accumulative_counts', 1)
    batch = ranks * per_rank * steps
    if batch == written:
        rate = f'batch: {batch}, as written: learning rate {wrapper.optimizer.lr:g} as written'
        return [rate] if enabled else []
    text = f'batch: {ranks} x {per_rank}' + (f' x {steps} steps' if steps > 1 else '')
    text += f' = {batch}, written for {written}: '
    schedules = cfg.get('param_scheduler') or []
    schedules = [schedules] if isinstance(schedules, dict) else schedules
    if written % batch == 0:
        factor = written // batch
        wrapper.accumulative_counts = steps * factor
        for schedule in schedules:
            if not schedule.get('by_epoch', True):
                for key in ('begin', 'end', 'T_max'):
                    if key in schedule:
                        schedule[key] *= factor
        return [
            f'{text}gradients of {steps * factor} steps are added up, learning rate {wrapper.optimizer.lr:g} '
            f'as written; batch norm sees {per_rank} images, or {ranks * per_rank} where it is synchronised'
        ]
    ratio = batch / written
    wrapper.optimizer.lr *= ratio
    for schedule in schedules:
        if 'eta_min' in schedule:
            schedule.eta_min *= ratio
    text += f'learning rate times {ratio:g} = {wrapper.optimizer.lr:g}'
    for hook in cfg.get('custom_hooks') or []:
        if hook.type == 'SimSiamHook':
            hook.lr *= ratio
            text += f', of the predictor (SimSiamHook) {hook.lr:g}'
    return [text]


def magnified_views(cfg: Config) -> list[str]:
    """Look for random crops that magnify images which LoadXray has shrunk: such views are blurred.

    Args:
        cfg: Config.

    Returns:
        One line for each such crop.
    """
    steps = [node for node in variables.dicts(cfg.train_dataloader) if isinstance(node.get('type'), str)]
    sizes = [step['size'] for step in steps if step['type'] == 'LoadXray' and step.get('size')]
    lines = []
    for step in steps:
        if step['type'].rpartition('.')[2] not in ('RandomResizedCrop', 'XrayRandomResizedCrop'):
            continue
        side = step['scale'] if isinstance(step['scale'], int) else max(step['scale'])
        least = step.get('crop_ratio_range', (0.08, 1.0))[0] ** 0.5
        if sizes and least * min(sizes) < side:
            lines.append(
                f'warning: views of {side} px are magnified, cut as {least * min(sizes):.0f} px or more from '
                f'radiographs shrunk to {min(sizes)} px; raise xray_load.size, and --size of '
                'tools/pack_images.py where they are packed'
            )
    return lines


def build_runner(cfg: Config) -> mmengine.runner.Runner:
    """Build the Runner, or the class that `runner_type` names."""
    if 'runner_type' in cfg:
        return mmengine.registry.RUNNERS.build(cfg)
    return mmengine.runner.Runner.from_cfg(cfg)


def is_main() -> bool:
    """Whether this process prints: rank 0, or any process without a launcher."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'


def one_line_errors(main):
    """Turn errors that a user can correct into one line on stderr and an exit code: 2 wrong use, 1 failed.

    These are errors that the project's modules define or raise, unknown names in a registry, unknown
    arguments of a class in a config, and missing files. Any other error is a fault of the code and keeps its
    traceback.
    """

    @functools.wraps(main)
    def wrapper(argv=None):
        try:
            return main(argv)
        except KeyboardInterrupt:
            if not _launched():
                raise
            return 130  # the launcher was interrupted too
        except Exception as error:
            message, code = _explain(error)
            if _launched():
                _hand_over(error, message, code)
                return code
            if message is None:
                raise
        rank = '' if is_main() else f' (rank {os.environ.get("RANK", "?")})'
        print(f'error{rank}: {message}', file=sys.stderr)
        return code

    return wrapper


def _explain(error: Exception) -> tuple[str | None, int]:
    """Return the line about an error, or None for a fault of the code, and the exit code."""
    if isinstance(error, UsageError):
        return _line(error), 2
    if isinstance(error, FileNotFoundError):
        return f'{error.filename or _line(error)}: no such file; correct the path in the config', 1
    package = isinstance(error, ImportError) and re.search(r'pip install (?:-U )?([\w -]+)"', str(error))
    if package:  # a logger's package: mmengine's message names pip, which the environment does not have
        return (
            f'{package[1]} is not installed, expected by visualizer.vis_backends; install it with '
            f'`.uv/bin/uv pip install --python .venv {package[1]}`, or leave this logger out'
        ), 1
    if not _is_users(error):
        return None, 1
    message = _line(error)
    if isinstance(error, TypeError):
        message += '; correct this key in the config or in --cfg-options'
    return message, 1


def _launched() -> bool:
    """Whether tools/launch.py has started this rank and prints its error."""
    return {'XRAY_LAUNCHED', 'TORCHELASTIC_ERROR_FILE'} <= os.environ.keys()


LOST = re.compile(r'gloo|NCCL|onnection (closed|reset) by peer|roken pipe')
"""Found in a RuntimeError of a rank that only lost its connection to another rank."""


def _hand_over(error: Exception, message: str | None, code: int) -> None:
    """Write an error into torchrun's error file, from which tools/launch.py prints it.

    If several ranks printed, their lines would mix, and most ranks only lost their connection to the failed
    rank.
    """
    lost = isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and message is None and bool(LOST.search(str(error)))
    )
    if lost:
        message = f'no connection to another rank ({_line(error)[:200]})'
    elif message is None:
        message = f'{type(error).__name__}: {_line(error)}'
    trace = '' if lost or _explain(error)[0] else traceback.format_exc()
    now = time.time()
    extra = dict(timestamp=str(int(now)), py_callstack=trace, trace=trace, time=now, lost=lost)
    content = dict(message=message, errorCode=code, extraInfo=extra)
    Path(os.environ['TORCHELASTIC_ERROR_FILE']).write_text(json.dumps(dict(message=content)))


def _is_users(error: Exception) -> bool:
    if isinstance(error, MMXrayError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, ValueError) and Path(frames[-1].filename).is_relative_to(REPO / 'projects'):
        return True
    if isinstance(error, TypeError) and '__init__() got an unexpected keyword' in str(error):
        return 'mmengine' in Path(frames[-1].filename).parts  # mmengine builds the classes of a config
    return isinstance(error, KeyError) and 'registry' in str(error)


def _line(error: Exception) -> str:
    """Return an error's message as one line; for an error from a loader worker, its last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if 'in DataLoader worker process' in lines[0]:
        return lines[-1].removeprefix(f'{type(error).__module__}.{type(error).__name__}: ')
    return ' '.join(lines)
