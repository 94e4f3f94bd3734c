"""Benchmark of training steps, the published recipe and ours: images/s, data waits, memory, utilisation.

Each variant trains in a separate process. The variants take turns, so that other load on the machine affects
all of them. Weights are random, since the time of a step does not depend on them.
"""

import multiprocessing
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch.utils.flop_counter import FlopCounterMode

from projects.config.configs import load_config
from projects.report.results import format_table
from projects.runs import running
from projects.xray import compat
from projects.xray.classes import CASTINGS
from projects.xray.datasets import quiet
from projects.xray.hooks.channels_last import to_channels_last

from . import loader
from .errors import BenchmarkError
from .memory import peak_memory
from .published import published_name

VARIANTS = (loader.STOCK, loader.FILES, loader.PACKED)
LOSS_STEPS = 5
"""Number of steps whose losses are compared, with the same batches and initial weights."""
PREFETCHED = 2
"""Batches that a loader's worker prepares in advance, PyTorch's default."""


@dataclass
class Steps:
    """The measurements of a variant's process.

    Attributes:
        variant: one of VARIANTS, or the packed variant's name and its additions (`also`).
        batch: images per step.
        losses: of LOSS_STEPS steps, from the same weights and on the same batches in all variants.
        flops: floating-point operations of a step's matrix products and convolutions, forward and backward;
            counted in the published variant only, 0 in the others.
        matmul: floating-point operations a second of a large matrix product in the step's precision.
        turns: for each turn, the mean seconds of a step, the median seconds of its arithmetic, and the share
            of the time spent waiting for data.
        memory: peak memory in bytes of the device, or on a CPU of the process.
    """

    variant: str
    batch: int
    losses: list[float]
    flops: int
    matmul: float
    turns: list[tuple[float, float, float]]
    memory: int

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.batch / statistics.median(step for step, _, _ in self.turns)

    @property
    def arithmetic(self) -> float:
        """Seconds of a step without waiting for data."""
        return statistics.median(seconds for _, seconds, _ in self.turns)

    @property
    def waiting(self) -> float:
        """Share of the time spent waiting for data."""
        return statistics.median(share for _, _, share in self.turns)

    def against(self, other: 'Steps', column: int = 0) -> float:
        """Median over the turns of the speed ratio to another variant; column 1: of the arithmetic alone."""
        return statistics.median(b[column] / a[column] for a, b in zip(self.turns, other.turns))


def also(variant: str) -> list[str]:
    """Return which of 'amp', 'channels_last' and 'compile' a variant uses besides the packed store."""
    return variant.removeprefix(loader.PACKED).lstrip(', ').split('+') if variant not in VARIANTS else []


def build(
    config: Config, path: Path, variant: str, same_images: bool
) -> tuple[torch.nn.Module, OptimWrapper]:
    """Build the model and optimizer of a variant from seed 0.

    Args:
        config: the config, adapted to this machine.
        path: its file.
        variant: the published variant keeps PyTorch's default memory layout and optimizer loops.
        same_images: whether the published variant gets our preprocessor, so that it can train on our images.
    """
    published = variant == loader.STOCK
    model, settings = config.model.to_dict(), config.optim_wrapper.to_dict()
    preprocessor = config.get('data_preprocessor') or model['data_preprocessor']
    if published:
        settings['optimizer'].pop('fused', None)
        if not same_images:
            recipe = load_config(published_name(path))
            preprocessor = recipe.get('data_preprocessor') or recipe.model.data_preprocessor
    model['data_preprocessor'] = dict(preprocessor)
    model['backbone'].pop('init_cfg', None)
    if config.default_scope == 'mmdet':  # the published data set class labels types, not severities
        model['roi_head']['bbox_head']['num_classes'] = len(CASTINGS)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(ConfigDict(model))  # mmdet reads attributes
        with quiet():  # mutes one to three lines per tensor
            model.init_weights()
        model.to(get_device()).train()
        hooked = any(hook['type'] == 'ChannelsLastHook' for hook in config.custom_hooks)
        if 'channels_last' in also(variant) or (hooked and not published):
            to_channels_last(model)
        if 'amp' in also(variant):
            settings.update(type='AmpOptimWrapper', loss_scale='dynamic')
        if same_images and settings['type'] == 'AmpOptimWrapper':
            # A dynamic scale starts so high that gradients overflow, which would skip the compared updates.
            settings['loss_scale'] = dict(init_scale=2.0**7)
        with quiet():
            optim = build_optim_wrapper(model, settings)
    if 'compile' in also(variant):
        model.train_step = torch.compile(model.train_step)
    return model, optim


