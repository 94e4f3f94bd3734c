"""Pace of a training: the loader's share of the time in the log, and a progress bar."""

import sys
from collections import deque

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm


@HOOKS.register_module()
class PaceHook(Hook):
    """Logs the loader's share of the time, and shows a progress bar on a terminal.

    The scalar `data_share` is the share of the last 100 iterations' time spent waiting for data, in [0, 1].
    The bar is printed to stderr if that is a terminal. Log lines are printed above the bar, and log files
    contain plain lines.
    """

    priority = 'LOW'  # after IterTimerHook, which measures the times

    def __init__(self):
        self.times = deque(maxlen=100)
        self.bar = None

    def before_train_epoch(self, runner) -> None:
        """Start a bar for the epoch."""
        if sys.stderr.isatty() and is_main_process():
            epoch = f'epoch {runner.epoch + 1}/{runner.max_epochs}'
            loader = runner.train_dataloader
            done = getattr(loader.batch_sampler, 'first', 0)  # of a resumed epoch
            self.bar = tqdm(total=len(loader), initial=done, desc=epoch, unit='it', leave=False)
            self.above = logging_redirect_tqdm([runner.logger])
            self.above.__enter__()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Update the share and the bar."""
        hub = runner.message_hub
        self.times.append([hub.get_scalar(f'train/{name}').current() for name in ('data_time', 'time')])
        waited, total = np.sum(self.times, axis=0)
        hub.update_scalar('train/data_share', waited / total)
        if self.bar is not None:
            self.bar.update()

    def after_train_epoch(self, runner) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.above.__exit__(None, None, None)
            self.bar.close()
            self.bar = None
