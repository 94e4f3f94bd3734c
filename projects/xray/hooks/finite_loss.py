"""A run whose loss is no longer finite ends, and its weights are not saved."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from projects.errors import MMXrayError


class LossError(MMXrayError, ValueError):
    """The loss is not finite; one line that names the radiographs."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a training whose loss is NaN or infinite, and names the radiographs of that batch."""

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
