# Faster R-CNN, half-width ResNet-18 without pretraining, on GDXray castings, protocol B: for two CPU cores.
# Command: python tools/train.py <this file>
_base_ = [
    '../_base_/models/faster-rcnn_r18-narrow_fpn.py',
    '../_base_/datasets/gdxray-b_384_detection.py',
    '../_base_/schedules/small-12e.py',
]
model = _base_.xray_heads
