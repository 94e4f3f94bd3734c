"""Reproducible random draws of data loaders: they depend on seed, epoch and index alone."""

import hashlib
import itertools
import os
import random
import signal
import threading

import numpy as np
import torch


def seed_generators(*place) -> None:
    """Seed Python's, NumPy's and PyTorch's generators from a position in the run.

    This takes 11 µs. `torch.manual_seed` would take a hundred times as long and, without CUDA in use, append
    a call to a list that is never emptied.

    Args:
        *place: Integers, such as seed, epoch and index of a sample.
    """
    digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
    number = int.from_bytes(digest, 'little')
    random.seed(number)
    np.random.seed(number & 0xFFFFFFFF)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(number)


class SeededDataset:
    """A data set whose random draws depend on seed, epoch and index, not on the worker.

    Indices are pairs (epoch, index), so that persistent workers know the epoch. The views of a sample are
    drawn one after another from the sample's stream. All other attributes are those of the wrapped data set.

    Args:
        dataset: The outermost dataset of a loader.
        seed: Seed of the run.
    """

    def __init__(self, dataset, seed: int):
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.dataset)

    def __getitem__(self, place: tuple[int, int]):
        """Return a sample of an epoch; `place` is (epoch, index)."""
        seed_generators(self.seed, *place)
        return self.dataset[place[1]]

    def __getattr__(self, name: str):
        """Return an attribute of the wrapped data set; this object has none yet while it is unpickled."""
        if name in ('dataset', 'seed'):
            raise AttributeError(name)
        return getattr(self.dataset, name)


def leaf_datasets(dataset) -> list:
    """Return the data sets inside wrappers (seeded, repeated, concatenated)."""
    if 'dataset' in vars(dataset):
        return leaf_datasets(dataset.dataset)
    if 'datasets' in vars(dataset):
        return [leaf for part in dataset.datasets for leaf in leaf_datasets(part)]
    return [dataset]


class SeededBatches:
    """The batches of an epoch starting at `first`, with indices as pairs (epoch, index).

    The sampler always runs from its beginning, without loading the skipped batches. Its state (its
    permutation, the buckets of an aspect ratio sampler) is then the same as in an uninterrupted epoch.

    Args:
        batches: Batch sampler of a loader.
    """

    def __init__(self, batches):
        self.batches = batches
        self.epoch = 0
        self.first = 0

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return len(self.batches)

    def __iter__(self):
        """Yield lists of (epoch, index)."""
        for batch in itertools.islice(self.batches, self.first, None):
            yield [(self.epoch, index) for index in batch]

    def __getattr__(self, name: str):
        """Return an attribute of the batch sampler; this object has none yet while it is unpickled."""
        if name == 'batches':
            raise AttributeError(name)
        return getattr(self.batches, name)


class _WorkerInit:
    """Start-up of a loader's worker: its own init function, then obeying SIGTERM of its parent only.

    A scheduler sends SIGTERM to all processes of a job. If a worker died of it, the run would fail before it
    writes its checkpoint. The parent ends its workers with the same signal when it exits, and waits for them.
    The worker then exits with status 0, like PyTorch's own workers, since PyTorch's watchdog raises an error
    for any other status.
    """

    def __init__(self, function):
        self.function = function

    def __call__(self, worker_id: int) -> None:
        if self.function is not None:
            self.function(worker_id)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=self._wait_for_parent, daemon=True).start()

    @staticmethod
    def _wait_for_parent() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)
