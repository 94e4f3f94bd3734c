"""Necks: standardised features for the linear probe, and a pyramid from the single map of a ViT."""

import torch
from mmdet.registry import MODELS as DETECTOR_MODELS
from mmengine.model import BaseModule
from mmpretrain.models.necks import ClsBatchNormNeck
from mmpretrain.models.utils import LayerNorm2d
from mmpretrain.registry import MODELS
from torch import nn


@MODELS.register_module()
class StandardisedPooling(ClsBatchNormNeck):
    """Global average pooling, then batch normalisation without weights, as in MAE's linear probe.

    Pooled features of a random backbone are much smaller than those of a trained backbone, so the same
    learning rate would hardly train the head on one of them. Source: He et al., arXiv:2111.06377, appendix
    A.1.

    Args:
        input_features: Channels of the last map.
        eps: Added to the variance. MAE's 1e-6 exceeds the variance of a deep random backbone: its features
            would stay so small that the head predicts the most frequent class for every image.
        **kwargs: Those of `ClsBatchNormNeck`.
    """

    def __init__(self, input_features: int, eps: float = 1e-12, **kwargs):
        super().__init__(input_features, eps=eps, **kwargs)

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Pool and standardise maps (N, C, H, W); returns vectors (N, C).

        A last batch with a single image has no variance; it is standardised by the running statistics.
        """
        pooled = [maps.mean((2, 3)) for maps in inputs]
        if not self.training or len(pooled[0]) > 1:
            return super().forward(pooled)
        self.bn.eval()
        try:
            return super().forward(pooled)
        finally:
            self.bn.train()


@DETECTOR_MODELS.register_module()
class SimpleFPN(BaseModule):
    """The feature pyramid of ViTDet: maps of several strides from the last map of a plain ViT.

    With s the stride of the ViT, the strides are s / 4, s / 2, s, 2 s and 4 s; the last map takes every
    second position of the one before. Source: Li et al., arXiv:2203.16527, section 3.

    Args:
        in_channels: Channels of the ViT's map.
        out_channels: Channels of every map of the pyramid.
        init_cfg: Initial weights; None for PyTorch's own.
    """

    def __init__(self, in_channels: int, out_channels: int, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        half, quarter = in_channels // 2, in_channels // 4
        self.scales = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(in_channels, half, 2, stride=2),
                    LayerNorm2d(half),
                    nn.GELU(),
                    nn.ConvTranspose2d(half, quarter, 2, stride=2),
                ),
                nn.ConvTranspose2d(in_channels, half, 2, stride=2),
                nn.Identity(),
                nn.MaxPool2d(2),
            ]
        )
        self.outputs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, bias=False),
                LayerNorm2d(out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                LayerNorm2d(out_channels),
            )
            for channels in (quarter, half, in_channels, in_channels)
        )

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Return five maps (N, out_channels, H, W), the largest first, from the last of `inputs`.

        The map of stride 2 s needs an even height and width of the ViT's map; pad images to multiples of 2 s.
        """
        maps = [output(scale(inputs[-1])) for scale, output in zip(self.scales, self.outputs)]
        return (*maps, maps[-1][:, :, ::2, ::2])
