"""A run whose loss is no longer finite, or whose updates are all skipped, ends; its weights are not saved."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from projects.errors import MMXrayError


class LossError(MMXrayError, ValueError):
    """The loss is not finite, or nothing was learnt from it; one line that says where."""


FIT_ITERATIONS = 64
"""Iterations in which a scale of 65,536 is halved to nothing, also where several make up an update."""


def _sums(runner) -> list[float]:
    """Sum of each tensor that is learnt, in float64."""
    learnt = [p.detach().sum(dtype=torch.float64) for p in runner.model.parameters() if p.requires_grad]
    return torch.stack(learnt).tolist() if learnt else []


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a training whose loss is NaN or infinite, and names the radiographs of that batch.

    Mixed precision skips an update whose gradients overflow, whatever the loss, and halves its scale. Where
    it skips each of them, the weights stay as they were and look like any other: such a run comes to no end.
    """

    _start: list[float] | None = None
    _first = 0

    def before_train(self, runner) -> None:
        """Remember the weights, one number for each tensor that is learnt."""
        if hasattr(runner.optim_wrapper, 'loss_scaler'):
            self._start, self._first = _sums(runner), runner.iter

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare the weights with those of the start, at the end or once the scale had time to fit.

        Raises:
            LossError: None of them has changed.
        """
        if self._start is None:
            return
        if self._start != _sums(runner):
            self._start = None  # one change is enough; the next checkpoints need no comparison
        elif runner.iter - self._first >= FIT_ITERATIONS or runner.iter >= runner.max_iters:
            raise LossError(
                f'iteration {runner.iter}: no weight has changed since the start, expected updates; mixed '
                'precision skipped each of them, as gradients overflow: set optim_wrapper.type=OptimWrapper'
            )
        else:
            checkpoint['meta']['unchanged'] = True  # --resume goes on with it; the hand-over refuses it

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Check every iteration; the message hub has read the loss from the device already.

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
