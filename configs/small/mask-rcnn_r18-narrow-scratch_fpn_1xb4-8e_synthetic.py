# Mask R-CNN, half-width ResNet-18 without pretraining, on generated radiographs: for two CPU cores.
# Command: python tools/train.py <this file>
_base_ = [
    '../_base_/models/mask-rcnn_r18-narrow_fpn.py',
    '../_base_/datasets/synthetic_masks_detection.py',
    '../_base_/schedules/small-8e.py',
]
model = _base_.xray_heads
