"""Repairs that let the pinned libraries run together, each with reason, symptom and end.

Importing this module applies the repairs. Configs import it through `custom_imports`; tools import it before
they read a config. Each function names its symptom and the version that makes it obsolete (pins:
pyproject.toml). `tests/xray/test_compat.py` has a test for each repair that fails without it.
"""

import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import logging
import os
import pickle
import re
import subprocess
import sys
import types
from pathlib import Path

import mmengine.logging
import mmengine.runner.checkpoint as mmengine_checkpoint
import numpy as np
import scipy.interpolate
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.utils import digit_version
from mmengine.visualization import MLflowVisBackend
from torch.nn.modules.batchnorm import _BatchNorm

from projects.errors import MMXrayError
from projects.radiograph.files import write_whole


class CheckpointError(MMXrayError, RuntimeError):
    """A checkpoint cannot be read, or contains more than tensors and plain values; one line."""


def repair_collate_fn() -> None:
    """Remove config bookkeeping from the arguments of `collate_fn`.

    Reason: a `pkg::` base marks `collate_fn=dict(type='default_collate')` with `_scope_`, and `_delete_=True`
    stays in the resolved config if the base has no such key. mmengine passes both as arguments.
    Symptom: `default_collate() got an unexpected keyword argument '_scope_'` (or `'_delete_'`).
    Obsolete: when `Runner.build_dataloader` removes these keys (onedl-mmengine 0.10.12 does not).
    """
    build = Runner.build_dataloader

    @functools.wraps(build)
    def build_dataloader(dataloader, *args, **kwargs):
        if isinstance(dataloader, dict) and isinstance(dataloader.get('collate_fn'), dict):
            collate = {k: v for k, v in dataloader['collate_fn'].items() if k not in ('_scope_', '_delete_')}
            dataloader = {**dataloader, 'collate_fn': collate}
        return build(dataloader, *args, **kwargs)

    Runner.build_dataloader = staticmethod(build_dataloader)


def repair_debug_messages() -> None:
    """Prevent `print_log` from printing DEBUG messages.

    Reason: without a logger, `print_log` prints messages of every level.
    Symptom: `Could not import OneDL. Skipping OneDL datasets.` in the output of every tool.
    Obsolete: when `print_log` respects the level without a logger (onedl-mmengine 0.10.12 does not).
    """
    say = mmengine.logging.print_log

    @functools.wraps(say)
    def print_log(msg, logger=None, level=logging.INFO):
        if logger is not None or level >= logging.INFO:
            say(msg, logger, level)

    mmengine.logging.print_log = print_log


def repair_swin_resize() -> None:
    """Restore SciPy's `interp2d`, which mmpretrain uses to resize Swin's relative position tables.

    Reason: SciPy 1.14 removed `interp2d`. SciPy's migration guide recommends `RectBivariateSpline` on the
    transposed grid for regular grids. It is the same FITPACK spline and gives the same numbers.
    Symptom: `NotImplementedError: interp2d has been removed` when a window size changes on load.
    Obsolete: when mmpretrain's `resize_relative_position_bias_table` no longer calls `interp2d` (1.3.6 does).
    """

    def interp2d(x, y, z, kind='linear'):
        degree = {'linear': 1, 'cubic': 3, 'quintic': 5}[kind]
        spline = scipy.interpolate.RectBivariateSpline(x, y, np.asarray(z).T, kx=degree, ky=degree)
        return lambda x_new, y_new: spline(x_new, y_new).T

    scipy.interpolate.interp2d = interp2d