def train_step(model, optim, batch) -> float:
    """Train one step and wait for the device; returns the loss."""
    losses = model.train_step(batch, optim_wrapper=optim)
    return losses['loss'].item()  # waits for the device


def matmul_rate(amp: bool, side: int | None = None) -> float:
    """Measure the floating-point operations per second of a large square matrix product, best of 5.

    Args:
        amp: whether to use float16 instead of float32. On a GPU float32 uses TF32 if convolutions use it.
        side: of the matrices; by default 2048, on a GPU 8192, since a product of 2048 is too short to time
            there.
    """
    size = side or (8192 if torch.cuda.is_available() else 2048)
    dtype = torch.float16 if amp else torch.float32
    former, seconds = torch.backends.cuda.matmul.allow_tf32, []
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        a = torch.randn(size, size, device=get_device(), dtype=dtype)
        for _ in range(5):
            start = time.perf_counter()
            (a @ a)[0, 0].item()
            seconds.append(time.perf_counter() - start)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = former
    return 2 * size**3 / min(seconds)


def serve(pipe: Connection, path: str, options: list[str], root: Path, variant: str, pack_size: int) -> None:
    """Train a variant in this process and answer through a pipe: first `Steps` without turns, then turns.

    Args:
        pipe: True starts the work; a number of steps asks for a turn; None asks for the peak memory and ends
            the process.
        path: config.
        options: `--cfg-options` for it.
        root: folder written by `loader.write_radiographs`.
        variant: see `Steps`.
        pack_size: px of the shorter side in the packed store.
    """
    try:
        pipe.recv()
    except EOFError:  # another variant failed
        return
    config = running.read_experiment(path, options)
    compat.adapt_to_cpu(config)
    datasets = loader.datasets(Path(path), config, root, pack_size)
    batch = config.train_dataloader.batch_size

    small = dict(batch_size=min(batch, 16), num_workers=0, persistent_workers=False)
    sequential = dict(type='DefaultSampler', shuffle=False)
    same = loader.build_loader(datasets[loader.FILES], config, sampler=sequential, **small)
    model, optim = build(config, Path(path), variant, same_images=True)
    losses = []
    for number in range(LOSS_STEPS):
        np.random.seed(number)
        losses.append(train_step(model, optim, next(iter(same))))

    model, optim = build(config, Path(path), variant, same_images=False)
    # The data set is repeated, so that no epoch ends within a turn.
    source = variant if variant in VARIANTS else loader.PACKED
    dataset = dict(type='RepeatDataset', times=1000, dataset=datasets[source])
    cuda = torch.cuda.is_available()
    batches = iter(loader.build_loader(dataset, config, pin_memory=cuda))
    flops = 0
    if variant == loader.STOCK:
        with FlopCounterMode(display=False) as counter:
            train_step(model, optim, next(batches))
        flops = counter.get_total_flops()
    train_step(model, optim, next(batches))
    amp = isinstance(optim, AmpOptimWrapper)
    facts = Steps(variant, batch, losses, flops, matmul_rate(amp), [], 0)
    torch.cuda.empty_cache()  # frees memory for the other variants; does nothing without CUDA
    pipe.send(facts)
    # Skips the batches that workers prepared during the turns of other variants.
    ready = max(1, config.train_dataloader.num_workers * PREFETCHED)
    try:
        while steps := pipe.recv():
            for _ in range(ready):
                train_step(model, optim, next(batches))
            pipe.send(turn(model, optim, batches, steps))
            torch.cuda.empty_cache()
    except EOFError:  # another variant failed
        return
    pipe.send(torch.cuda.max_memory_allocated() if cuda else peak_memory())


