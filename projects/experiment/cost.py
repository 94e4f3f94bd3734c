"""Time and memory of a config on this machine, from a few timed steps."""

import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from projects.benchmark import loader
from projects.benchmark.memory import peak_memory
from projects.benchmark.train import build, train_step
from projects.config import names
from projects.runs import running
from projects.xray import compat
from projects.xray.datasets import quiet

SECONDS = 6.0
MOST = 8  # steps


def now() -> float:
    """Return seconds: wall time with a GPU, else processor time, which other load does not change."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


@dataclass
class Cost:
    """Time and memory of a training.

    Attributes:
        stem: Stem of the config.
        step: Seconds per iteration, including loading.
        iterations: Iterations of the whole training.
        epochs: Epochs of the training.
        inference: Seconds per tested radiograph; 0 without a test.
        tested: Number of radiographs in val and test.
        memory: Peak in bytes, of the GPU or of the process.
    """

    stem: str
    step: float
    iterations: int
    epochs: int
    inference: float
    tested: int
    memory: int

    @property
    def train_seconds(self) -> float:
        """Seconds of the training, without validation."""
        return self.step * self.iterations

    @property
    def test_seconds(self) -> float:
        """Seconds of one pass over val and test."""
        return self.inference * self.tested


def measure(path: Path, threads: int = 1) -> Cost:
    """Time a few training steps from random weights, and for a detector one tested radiograph.

    Args:
        path: Config in `configs/own/`.
        threads: CPU threads of the training; a study gives each run one.
    """
    torch.set_num_threads(threads)
    cfg = running.read_experiment(str(path))
    compat.adapt_to_cpu(cfg)
    with quiet(), DefaultScope.overwrite_default_scope(cfg.default_scope):
        batches = _loader(cfg, 'train_dataloader')
        model, optim = build(cfg, path, loader.FILES, same_images=False)
        times: list[float] = []
        stream = iter(batches)
        while len(times) < 2 or (len(times) < MOST and sum(times) < SECONDS):
            start = now()
            batch = next(stream, None)
            if batch is None:
                stream = iter(batches)
                batch = next(stream)
            train_step(model, optim, batch)
            times.append(now() - start)
        inference, tested = _inference(model, cfg) if cfg.get('test_dataloader') else (0.0, 0)
    epochs = cfg.train_cfg.max_epochs
    iterations = math.ceil(len(batches) / (names.gpus_of(path.stem) or 1)) * epochs
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_memory()
    # Excludes the first step, which allocates memory and plans.
    return Cost(path.stem, statistics.median(times[1:]), iterations, epochs, inference, tested, memory)


def _loader(cfg: Config, key: str) -> torch.utils.data.DataLoader:
    """Build a loader of a config without worker processes."""
    here = dict(num_workers=0, persistent_workers=False, pin_memory=False)
    return Runner.build_dataloader(cfg[key].to_dict() | here, seed=0)


def _inference(model: torch.nn.Module, cfg: Config) -> tuple[float, int]:
    """Seconds per tested radiograph, and the number of radiographs in val and test."""
    loaders = [_loader(cfg, key) for key in ('val_dataloader', 'test_dataloader')]
    model.eval()
    times = []
    stream = iter(loaders[0])
    with torch.no_grad():
        for _ in range(2):
            start = now()
            batch = next(stream, None)
            if batch is None:
                break
            model.test_step(batch)
            times.append(now() - start)
    return times[-1], sum(len(one.dataset) for one in loaders)