def repair_swin_freezing() -> None:
    """Freeze Swin's stages in the constructor instead of in `.train()`.

    Reason: DDP chooses the gradients to wait for when it wraps the model, before `.train()` is called.
    Symptom: `Expected to have finished reduction in the prior iteration` in the second distributed step.
    Obsolete: when `mmpretrain.SwinTransformer.__init__` freezes (1.3.6 does not).
    """
    from mmpretrain.models import SwinTransformer

    init = SwinTransformer.__init__

    @functools.wraps(init)
    def __init__(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self._freeze_stages()

    SwinTransformer.__init__ = __init__


def repair_checkpoint_loading() -> None:
    """Load tensors and plain values only, in every library.

    Reason: mmengine tries `weights_only=True`. On failure it silently loads the file without this option,
    which executes code in the file. It also allows any `getattr`, but checkpoints need only one use. This
    repair sets PyTorch's switch for the process and its child processes, and allows the few classes in
    mmengine's checkpoints, also under their names in NumPy 1.
    Symptom: a hostile checkpoint runs code; a truncated checkpoint gives a page of zip or pickle internals.
    Obsolete: when mmengine's `_safe_torch_load` has no unsafe fallback (0.10.12 has one).
    """
    os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'

    def history_method(owner, name):
        # Pickle writes the statistics of a HistoryBuffer as getattr(HistoryBuffer, 'mean').
        if owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
            return getattr(owner, name)
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL builtins.getattr of {name!r}')

    multiarray = np._core.multiarray
    allowed = [HistoryBuffer, np.ndarray, np.dtype, (history_method, 'builtins.getattr')]
    allowed += [type(np.dtype(code)) for code in '?bBhHiIlLqQefd']
    allowed += [
        (getattr(multiarray, name), f'numpy.{core}.multiarray.{name}')
        for name in ('_reconstruct', 'scalar')
        for core in ('core', '_core')
    ]
    torch.serialization.add_safe_globals(allowed)

    def explain(load):
        @functools.wraps(load)
        def wrapper(file, *args, **kwargs):
            try:
                return load(file, *args, **kwargs)
            except FileNotFoundError:
                raise
            except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
                refused = re.search(r'GLOBAL (\S+)', str(error))
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                if 'weights_only' in reason:  # the message continues with unsafe advice
                    reason = 'it is no archive of tensors'
                if refused:
                    text = (
                        f'refused, it carries {refused[1]}, expected tensors and plain values only; loading '
                        "code would run it: get the 'state_dict' alone, or weights from a source you trust"
                    )
                elif '://' in str(file):
                    cache = f'{torch.hub.get_dir()}/checkpoints'
                    text = (
                        f'not downloaded and read ({reason}), expected a checkpoint; put a copy into {cache}/'
                    )
                else:
                    text = (
                        f'not a readable PyTorch checkpoint ({reason}), expected a whole .pth file such as '
                        'work_dirs/STEM/epoch_N.pth; name one, or the epoch before if the file is truncated'
                    )
                raise CheckpointError(f'{file}: {text}') from None

        return wrapper

    @explain
    def load_file(file, map_location=None):
        return torch.load(file, map_location=map_location, weights_only=True)

    mmengine_checkpoint._safe_torch_load = load_file
    mmengine_checkpoint.load_url = explain(mmengine_checkpoint.load_url)


def repair_checkpoint_writing() -> None:
    """Write files under a temporary name and rename them when they are complete and on disk.

    Reason: mmengine's LocalBackend writes in place.
    Symptom: a kill during the write leaves a truncated checkpoint under its final name.
    Obsolete: when `LocalBackend.put` writes atomically (0.10.12 does not).
    """

    def put(self, obj, filepath):
        write_whole(Path(filepath), obj, durable=True)

    LocalBackend.put = put


def repair_epoch_resume() -> None:
    """Count the batches of a resumed epoch from the first batch that is still to train.

    Reason: mmengine's epoch loop counts from 0 even if the loader's batch sampler starts later
    (`seeding.SeededBatches.first`).
    Symptom: log lines and "last batch of the epoch" are wrong in the first epoch after a resume.
    Obsolete: when `EpochBasedTrainLoop` skips finished batches as `IterBasedTrainLoop` does (0.10.12).
    """

    def run_epoch(self):
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first = getattr(self.dataloader.batch_sampler, 'first', 0)
        for index, data_batch in enumerate(self.dataloader, first):
            self.run_iter(index, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    EpochBasedTrainLoop.run_epoch = run_epoch


def repair_mmrazor_import() -> None:
    """Make `import mmrazor` possible, without importing mmrazor here.

    Reason: mmrazor 1.0.0 is unmaintained. Its `__init__` contains only version checks, which refuse mmcv
    above 2.1.0, so the package is registered without running `__init__`. Its quantisation structures import
    names that PyTorch has removed, so an empty module replaces them (quantisation is not used).
    Symptom: `MMCV==2.3.6 is used but incompatible`; `ImportError` from `torch.ao.quantization`.
    Obsolete: with an mmrazor that accepts mmcv 2.3 and torch 2.10 (none is announced).
    """
    spec = importlib.util.find_spec('mmrazor')
    if spec is None or 'mmrazor' in sys.modules:
        return
    package = importlib.util.module_from_spec(spec)
    package.__version__ = importlib.metadata.version('mmrazor')
    package.digit_version = digit_version
    sys.modules['mmrazor'] = package

    name = 'mmrazor.structures.quantization'
    stand_in = types.ModuleType(name)
    stand_in.__path__ = []
    stand_in.__all__ = []
    stand_in.__spec__ = importlib.machinery.ModuleSpec(name, loader=None, is_package=True)
    stand_in.BackendConfigs = {}
    stand_in.QConfigHandler = type('QConfigHandler', (), {'__doc__': 'Stands in for the removed class.'})
    sys.modules[name] = stand_in


def repair_config_formatting() -> None:
    """Format the text of a config once instead of for each checkpoint, log and logger.

    Reason: `Config.pretty_text` runs YAPF at each access. A run accesses it five times, and once for each
    checkpoint.
    Symptom: a run starts seconds later, and each checkpoint costs an extra second of processor time.
    Obsolete: when mmengine keeps the formatted text (onedl-mmengine 0.10.12 does not).
    """
    formatted = Config.pretty_text.fget
    kept: dict[str, str] = {}

    def pretty_text(self) -> str:
        fields = vars(self)  # setting an attribute would set a key of the config
        wanted, fields['_format_python_code'] = fields['_format_python_code'], False
        try:
            plain = formatted(self)
        finally:
            fields['_format_python_code'] = wanted
        if not wanted:
            return plain
        if plain not in kept:
            if len(kept) == 8:  # a run has one or two
                kept.clear()
            kept[plain] = formatted(self)
        return kept[plain]

    Config.pretty_text = property(pretty_text, doc=Config.pretty_text.__doc__)


def repair_recursion_limit() -> None:
    """Keep the interpreter's recursion limit below the capacity of the C stack.

    Reason: importing mmrazor's graph modules sets the limit to 2**20 for the whole process.
    Symptom: deeply nested JSON causes a segmentation fault instead of a RecursionError.
    Obsolete: when mmrazor no longer sets the limit (1.0.0 does in `structures.graph` and in its tracer).
    """
    set_limit = sys.setrecursionlimit

    @functools.wraps(set_limit)
    def setrecursionlimit(limit):
        set_limit(min(limit, 10_000))

    sys.setrecursionlimit = setrecursionlimit


def repair_sync_bn() -> None:
    """Without CUDA, replace synchronised batch norm in the built model before DDP wraps it.

    Reason: PyTorch's SyncBN needs modules on a GPU. mmengine replaces it in a single process, but not with
    several ranks. The repair searches the built model, not the config, since SimSiam's neck and predictor
    have SyncBN by a default of mmpretrain's classes. Each rank then has its own statistics, which
    `SyncBuffersHook` averages after each epoch. Otherwise a checkpoint would hold the statistics of rank 0,
    and each rank would validate with different ones.
    Symptom: `SyncBatchNorm layers only work with GPU modules`.
    Obsolete: when `Runner.wrap_model` considers the device (0.10.12 does not).
    """
    wrap, register = Runner.wrap_model, Runner.register_hooks

    @functools.wraps(wrap)
    def wrap_model(self, model_wrapper_cfg, model):
        self.reverted_norms = 0
        if self.distributed and not torch.cuda.is_available() and not is_model_wrapper(model):
            kind = _BatchNorm if self.cfg.pop('sync_bn', None) else torch.nn.SyncBatchNorm
            self.reverted_norms = sum(isinstance(module, kind) for module in model.modules())
            model = revert_sync_batchnorm(model)
        if self.reverted_norms:
            self.logger.info(
                'no CUDA: SyncBN -> BN in %d layers, statistics per rank, averaged after each epoch',
                self.reverted_norms,
            )
        return wrap(self, model_wrapper_cfg, model)

    @functools.wraps(register)
    def register_hooks(self, default_hooks=None, custom_hooks=None):
        register(self, default_hooks, custom_hooks)
        if self.reverted_norms:
            self.register_hook({'type': 'SyncBuffersHook'})

    Runner.wrap_model, Runner.register_hooks = wrap_model, register_hooks


def repair_mlflow() -> None:
    """Let MLflow store runs and pictures in the work dir.

    Reason: without `tracking_uri` mmengine passes a folder. MLflow 3 refuses folders unless an environment
    variable allows them, and it takes other files in the folder for experiments. mmengine also names pictures
    without the suffix from which MLflow infers the format.
    Symptom: `The filesystem tracking backend … is in maintenance mode`; `Malformed experiment 'vis_image'`;
    at the first validation `ValueError: unknown file extension`.
    Obsolete: when mmengine passes a database and names `*.png` (onedl-mmengine 0.10.12 does not).
    """
    init, add = MLflowVisBackend._init_env, MLflowVisBackend.add_image

    @functools.wraps(init)
    def init_env(self):
        if self._tracking_uri is None:
            os.environ.setdefault('MLFLOW_ALLOW_FILE_STORE', 'true')
            self._save_dir = str(Path(self._save_dir, 'mlruns'))
        init(self)

    @functools.wraps(add)
    def add_image(self, name, image, step=0, **kwargs):
        add(self, f'{name}/{step}.png', image, step, **kwargs)

    MLflowVisBackend._init_env = init_env
    MLflowVisBackend.add_image = add_image


def adapt_to_cpu(cfg, launcher: str = 'none') -> list[str]:
    """Without CUDA, replace the settings in `cfg` that need it, and start `gloo` for several ranks.

    Reason: mmengine's launcher calls `torch.cuda.set_device`, DDP gets `device_ids=[0]`, and
    `AmpOptimWrapper` asserts CUDA. Tools call this function after reading the config and before building the
    Runner; with CUDA it does nothing. `repair_sync_bn` changes the built model.
    Symptom: `Torch not compiled with CUDA` (or `no NVIDIA driver`), `DistributedDataParallel device_ids`,
    `AmpOptimizerWrapper is only available on gpu`.
    Obsolete: when mmengine chooses backend and devices by the hardware (0.10.12 does not).

    Args:
        cfg: mmengine Config, changed in place.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        One line per substitution, which the tool prints.
    """
    if torch.cuda.is_available():
        return []
    changes = []
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') == 'AmpOptimWrapper':
        wrapper['type'] = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
        changes.append('no CUDA: AmpOptimWrapper -> OptimWrapper (fp32)')
    if launcher == 'none':
        return changes

    _export_ranks(launcher)
    torch.distributed.init_process_group('gloo')
    changes.append(f'no CUDA: nccl -> gloo, {torch.distributed.get_world_size()} ranks')
    cfg.model_wrapper_cfg = {
        'type': 'MMDistributedDataParallel',
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
        **(cfg.get('model_wrapper_cfg') or {}),
        'device_ids': None,
    }
    changes.append('no CUDA: DistributedDataParallel device_ids -> None')
    return changes


def _export_ranks(launcher: str) -> None:
    """Set PyTorch's variables from those of Slurm or Open MPI; torchrun sets them itself."""
    env = os.environ
    if launcher == 'slurm':
        if 'MASTER_ADDR' not in env:
            hosts = subprocess.getoutput(f'scontrol show hostname {env["SLURM_NODELIST"]}')
            env['MASTER_ADDR'] = hosts.splitlines()[0]
        names = ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID')
    elif launcher == 'mpi':
        env.setdefault('MASTER_ADDR', '127.0.0.1')
        names = ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK')
    else:
        return
    env.setdefault('MASTER_PORT', '29500')
    env['RANK'], env['WORLD_SIZE'], env['LOCAL_RANK'] = (env[name] for name in names)


repair_collate_fn()
repair_debug_messages()
repair_swin_resize()
repair_swin_freezing()
repair_checkpoint_loading()
repair_checkpoint_writing()
repair_epoch_resume()
repair_sync_bn()
repair_mlflow()
repair_mmrazor_import()
repair_config_formatting()
repair_recursion_limit()