def turn(model, optim, batches, steps: int) -> tuple[float, float, float]:
    """Train `steps` steps; returns one item of `Steps.turns`."""
    whole, waits = [], []
    for _ in range(steps):
        start = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - start)
        train_step(model, optim, batch)
        whole.append(time.perf_counter() - start)
    arithmetic = statistics.median(a - b for a, b in zip(whole, waits))
    return sum(whole) / steps, arithmetic, sum(waits) / sum(whole)


def measure(
    path: str,
    root: Path,
    pack_size: int = 512,
    turns: int = 3,
    steps: int = 10,
    further: Sequence[str] = (),
    options: list[str] | None = None,
) -> list[Steps]:
    """Train a config's variants in turn.

    Args:
        path: config of a pretraining, a probe or a detector.
        root: folder written by `loader.write_radiographs`, with at least a batch of radiographs.
        pack_size: px of the shorter side in the packed store of pretrainings and probes.
        turns: number of turns of each variant.
        steps: steps per turn.
        further: additional variants, such as 'amp' or 'amp+channels_last'; see `also`.
        options: `--cfg-options`, for all variants.

    Raises:
        BenchmarkError: a variant's process ended early.
    """
    context = multiprocessing.get_context('spawn')
    names = (*VARIANTS, *(f'{loader.PACKED}, {name}' for name in further))
    pipes, processes = {}, []
    try:
        results = {}
        for name in names:
            pipes[name], end = context.Pipe()
            processes.append(
                context.Process(target=serve, args=(end, path, options or [], root, name, pack_size))
            )
            processes[-1].start()
            end.close()
        for name, pipe in pipes.items():
            # One after another: simultaneous warm-ups would disturb each other, and the variants share the
            # store.
            results[name] = ask(pipe, name, True)
        for _ in range(turns):
            for name, pipe in pipes.items():
                results[name].turns.append(ask(pipe, name, steps))
        for name, pipe in pipes.items():
            results[name].memory = ask(pipe, name, None)
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join()
    return list(results.values())


def ask(pipe: Connection, name: str, order: int | None):
    """Give a variant's process an order (see `serve`) and wait for its answer."""
    try:
        pipe.send(order)
        return pipe.recv()
    except (EOFError, OSError):
        raise BenchmarkError(f'{name}: its process ended early; see its message above') from None


def table(measured: dict[str, list[Steps]]) -> str:
    """Return measurements as a Markdown table.

    Args:
        measured: config stem -> result of `measure`.
    """
    header = ['config', 'variant', 'images/s', 'vs stock', 'arithmetic vs stock', 'data_time', 'peak memory']
    header += ['of the matrix-product rate', 'loss differs by']
    rows = []
    for stem, results in measured.items():
        stock = next(r for r in results if r.variant == loader.STOCK)
        for r in results:
            # Relative to the largest loss, since SimSiam's loss starts at zero.
            difference = max(abs(a - b) for a, b in zip(r.losses, stock.losses))
            difference /= max(map(abs, stock.losses))
            rows.append(
                [
                    stem,
                    r.variant,
                    f'{r.rate:.1f}',
                    f'{r.against(stock):.1f}×',
                    f'{r.against(stock, 1):.2f}×',
                    f'{r.waiting:.0%}',
                    f'{r.memory / 1e9:.1f} GB',
                    f'{stock.flops / r.arithmetic / r.matmul:.0%}',
                    f'{difference:.0e}',
                ]
            )
    return format_table(header, rows, markdown=True)
