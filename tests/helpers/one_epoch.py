"""Options that cut a small detector's recipe down to one epoch of a drawn data set, in seconds."""

from pathlib import Path

SPLITS = ('train', 'val', 'test')


def one_epoch(root: Path) -> list[str]:
    """Overrides of `configs/small/faster-rcnn_*` for `root`, which `tiny_coco` drew."""
    return [
        *(f'{split}_dataloader.dataset.data_root={root}' for split in SPLITS),
        *(f'{split}_dataloader.num_workers=0' for split in SPLITS),
        *(f'{split}_dataloader.persistent_workers=False' for split in SPLITS),
        *(f'{split}_evaluator.ann_file={root}/{split}.json' for split in SPLITS[1:]),
        'train_cfg.max_epochs=1',
        'default_hooks.logger.interval=1',
    ]
