"""What the pinned libraries need to run together: every repair, with its reason and its end.

Importing this file applies the repairs; configs do so through `custom_imports` and the tools do so before
they read a config. Each function names the symptom it removes and the version that makes it obsolete
(pins: pyproject.toml); `tests/xray/test_compat.py` holds a test per repair that fails without it.
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
    """A checkpoint cannot be read, or carries more than tensors and plain values; one line."""


def repair_collate_fn() -> None:
    """Keep config bookkeeping out of the arguments of `collate_fn`.

    Reason: a `pkg::` base marks `collate_fn=dict(type='default_collate')` with `_scope_`, and `_delete_=True`
    stays in the resolved config where the base has no such key; mmengine passes both on as arguments.
    Symptom: `default_collate() got an unexpected keyword argument '_scope_'` (or `'_delete_'`).
    Obsolete: when `Runner.build_dataloader` drops them itself (onedl-mmengine 0.10.12 does not).
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
    """Keep messages of the level DEBUG from being printed.

    Reason: `print_log` without a logger prints whatever the level is.
    Symptom: `Could not import OneDL. Skipping OneDL datasets.` in the output of every tool, though nobody
    asked for OneDL.
    Obsolete: when `print_log` minds the level without a logger (onedl-mmengine 0.10.12 does not).
    """
    say = mmengine.logging.print_log

    @functools.wraps(say)
    def print_log(msg, logger=None, level=logging.INFO):
        if logger is not None or level >= logging.INFO:
            say(msg, logger, level)

    mmengine.logging.print_log = print_log


def repair_swin_resize() -> None:
    """Give SciPy back `interp2d`, with which mmpretrain resizes Swin's relative position tables.

    Reason: SciPy 1.14 removed it. `RectBivariateSpline` on the transposed grid is what SciPy's
    migration guide names for regular grids: the same FITPACK spline, so the numbers are those of before.
    Symptom: `NotImplementedError: interp2d has been removed` when a window size changes on load.
    Obsolete: when mmpretrain's `resize_relative_position_bias_table` stops calling it (1.3.6 calls it).
    """

    def interp2d(x, y, z, kind='linear'):
        degree = {'linear': 1, 'cubic': 3, 'quintic': 5}[kind]
        spline = scipy.interpolate.RectBivariateSpline(x, y, np.asarray(z).T, kx=degree, ky=degree)
        return lambda x_new, y_new: spline(x_new, y_new).T

    scipy.interpolate.interp2d = interp2d


def repair_swin_freezing() -> None:
    """Freeze Swin's stages when it is built, not first when `.train()` is called.

    Reason: DDP decides which gradients to wait for when it wraps the model, which is before `.train()`.
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
    """Load tensors and plain values only, whichever library loads.

    Reason: mmengine tries `weights_only=True` and on failure silently loads the file without it, which
    executes code that the file carries; and it allows `getattr`, of which one use is needed. Here the switch
    that PyTorch offers is set for the whole process (worker and child processes too), and the few classes in
    mmengine's checkpoints are allowed, under the names of NumPy 1 too.
    Symptom: a hostile checkpoint runs code; a torn one ends in a page of zip or pickle internals.
    Obsolete: when mmengine's `_safe_torch_load` has no unsafe second try (0.10.12 has).
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
                if 'weights_only' in reason:  # it goes on to advise against it
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
                        'work_dirs/STEM/epoch_N.pth; name one, or where a copy was cut short the epoch before'
                    )
                raise CheckpointError(f'{file}: {text}') from None

        return wrapper

    @explain
    def load_file(file, map_location=None):
        return torch.load(file, map_location=map_location, weights_only=True)

    mmengine_checkpoint._safe_torch_load = load_file
    mmengine_checkpoint.load_url = explain(mmengine_checkpoint.load_url)


def repair_checkpoint_writing() -> None:
    """Write files under another name and rename them when they are whole and on disk.

    Reason: mmengine's LocalBackend writes in place.
    Symptom: a kill during the write leaves half a checkpoint under the name of a whole one.
    Obsolete: when `LocalBackend.put` does so itself (0.10.12 does not).
    """

    def put(self, obj, filepath):
        write_whole(Path(filepath), obj, durable=True)

    LocalBackend.put = put


