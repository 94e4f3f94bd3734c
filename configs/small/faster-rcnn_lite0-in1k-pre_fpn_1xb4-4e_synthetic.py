# Faster R-CNN, EfficientNet-Lite0 from ImageNet, on generated radiographs: for two CPU cores.
# Command: python tools/train.py <this file>
_base_ = [
    '../_base_/models/faster-rcnn_lite0_fpn.py',
    '../_base_/datasets/synthetic_detection.py',
    '../_base_/schedules/small-4e.py',
]
model = _base_.xray_heads
