"""A detector as one plain PyTorch module that can be traced: arrays in, boxes and masks out."""

import copy

import torch
import torchvision
from mmdet.models import CascadeRCNN, FasterRCNN, MaskRCNN
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules import DeltaXYWHBBoxCoder
from torch import nn

from projects.errors import MMXrayError
from projects.line.runtime.masks import THRESHOLD
from projects.xray.preprocessors import XrayDetDataPreprocessor


class UnsupportedDetectorError(MMXrayError, ValueError):
    """The detector has a part that `TraceableDetector` does not reproduce; one line with the remedy."""


class TraceableDetector(nn.Module):
    """Faster, Mask or Cascade R-CNN from gray levels to boxes, as in mmdet's `test_step`, for one input size.

    Tracing turns the module into one graph: normalisation, backbone, FPN, RPN, its NMS, RoIAlign, box head,
    NMS. mmdet's own code cannot be traced whole: it branches on data and loops over image metas. As in mmcv,
    an offset per class or level keeps their boxes apart in NMS. RoIs stay sorted by pyramid level, so that no
    result has to be scattered back. The preprocessor repeats one channel three times; here the first
    convolution is summed over its three channels instead. Masks are rasters over their boxes; the runtime
    pastes them into the radiograph.

    Args:
        detector: An mmdet FasterRCNN or MaskRCNN, or a CascadeRCNN without masks; its backbone is copied, its
            other modules are shared.
        size: Height and width of the input in px, multiples of the preprocessor's `pad_size_divisor`.

    Raises:
        UnsupportedDetectorError: The detector or one of its modules is of another kind.
    """

    def __init__(self, detector: FasterRCNN | MaskRCNN | CascadeRCNN, size: tuple[int, int]):
        super().__init__()
        _check(detector)
        preprocessor = detector.data_preprocessor
        divisor = preprocessor.pad_size_divisor
        if size[0] % divisor or size[1] % divisor:
            raise UnsupportedDetectorError(
                f'input of {size[1]} x {size[0]} px, expected multiples of {divisor}; pad it to them'
            )
        self.size = tuple(size)
        self.mean = float(preprocessor.mean)
        self.std = float(preprocessor.std)
        self.backbone, self.neck = _one_channel(detector.backbone), detector.neck
        self.rpn, self.roi = detector.rpn_head, detector.roi_head
        self.rpn_cfg, self.rcnn_cfg = detector.test_cfg.rpn, detector.test_cfg.rcnn
        self.stages = _stages(self.roi)
        self.classes = self.stages[-1][1].num_classes
        self.outputs = ('boxes', 'scores', 'labels', *(['masks'] if self.roi.with_mask else []))
        was_training = self.training
        self.eval()
        with torch.no_grad():
            maps = self.neck(self.backbone(torch.zeros(1, 1, *size)))
        self.train(was_training)
        anchors = self.rpn.prior_generator.grid_priors([m.shape[-2:] for m in maps], device='cpu')
        self.levels = len(anchors)
        for level, grid in enumerate(anchors):
            self.register_buffer(f'anchors_{level}', grid, persistent=False)

    def forward(self, image: torch.Tensor, extent: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Find the defects of one radiograph.

        Args:
            image: (1, 1, H, W) float32, windowed gray levels 0..255; the mean beyond the radiograph.
            extent: (2) float32, height and width in px of the radiograph within `image`; boxes are clipped
                to it.

        Returns:
            boxes (N, 4) float32 x1 y1 x2 y2 in px of `image`, scores (N) float32 and labels (N) int64, best
            first; N is at most `test_cfg.rcnn.max_per_img`. A Mask R-CNN also returns masks (N, r, r)
            float32, probabilities over each box.
        """
        maps = self.neck(self.backbone((image - self.mean) / self.std))
        border = extent.flip(0).repeat(2)
        rois, logits = self._propose(maps, border), None
        for number, (extractor, head) in enumerate(self.stages, 1):
            order, features = self._pool(extractor, maps, rois)
            rois = rois[order]
            own, deltas = head(features)
            logits = own if logits is None else logits[order] + own
            if number < len(self.stages):  # the next stage looks at the boxes of this one
                rois = _decode(head.bbox_coder, rois, deltas, border)
        logits = logits / len(self.stages) if len(self.stages) > 1 else logits
        found = self._detect(rois, logits, deltas, border)
        return (*found, self._masks(maps, found[0], found[2])) if self.roi.with_mask else found

    def _propose(self, maps, border):
        """Return the proposals (N, 4) of the RPN, best first."""
        boxes, scores, offsets = [], [], []
        spread = max(self.size) + 1.0
        for level, (logits, deltas) in enumerate(zip(*self.rpn(maps), strict=True)):
            score = logits.permute(0, 2, 3, 1).reshape(-1).sigmoid()
            delta = deltas.permute(0, 2, 3, 1).reshape(-1, 4)
            anchors = getattr(self, f'anchors_{level}')
            if 0 < self.rpn_cfg.nms_pre < len(anchors):
                score, chosen = score.topk(self.rpn_cfg.nms_pre)
                delta, anchors = delta[chosen], anchors[chosen]
            boxes.append(_decode(self.rpn.bbox_coder, anchors, delta, border))
            scores.append(score)
            offsets.append(torch.full_like(score, level * spread))
        boxes, scores, offsets = torch.cat(boxes), torch.cat(scores), torch.cat(offsets)
        least = self.rpn_cfg.get('min_bbox_size', -1)
        if least >= 0:
            valid = ((boxes[:, 2:] - boxes[:, :2]) > least).all(1).nonzero().squeeze(1)
            boxes, scores, offsets = boxes[valid], scores[valid], offsets[valid]
        kept = torchvision.ops.nms(boxes + offsets[:, None], scores, self.rpn_cfg.nms.iou_threshold)
        return boxes[kept[: self.rpn_cfg.max_per_img]]

    def _pool(self, extractor, maps, rois):
        """Sort RoIs by the level that fits their size; return the order, and the features in that order."""
        layers = extractor.roi_layers
        side = torch.sqrt((rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1]))
        level = torch.floor(torch.log2(side / extractor.finest_scale + 1e-6)).clamp(0, len(layers) - 1)
        ordered, pooled = [], []
        for index, layer in enumerate(layers):
            positions = (level == index).nonzero().squeeze(1)
            own = rois[positions]
            rows = torch.cat([torch.zeros_like(own[:, :1]), own], 1)
            ordered.append(positions)
            pooled.append(
                torchvision.ops.roi_align(
                    maps[index],
                    rows,
                    layer.output_size,
                    layer.spatial_scale,
                    layer.sampling_ratio,
                    layer.aligned,
                )
            )
        return torch.cat(ordered), torch.cat(pooled)

    def _masks(self, maps, boxes, labels):
        """Return probabilities (N, r, r) that a place in a box belongs to its flaw."""
        order, features = self._pool(self.roi.mask_roi_extractor, maps, boxes)
        logits = self.roi.mask_head(features)
        own = labels[order][:, None, None, None].expand(-1, 1, *logits.shape[2:])
        return logits.gather(1, own).squeeze(1).sigmoid()[order.argsort()]

    def _detect(self, rois, logits, deltas, border):
        """Return boxes, scores and labels after the NMS per class."""
        head = self.stages[-1][1]
        scores = logits.softmax(-1)[:, :-1].reshape(-1)
        rois = rois[:, None].expand(-1, 1 if head.reg_class_agnostic else self.classes, -1).reshape(-1, 4)
        boxes = _decode(head.bbox_coder, rois, deltas.reshape(-1, 4), border)
        if head.reg_class_agnostic:
            boxes = boxes[:, None].expand(-1, self.classes, -1).reshape(-1, 4)
        valid = (scores > self.rcnn_cfg.score_thr).nonzero().squeeze(1)
        boxes, scores, labels = boxes[valid], scores[valid], valid % self.classes
        offsets = labels.to(boxes.dtype) * (max(self.size) + 1.0)
        kept = torchvision.ops.nms(boxes + offsets[:, None], scores, self.rcnn_cfg.nms.iou_threshold)
        kept = kept[: self.rcnn_cfg.max_per_img]
        return boxes[kept], scores[kept], labels[kept]


def _stages(roi) -> list[tuple[nn.Module, nn.Module]]:
    """Return RoI extractor and box head of each stage; of the only one, if the detector is no cascade."""
    if isinstance(roi.bbox_head, nn.ModuleList):
        return list(zip(roi.bbox_roi_extractor, roi.bbox_head, strict=True))
    return [(roi.bbox_roi_extractor, roi.bbox_head)]


def _decode(coder: DeltaXYWHBBoxCoder, boxes, deltas, border):
    """Apply deltas (N, 4) to boxes (N, 4) and clip them at the border (w, h, w, h)."""
    decoded = coder.decode(boxes, deltas, max_shape=None)
    return torch.minimum(decoded.clamp(min=0), border)


def _one_channel(backbone: nn.Module) -> nn.Module:
    """Copy a backbone for images whose three channels are equal: w1 x + w2 x + w3 x = (w1 + w2 + w3) x."""
    backbone = copy.deepcopy(backbone)
    stems = [m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3]
    if len(stems) != 1:
        raise UnsupportedDetectorError(
            f'{type(backbone).__name__}: {len(stems)} convolutions of 3 channels, expected one, the first; '
            'use tools/test.py for others'
        )
    stem = stems[0]
    stem.weight = nn.Parameter(stem.weight.detach().sum(1, keepdim=True))
    stem.in_channels = 1
    return backbone


def _check(detector) -> None:
    """Refuse a detector that `TraceableDetector` would reproduce wrongly."""
    rpn, roi = getattr(detector, 'rpn_head', None), getattr(detector, 'roi_head', None)
    known, cascade = type(detector) in (FasterRCNN, MaskRCNN, CascadeRCNN), type(detector) is CascadeRCNN
    wanted = [
        ('a FasterRCNN, MaskRCNN or CascadeRCNN', known),
        ('XrayDetDataPreprocessor', isinstance(detector.data_preprocessor, XrayDetDataPreprocessor)),
    ]
    if known:
        configs = (detector.test_cfg.rpn, detector.test_cfg.rcnn)
        extractors, heads = map(list, zip(*_stages(roi), strict=True))
        coders = (rpn.bbox_coder, *(head.bbox_coder for head in heads))
        of_kind = 'CascadeRoIHead' if cascade else 'StandardRoIHead'
        if cascade:
            wanted += [
                ('one box for all classes in a cascade', all(head.reg_class_agnostic for head in heads)),
                ('a cascade without masks', not roi.with_mask),
            ]
        elif roi.with_mask:
            extractors.append(roi.mask_roi_extractor)
            mask = roi.mask_head
            wanted += [
                ('FCNMaskHead with a mask per class', type(mask) is FCNMaskHead and not mask.class_agnostic),
                (f'mask_thr_binary of {THRESHOLD}', detector.test_cfg.rcnn.mask_thr_binary == THRESHOLD),
                ('a RoI extractor of its own for masks', not roi.share_roi_extractor),
            ]
        wanted += [
            ('RPNHead with sigmoid', type(rpn).__name__ == 'RPNHead' and rpn.use_sigmoid_cls),
            (of_kind, type(roi).__name__ == of_kind and not roi.with_shared_head),
            ('SingleRoIExtractor', all(type(e).__name__ == 'SingleRoIExtractor' for e in extractors)),
            (
                'RoIAlign by average',
                all(layer.pool_mode == 'avg' for e in extractors for layer in e.roi_layers),
            ),
            ('softmax scores', not any(head.custom_cls_channels for head in heads)),
            ('DeltaXYWHBBoxCoder', all(type(c) is DeltaXYWHBBoxCoder for c in coders)),
            ('clip_border of the coders', all(c.clip_border for c in coders)),
            (
                'plain NMS with iou_threshold alone',
                all(c.nms.type == 'nms' and set(c.nms) == {'type', 'iou_threshold'} for c in configs),
            ),
            ('max_per_img of at least 1', all(c.max_per_img > 0 for c in configs)),
            ('pad_value of 0', detector.data_preprocessor.pad_value == 0),
        ]
    missing = [name for name, there in wanted if not there]
    if missing:
        raise UnsupportedDetectorError(
            f'{type(detector).__name__}: expected {", ".join(missing)}; only Faster, Mask and Cascade R-CNN '
            'of this kind are exported: use tools/test.py for others'
        )
