"""Shuffling of a packed store behind a URL by blocks, so that each block is fetched once an epoch."""

from collections.abc import Iterator

import numpy as np
from mmengine.dataset import DefaultSampler
from mmengine.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class XrayBlockSampler(DefaultSampler):
    """Shuffle so that each block of a store is fetched once an epoch, or only once if the disk can hold all.

    The blocks are shuffled, then the images within each group of `blocks` blocks. Each rank reads different
    blocks. The order depends only on seed and epoch, so that a resumed epoch continues in the same order.
    Other data sets are shuffled by `DefaultSampler`.

    Args:
        dataset: `XrayImages` of a packed store, or any other data set.
        blocks: Blocks per group: with 16 blocks of 64 images, a batch is drawn from 1,024 images.
        **kwargs: Arguments of `DefaultSampler`.
    """

    def __init__(self, dataset, blocks: int = 16, **kwargs):
        super().__init__(dataset, **kwargs)
        if blocks < 1:
            raise ValueError(f'XrayBlockSampler: blocks={blocks}, expected at least 1')
        self.blocks = blocks

    def __iter__(self) -> Iterator[int]:
        """Iterate over the indices of this rank."""
        starts = getattr(getattr(self.dataset, 'data_list', None), 'block_starts', None)
        if not self.shuffle or starts is None:
            yield from super().__iter__()
            return
        order = block_order(starts(), len(self.dataset), self.blocks, (self.seed, self.epoch))
        order = np.resize(order, self.total_size)  # repeats the first images if the ranks need a few more
        yield from np.array_split(order, self.world_size)[self.rank].tolist()


def block_order(starts: np.ndarray, count: int, mixed: int, seed: tuple[int, ...]) -> np.ndarray:
    """Shuffle blocks, and then the images within each group of blocks.

    Args:
        starts: first image of each block, ascending.
        count: number of images.
        mixed: number of blocks per group.
        seed: seed of the order.

    Returns:
        (count,) int64, each image once.
    """
    rng = np.random.default_rng(seed)
    blocks = np.split(np.arange(count), starts[1:])
    shuffled = [blocks[k] for k in rng.permutation(len(blocks))]
    groups = [np.concatenate(shuffled[k : k + mixed]) for k in range(0, len(shuffled), mixed)]
    return np.concatenate([rng.permutation(group) for group in groups])
