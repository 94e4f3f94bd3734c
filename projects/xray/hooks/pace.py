"""The loader's share of an iteration's time, in the log."""

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
    """Shows a run's pace: the loader's share of the time in the log, and a progress bar on a terminal.

    The scalar `data_share` is waiting for data over the whole time of the last 100 iterations, in [0, 1]. The
    bar goes to stderr, only where that is a terminal; log lines are printed above it, and log files hold
    plain lines.
    """

    priority = 'LOW'  # after IterTimerHook, whose times it reads

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
