"""Saving a distilled student as a plain detector, without teacher and connectors."""

from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import save_checkpoint

STUDENT = 'architecture.'


@HOOKS.register_module()
class StudentHook(Hook):
    """Removes the teacher from checkpoints, and writes the student as a plain detector at the end.

    `<work dir>/student.pth` is a checkpoint of the student's own config, for `tools/test.py` and
    `tools/export.py`; it contains neither teacher nor connectors. The run's checkpoints keep the connectors,
    which a resume needs; the teacher comes from its own file.
    """

    priority = 'LOWEST'  # after all other hooks have changed the weights

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Drop the teacher."""
        tensors = checkpoint['state_dict']
        for key in [key for key in tensors if key.startswith('teacher.')]:
            del tensors[key]

    def after_train(self, runner) -> None:
        """Write the student."""
        if not is_main_process():
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        meta = dict(
            epoch=runner.epoch, iter=runner.iter, seed=runner.seed, experiment_name=runner.experiment_name
        )
        path = Path(runner.work_dir) / 'student.pth'
        save_checkpoint(dict(meta=meta, state_dict=student_weights(model)), str(path))
        runner.logger.info('Student, a plain detector: %s', path)


def student_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the student's tensors on the CPU, with the names of its own config."""
    return {
        key.removeprefix(STUDENT): tensor.detach().cpu()
        for key, tensor in model.state_dict().items()
        if key.startswith(STUDENT)
    }
