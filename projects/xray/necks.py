"""Neck of the linear probe: standardised features, so that one learning rate fits all backbones."""

import torch
from mmpretrain.models.necks import ClsBatchNormNeck
from mmpretrain.registry import MODELS


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
