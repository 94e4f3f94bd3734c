"""Random draws that depend on seed, epoch and index alone, not on the state of a worker."""

import hashlib
import itertools
import os
import random
import signal
import threading

import numpy as np
import torch


def seed_generators(*place) -> None:
    """Seed Python's, NumPy's and PyTorch's generators from a place in the run.

    Takes 11 µs. `torch.manual_seed` would take a hundred times as long and, where CUDA is not in use, put a
    call on a list that only grows.

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
    """A dataset whose random draws depend on seed, epoch and index alone, whichever worker makes them.

    Indices are pairs (epoch, index), so that persistent workers learn the epoch too. The views of a sample
    are drawn one after the other, so each has its own place in the sample's stream. Everything else is
    passed on to the dataset.

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
        """Return the dataset's own attribute; its own are not there yet while a worker unpickles it."""
        if name in ('dataset', 'seed'):
            raise AttributeError(name)
        return getattr(self.dataset, name)


def leaf_datasets(dataset) -> list:
    """Return the data sets below their wrappers: seeded, repeated, concatenated."""
    if 'dataset' in vars(dataset):
        return leaf_datasets(dataset.dataset)
    if 'datasets' in vars(dataset):
        return [leaf for part in dataset.datasets for leaf in leaf_datasets(part)]
    return [dataset]


class SeededBatches:
    """The batches of an epoch from `first` on, each index as a pair (epoch, index).

    The sampler runs from its beginning, without loading, so that what it does between the batches (its
    permutation, the buckets of an aspect ratio sampler) is what it did in the undisturbed epoch.

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
        """Return the batch sampler's own attribute; its own is not there yet while it is unpickled."""
        if name == 'batches':
            raise AttributeError(name)
        return getattr(self.batches, name)


class _WorkerInit:
    """What a loader's worker does first: its own function, then to heed SIGTERM of its parent alone.

    A scheduler sends SIGTERM to all processes of a job; a worker that dies of it would take the run with it
    before the checkpoint is written. The parent ends its workers by the same signal when it exits, and waits;
    as in PyTorch's own workers the end is a success then, for its watch raises an error at any other.
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
