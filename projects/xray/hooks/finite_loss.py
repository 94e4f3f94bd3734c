"""Stopping a training whose loss is not finite or whose updates are all skipped, without saving weights."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from projects.errors import MMXrayError


class LossError(MMXrayError, ValueError):
    """The loss is not finite, or no update changed the weights; one line with the iteration."""


FIT_ITERATIONS = 64
"""Iterations that suffice to halve a loss scale of 65,536 to zero, also with gradient accumulation."""


def _sums(runner) -> list[float]:
    """Sum of each trainable tensor, in float64."""
    learnt = [p.detach().sum(dtype=torch.float64) for p in runner.model.parameters() if p.requires_grad]
    return torch.stack(learnt).tolist() if learnt else []


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a training whose loss is NaN or infinite, and names the radiographs of the batch.

    Mixed precision skips an update whose gradients overflow, even if the loss is finite, and halves its
    scale. If it skips every update, the weights stay initial but look like trained ones. The hook stops such
    a run.
    """

    _start: list[float] | None = None
    _first = 0

    def before_train(self, runner) -> None:
        """Remember the weights as one number per trainable tensor."""
        if hasattr(runner.optim_wrapper, 'loss_scaler'):
            self._start, self._first = _sums(runner), runner.iter

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare the weights with the initial ones, at the end or after FIT_ITERATIONS.

        Raises:
            LossError: No weight has changed.
        """
        if self._start is None:
            return
        if self._start != _sums(runner):
            self._start = None  # one change is enough, so later checkpoints need no comparison
        elif runner.iter - self._first >= FIT_ITERATIONS or runner.iter >= runner.max_iters:
            raise LossError(
                f'iteration {runner.iter}: no weight has changed since the start, expected updates; mixed '
                'precision skipped all, since gradients overflow: set optim_wrapper.type=OptimWrapper'
            )
        else:
            checkpoint['meta']['unchanged'] = True  # --resume accepts the checkpoint, a hand-over refuses it

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Check the loss, which the message hub has already read from the device.

        Raises:
            LossError: A loss is not finite.
        """
        broken = [
            k for k, v in outputs.items() if 'loss' in k and not torch.isfinite(torch.as_tensor(v)).all()
        ]
        if broken:
            files = [sample.get('img_path', '?') for sample in data_batch.get('data_samples') or []]
            raise LossError(
                f'epoch {runner.epoch + 1}, iteration {runner.iter + 1}: {", ".join(broken)} not finite on '
                f'{", ".join(files) or "a batch without file names"}; look at these radiographs and their '
                'annotations, else lower optim_wrapper.optimizer.lr'
            )
