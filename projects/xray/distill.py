"""Distillation of detectors: the teacher proven to be its checkpoint, the student a plain detector again."""

from copy import deepcopy

from mmengine.registry import MODELS
from mmengine.runner.checkpoint import CheckpointLoader

from projects import REPO
from projects.config.configs import load_config

from . import compat  # noqa: F401 (before mmrazor: it makes the import possible)
from .handover import HandoverError, compare

from mmrazor.models.algorithms import FpnTeacherDistill  # isort: skip # noqa: E402


@MODELS.register_module()
class XrayDistill(FpnTeacherDistill):
    """Distil the FPN of a frozen teacher into a student, both mmdet detectors.

    As mmrazor's class, except for three things: the teacher gets its weights where every module gets them, by
    `init_cfg`, so that `VerifiedLoadHook` sees them; all of them must be the file's, as mmrazor loads what
    fits and says nothing of the rest; and the teacher never trains, where mmrazor puts its batch norm alone
    into evaluation and leaves Swin's drop path at work.

    Args:
        teacher: Its config, as a path below the repository's root, or its model config; what its parts start
            from is left out.
        teacher_ckpt: Its checkpoint.
        **kwargs: Those of mmrazor's class: `architecture` (the student's model config) and `distiller`.

    Raises:
        ConfigError: No such config.
    """

    def __init__(self, teacher: str | dict, teacher_ckpt: str, **kwargs):
        teacher = deepcopy(model_of(teacher))
        teacher['backbone']['init_cfg'] = None
        teacher['init_cfg'] = dict(type='Pretrained', checkpoint=teacher_ckpt)
        super().__init__(teacher=teacher, teacher_ckpt=None, **kwargs)
        self.teacher_ckpt = teacher_ckpt
        self.teacher.eval()
        self._register_load_state_dict_pre_hook(self._keep_teacher)

    def _keep_teacher(self, state: dict, prefix: str, *args) -> None:
        """Add this model's teacher to a checkpoint that has none, so that resuming and testing load it."""
        for key, tensor in self.teacher.state_dict().items():
            state.setdefault(f'{prefix}teacher.{key}', tensor)

    def init_weights(self) -> None:
        """Initialise student and connectors, load the teacher.

        Raises:
            HandoverError: Part of the teacher did not get its checkpoint's weights.
        """
        super().init_weights()
        content = CheckpointLoader.load_checkpoint(self.teacher_ckpt, map_location='cpu', logger='silent')
        found = compare(self.teacher, content.get('state_dict', content))
        wrong = found.missing + found.unexpected + found.mismatched + found.different
        if wrong:
            raise HandoverError(
                f'{self.teacher_ckpt}: {len(wrong)} tensors are not those of the teacher '
                f'({", ".join(wrong[:3])}), expected all {len(found.matched) + len(wrong)}; '
                "name the checkpoint of the teacher's config"
            )

    def train(self, mode: bool = True) -> None:
        """Train the student and the connectors; the teacher stays in evaluation."""
        super().train(mode)
        self.teacher.eval()


def model_of(teacher: str | dict) -> dict:
    """Return the model config of a teacher that is named by its config's path below the repository's root."""
    return load_config(REPO / teacher).model if isinstance(teacher, str) else teacher
