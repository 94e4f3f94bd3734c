"""NMS, soft-NMS and RoIAlign for an mmcv without compiled operators (the module `mmcv._ext`).

`projects/__init__.py` lets mmcv import this module. NMS and RoIAlign come from torchvision, whose code has
the same origin as mmcv's. `tests/xray/test_operators.py` compares them with NumPy, and with a detector's
recorded output on the compiled operators. Functions have the names and arguments of `mmcv._ext`.
"""

import numpy as np
import torch
import torchvision

from projects.errors import MMXrayError

__all__ = [
    'nms',
    'softnms',
    'roi_align_forward',
    'roi_align_backward',
    'get_compiler_version',
    'get_compiling_cuda_version',
]
_AVERAGE = 1  # mmcv's pool_mode; 0 takes the maximum


class MissingOperatorError(MMXrayError, RuntimeError):
    """A call of an operator that only a compiled mmcv has; one line."""


def missing(name: str):
    """Return a function that raises an error when called; an error at import would be too early.

    Raises:
        AttributeError: `name` is a special name that Python looks up in modules.
    """
    if name.startswith('__'):
        raise AttributeError(name)

    def refuse(*args, **kwargs):
        raise MissingOperatorError(_refusal(name))

    return refuse


def _refusal(name: str) -> str:
    return (
        f"mmcv's operator {name} is called, expected NMS, soft-NMS or RoIAlign, which need no compiler; "
        "compile mmcv's own operators to use others, see CONTRIBUTING.md"
    )


def get_compiler_version() -> str:
    """Return the origin of the operators, such as 'torchvision 0.25.0'."""
    return f'torchvision {torchvision.__version__}'


def get_compiling_cuda_version() -> str:
    """Return the CUDA version of torch, such as '12.8', or 'not available'."""
    return torch.version.cuda or 'not available'


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int) -> torch.Tensor:
    """Keep boxes that overlap no box of a higher score by more than the threshold.

    Args:
        boxes: (N, 4) x1, y1, x2, y2 in px.
        scores: (N,); of equal scores the first in `boxes` counts as higher. In mmcv's compiled operator the
            order of equal scores depends on the processor's sort.
        iou_threshold: In [0, 1], rounded to float32 as mmcv does: an IoU of 0.6 is not above 0.6.
        offset: Added to the widths and heights, 0 or 1.

    Returns:
        Indices (K,) int64 of the kept boxes, by falling score.
    """
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torch.ops.torchvision.nms(boxes, scores, float(np.float32(iou_threshold)))


def softnms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    dets: torch.Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> torch.Tensor:
    """Lower the scores of boxes by their overlap with better ones (Bodla et al., arXiv:1704.04503).

    Args:
        boxes: (N, 4) x1, y1, x2, y2 in px, on the CPU.
        scores: (N,), on the CPU.
        dets: (N, 5), written: the first K rows become the kept boxes with their new scores.
        iou_threshold: Least overlap at which methods 0 and 1 lower a score.
        sigma: Parameter of method 2.
        min_score: A box with a lower final score is dropped.
        method: 0 naive (the score becomes 0), 1 linear (times 1 - IoU), 2 gaussian (times exp(-IoU²/sigma)).
        offset: Added to the widths and heights, 0 or 1.

    Returns:
        Indices (K,) int64 of the kept boxes, in the order in which they were chosen.
    """
    left, scores = torch.arange(len(boxes)), scores.clone()
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(1)
    kept = []
    while len(left):
        place = int(scores[left].argmax())
        best = left[place]
        dets[len(kept), :4], dets[len(kept), 4] = boxes[best], scores[best]
        kept.append(int(best))
        left = torch.cat((left[:place], left[place + 1 :]))
        top = torch.maximum(boxes[best, :2], boxes[left, :2])
        end = torch.minimum(boxes[best, 2:], boxes[left, 2:])
        inter = (end - top + offset).clamp(min=0).prod(1)
        iou = inter / (areas[best] + areas[left] - inter)
        if method == 2:
            weight = torch.exp(-(iou * iou) / sigma)
        else:
            lowered = 1 - iou if method else torch.zeros_like(iou)
            weight = torch.where(iou >= iou_threshold, lowered, torch.ones_like(iou))
        scores[left] *= weight
        left = left[scores[left] >= min_score]
    return torch.tensor(kept, dtype=torch.int64)


def roi_align_forward(
    input: torch.Tensor,
    rois: torch.Tensor,
    output: torch.Tensor,
    _argmax_y: torch.Tensor,
    _argmax_x: torch.Tensor,
    **pooling,
) -> None:
    """Pool the regions of a feature map into `output` (He et al., arXiv:1703.06870).

    Half precision is computed in float32.

    Args:
        input: (B, C, H, W) feature map.
        rois: (N, 5) index in the batch, x1, y1, x2, y2 in px of the image.
        output: (N, C, bins, bins), written.
        **pooling: `aligned_height` and `aligned_width`, the bins; `spatial_scale`, pixels of the map per
            pixel of the image; `sampling_ratio`, samples per bin in each direction (0 for the number of
            covered pixels); `aligned`, whether pixel centres lie at half indices; `pool_mode`, 1 for the
            average.

    Raises:
        MissingOperatorError: `pool_mode` asks for the maximum.
    """
    scale, ratio, aligned = _of_torchvision(**pooling)
    output.copy_(torch.ops.torchvision.roi_align(_whole(input), _whole(rois), *scale, ratio, aligned))


def roi_align_backward(
    grad_output: torch.Tensor,
    rois: torch.Tensor,
    _argmax_y: torch.Tensor,
    _argmax_x: torch.Tensor,
    grad_input: torch.Tensor,
    **pooling,
) -> None:
    """Write the gradient of `roi_align_forward` with respect to its input.

    On a GPU the order of the sums is not fixed. If deterministic algorithms are enabled, which torchvision
    does not support on a GPU, the sums are computed on the CPU.

    Args:
        grad_output: (N, C, bins, bins).
        rois: (N, 5) index in the batch, x1, y1, x2, y2 in px of the image.
        grad_input: (B, C, H, W), written.
        **pooling: See `roi_align_forward`.
    """
    scale, ratio, aligned = _of_torchvision(**pooling)
    grads, rois = _whole(grad_output), _whole(rois)
    if torch.are_deterministic_algorithms_enabled():
        grads, rois = grads.cpu(), rois.cpu()
    backward = torch.ops.torchvision._roi_align_backward
    grad_input.copy_(backward(grads, rois, *scale, *grad_input.shape, ratio, aligned))


def _of_torchvision(aligned_height, aligned_width, spatial_scale, sampling_ratio, pool_mode, aligned):
    """Return mmcv's arguments in torchvision's grouping: scale and bins, samples, alignment."""
    if pool_mode != _AVERAGE:
        raise MissingOperatorError(_refusal("RoIAlign with pool_mode='max'"))
    return (spatial_scale, aligned_height, aligned_width), sampling_ratio, aligned


def _whole(values: torch.Tensor) -> torch.Tensor:
    """Convert half precision to float32; float32 and float64 stay."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
