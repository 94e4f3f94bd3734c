"""Detection of collapse in Siamese pretraining: the spread of the projections compared with 1/√d."""

import math
from collections import deque

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.nn.functional import normalize

from projects.errors import MMXrayError

from .drawing import _figure, _pixels, _unwrap


class CollapseError(MMXrayError, ValueError):
    """The representation has collapsed; one line with the remedy."""


def spread(projections: torch.Tensor) -> float:
    """Return the mean standard deviation of L2-normalised projections over a batch.

    The value is about 1/√d if projections are spread over the sphere, and 0 if all images have the same
    projection.
    Source: Chen & He, Exploring Simple Siamese Representation Learning (arXiv:2011.10566), section 4.1.

    Args:
        projections: (N, d) float.
    """
    return float(normalize(projections.float(), dim=1).std(0).mean())


def collapse_level(projections: torch.Tensor) -> float:
    """Return max(0, 1 - √d · spread), in [0, 1]: 0 healthy, 1 collapsed.

    Args:
        projections: (N, d) float.
    """
    return max(0.0, 1 - math.sqrt(projections.shape[1]) * spread(projections))


@HOOKS.register_module()
class CollapseHook(Hook):
    """Watches the projections of a Siamese pretraining and warns when they collapse to one point.

    Near-identical parts make a collapse likely. The hook logs the scalars `projection_std`, its healthy value
    1/√d as `projection_std_healthy`, and `collapse_level` in [0, 1], and draws the curve every epoch. The
    alarm is raised if the average loss of the last measurements is below `loss` and their average level above
    `level`: both views then agree only because all projections are equal. Checkpoints contain the
    measurements, so that a resumed run continues with them.

    Args:
        interval: Iterations between two measurements.
        level: Collapse level above which the alarm is raised.
        loss: Loss below which the alarm is raised; SimSiam's loss is in [-1, 1], and -1 if both views agree.
        window: Number of averaged measurements.
        stop: Raise an error instead of a warning.

    Raises:
        CollapseError: The alarm was raised and `stop` is set.
    """

    priority = 'NORMAL'  # before LoggerHook

    def __init__(
        self, interval: int = 10, level: float = 0.5, loss: float = -0.98, window: int = 5, stop: bool = False
    ):
        self.interval = interval
        self.level = level
        self.loss = loss
        self.stop = stop
        self.recent = deque(maxlen=window)
        self.curve = []
        self.raised = False

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Restore the measurements of the checkpoint's run."""
        info = checkpoint['message_hub']['runtime_info'] if runner._resume else {}
        if 'collapse' in info:
            self.curve = list(info['collapse']['curve'])
            self.recent.extend(info['collapse']['recent'])

    def before_train(self, runner) -> None:
        """Record the projector's output of each iteration, which needs no extra computation."""

        def keep(module, inputs, output):
            self.projections = output[0].detach()

        _unwrap(runner.model).neck.register_forward_hook(keep)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Measure, and raise the alarm.

        Raises:
            CollapseError: See the class.
        """
        if (runner.iter + 1) % self.interval:
            return
        std, healthy = spread(self.projections), self.projections.shape[1] ** -0.5
        level = collapse_level(self.projections)
        hub = runner.message_hub
        hub.update_scalar('train/projection_std', std)
        hub.update_scalar('train/projection_std_healthy', healthy)
        hub.update_scalar('train/collapse_level', level)
        self.curve.append((runner.iter + 1, std, healthy))
        self.recent.append((level, outputs['loss'].item()))
        hub.update_info('collapse', dict(curve=self.curve, recent=list(self.recent)))
        mean_level, mean_loss = np.mean(self.recent, axis=0)
        alarm = len(self.recent) == self.recent.maxlen and mean_level > self.level and mean_loss < self.loss
        if alarm and not self.raised:
            text = (
                f'epoch {runner.epoch + 1}, iteration {runner.iter + 1}: the projections have collapsed, '
                f'level {mean_level:.2f} (alarm above {self.level}), loss {mean_loss:.3f}, spread {std:.4f} '
                f'(healthy {healthy:.4f}); lower the learning rate, check stop-gradient and predictor, or '
                'use views that differ more'
            )
            if self.stop:
                raise CollapseError(text)
            runner.logger.warning(text)
        self.raised = bool(alarm)

    @master_only
    def after_train_epoch(self, runner) -> None:
        """Draw the curve with its healthy line."""
        if not self.curve:
            return
        iterations, stds, healthy = zip(*self.curve)
        figure, axes = _figure(6, 4)
        axes.plot(iterations, stds, color='#0072b2', label='projections')
        axes.axhline(healthy[-1], color='#009e73', linestyle='--', label='healthy, 1/√d')
        axes.axhspan(0, (1 - self.level) * healthy[-1], color='#d55e00', alpha=0.15, label='collapsed')
        axes.set(ylim=(0, 1.25 * max(*stds, healthy[-1])), xlabel='iteration', ylabel='std of a channel')
        axes.set_title(f'Spread of the projections, epoch {runner.epoch + 1}')
        figure.legend(loc='outside lower center', ncols=3)
        runner.visualizer.add_image('collapse', _pixels(figure), runner.epoch + 1)
