"""Distillation of detectors with a verified teacher."""

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
    """Distil the FPN of a frozen teacher into a student; both are mmdet detectors.

    There are three differences to mmrazor's class. The teacher gets its weights from `init_cfg` like every
    module, so that `VerifiedLoadHook` checks them. All weights must come from the file, whereas mmrazor
    silently loads only the matching ones. The teacher is always in evaluation mode, whereas mmrazor sets only
    its batch norm and keeps Swin's drop path active.

    Args:
        teacher: Config of the teacher, as a path below the repository's root, or its model config. The
            `init_cfg` of its backbone is ignored.
        teacher_ckpt: Checkpoint of the teacher.
        **kwargs: Arguments of mmrazor's class: `architecture` (the student's model config) and `distiller`.

    Raises:
        ConfigError: The teacher's config does not exist.
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
        """Initialise the student and the connectors, and load the teacher.

        Raises:
            HandoverError: A tensor of the teacher differs from its checkpoint.
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
        """Set the mode of the student and the connectors; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()


def model_of(teacher: str | dict) -> dict:
    """Return a teacher's model config, given as such or as a config's path below the repository's root."""
    return load_config(REPO / teacher).model if isinstance(teacher, str) else teacher
