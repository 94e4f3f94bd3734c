"""ConvNeXt as a detector's backbone; loads weights of mmpretrain and of Meta's repositories."""

import re
from collections.abc import Sequence

import torch
from mmpretrain.models import ConvNeXt
from mmpretrain.registry import MODELS

# Names in a block of github.com/facebookresearch/ConvNeXt and /dinov3 -> names in mmpretrain.
_IN_A_BLOCK = {
    'dwconv': 'depthwise_conv',
    'pwconv1': 'pointwise_conv1',
    'pwconv2': 'pointwise_conv2',
}
_BLOCK = re.compile(rf'(stages\.\d+\.\d+\.)({"|".join(_IN_A_BLOCK)})(\..+)')
# DINOv3 stores its last norm twice: as `norm` and as `norms.3`.
_LAST_NORM = re.compile(r'norms?(?:\.3)?\.(weight|bias)')


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the tensors of a ConvNeXt of Meta's repositories to mmpretrain's names; others stay.

    Args:
        state: Tensors by name, without a prefix.
    """
    renamed = {}
    for name, tensor in state.items():
        block, last = _BLOCK.fullmatch(name), _LAST_NORM.fullmatch(name)
        if block:
            name = f'{block[1]}{_IN_A_BLOCK[block[2]]}{block[3]}'
        elif last:
            name = f'norm3.{last[1]}'
        renamed[name] = tensor
    return renamed


@MODELS.register_module()
class DetectorConvNeXt(ConvNeXt):
    """mmpretrain's ConvNeXt that returns the map of every stage, for an FPN.

    It loads the files of mmpretrain and those of Meta: ConvNeXt (Liu et al., arXiv:2201.03545) and DINOv3
    (arXiv:2508.10104). The user must download DINOv3's weights, since their licence forbids redistribution.
    The norms of the first three stages exist only in a detector and start as identities.

    Args:
        out_indices: Stages whose maps are returned, at strides 4, 8, 16 and 32.
        init_cfg: Initial weights; None for ConvNeXt's own random weights.
        **kwargs: Arguments of `mmpretrain.models.ConvNeXt` except `gap_before_final_norm`.
    """

    def __init__(self, out_indices: Sequence[int] = (0, 1, 2, 3), init_cfg: dict | None = None, **kwargs):
        own = dict(init_cfg=init_cfg) if init_cfg else {}
        super().__init__(out_indices=tuple(out_indices), gap_before_final_norm=False, **own, **kwargs)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        mine = {name.removeprefix(prefix): name for name in list(state_dict) if name.startswith(prefix)}
        tensors = rename({short: state_dict.pop(name) for short, name in mine.items()})
        state_dict.update({f'{prefix}{short}': tensor for short, tensor in tensors.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode: bool = True) -> 'DetectorConvNeXt':
        """Set the mode and return the module; the parent's method returns None."""
        super().train(mode)
        return self