def repair_epoch_resume() -> None:
    """Count the batches of an epoch from the one with which a resumed run goes on.

    Reason: mmengine's epoch loop counts from 0, also where the loader's batch sampler starts later
    (`seeding.SeededBatches.first`).
    Symptom: log lines and "last batch of the epoch" are off in the epoch in which a run is resumed.
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
    """Make `import mmrazor` possible; nothing of mmrazor is imported here.

    Reason: mmrazor 1.0.0 is unmaintained. Its `__init__` holds nothing but version checks, which refuse
    mmcv above 2.1.0: the package is registered without running it. Its quantisation structures import names
    that PyTorch has removed: an empty stand-in takes their place (quantisation is not used).
    Symptom: `MMCV==2.3.6 is used but incompatible`; `ImportError` from `torch.ao.quantization`.
    Obsolete: with a mmrazor that accepts mmcv 2.3 and torch 2.10 (none is announced).
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
    """Format the text of a config once, and not again for each checkpoint, log and logger.

    Reason: `Config.pretty_text` runs YAPF each time that it is read; a run reads it five times, and once more
    for each checkpoint.
    Symptom: a run begins seconds later, and each checkpoint costs a second of the processor more.
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
    """Keep the interpreter's recursion limit below what the C stack holds.

    Reason: mmrazor's graph modules set it to 2**20 when they are imported, for the whole process.
    Symptom: deeply nested JSON ends the process by a segmentation fault instead of a RecursionError.
    Obsolete: when mmrazor stops doing so (1.0.0 does it in `structures.graph` and in its tracer).
    """
    set_limit = sys.setrecursionlimit

    @functools.wraps(set_limit)
    def setrecursionlimit(limit):
        set_limit(min(limit, 10_000))

    sys.setrecursionlimit = setrecursionlimit


def repair_sync_bn() -> None:
    """Replace synchronised batch norm without CUDA: in the built model, before DDP wraps it.

    Reason: PyTorch's SyncBN needs modules on a GPU. mmengine takes it out of a single process, but not out of
    several ranks. The built model is asked, not the config: SimSiam's neck and predictor have SyncBN by a
    default of mmpretrain's classes. Each rank then has statistics of its own; they are averaged after each
    epoch (`SyncBuffersHook`), else a checkpoint held rank 0's and each rank validated with its own.
    Symptom: `SyncBatchNorm layers only work with GPU modules`.
    Obsolete: when `Runner.wrap_model` minds the device (0.10.12 does not).
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
    """Let MLflow keep runs in the work dir, pictures among them.

    Reason: without `tracking_uri` mmengine names a folder, which MLflow 3 refuses unless a variable allows
    it, and in which other files lie, which it takes for experiments. Pictures get names without an ending,
    from which MLflow tells the format.
    Symptom: `The filesystem tracking backend … is in maintenance mode`; `Malformed experiment 'vis_image'`;
    at the first validation `ValueError: unknown file extension`.
    Obsolete: when mmengine names a database and `*.png` (onedl-mmengine 0.10.12 does not).
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
    """Replace in `cfg` what needs CUDA, and start `gloo` when several ranks are launched without it.

    Reason: mmengine's launcher calls `torch.cuda.set_device`, DDP is given `device_ids=[0]` and
    `AmpOptimWrapper` asserts CUDA. Called by the tools after the config is read and before the Runner is
    built; with CUDA it does nothing. What the built model needs: `repair_sync_bn`.
    Symptom: `Torch not compiled with CUDA` (or `no NVIDIA driver`), `DistributedDataParallel device_ids`,
    `AmpOptimizerWrapper is only available on gpu`.
    Obsolete: when mmengine picks backend and devices by what is there (0.10.12 does not).

    Args:
        cfg: mmengine Config, changed in place.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        One line per substitution, for the tool to print.
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
    """Translate Slurm's and Open MPI's variables into PyTorch's; torchrun sets them itself."""
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
