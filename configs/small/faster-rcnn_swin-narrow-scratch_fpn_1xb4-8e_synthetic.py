# Faster R-CNN, two-stage Swin without pretraining, on generated radiographs: for two CPU cores.
# Command: python tools/train.py <this file>
_base_ = [
    '../_base_/models/faster-rcnn_swin-narrow_fpn.py',
    '../_base_/datasets/synthetic_detection.py',
    '../_base_/schedules/small-swin-8e.py',
]
model = dict(backbone=dict(img_size=192), **_base_.xray_heads)
