"""Data preprocessors: batches of one channel, expanded to three channels on the device."""

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmengine.registry import MODELS
from mmpretrain.models.utils import ClsDataPreprocessor, SelfSupDataPreprocessor

from . import norm


class OneChannelMixin:
    """Passes single-channel images to a stock preprocessor and expands its output to three channels.

    The stock class moves the batch to the device, casts, normalises and pads. The three channels are views of
    one channel (stride 0), so the loader, the workers and the transfer handle a single channel.

    16-bit images are scaled to 8-bit gray levels (65535 / 257 = 255), so that one mean and std fit all
    depths.

    Args:
        mean: A single mean, in 8-bit gray levels.
        std: A single standard deviation, in 8-bit gray levels.
        **kwargs: Arguments of the stock preprocessor.

    Raises:
        ValueError: There is more than one mean or std.
    """

    def __init__(self, mean=(norm.MEAN,), std=(norm.STD,), **kwargs):
        if len(mean) != 1 or len(std) != 1:
            raise ValueError(
                f'{type(self).__name__}: mean={mean}, std={std}, but radiographs have one channel: '
                'give one of each'
            )
        super().__init__(mean=mean, std=std, **kwargs)

    def cast_data(self, data):
        """Move data to the device; 16-bit images become float32 in 8-bit gray levels."""
        data = super().cast_data(data)
        if isinstance(data, torch.Tensor) and data.dtype == torch.uint16:
            return data.float() / 257
        return data

    def forward(self, data: dict, training: bool = False) -> dict:
        """Return the stock output with `inputs` of (N, 3, H, W) float32, or a list of them (views).

        Args:
            data: `inputs` of one channel, uint8, uint16 or float32: (N, 1, H, W), a list of (1, H, W), or a
                list of views (N, 1, H, W); `data_samples` optional.
            training: See the stock preprocessor.

        Raises:
            ValueError: Images have more than one channel.
        """
        out = super().forward(data, training)
        inputs = out['inputs']
        out['inputs'] = [_expand(view) for view in inputs] if isinstance(inputs, list) else _expand(inputs)
        return out


def _expand(images: torch.Tensor) -> torch.Tensor:
    """Expand (N, 1, H, W) to (N, 3, H, W) without a copy."""
    if images.shape[1] != 1:
        raise ValueError(
            f'images of {images.shape[1]} channels reached the preprocessor, expected 1; load them with '
            'LoadXray'
        )
    return images.expand(-1, 3, -1, -1)


@MODELS.register_module()
class XraySelfSupDataPreprocessor(OneChannelMixin, SelfSupDataPreprocessor):
    """For self-supervised pretraining: a batch of images or a list of views."""


@MODELS.register_module()
class XrayClsDataPreprocessor(OneChannelMixin, ClsDataPreprocessor):
    """For image-level classification."""


@MODELS.register_module()
class XrayDetDataPreprocessor(OneChannelMixin, DetDataPreprocessor):
    """For detection: pads images of different sizes to a common size."""
