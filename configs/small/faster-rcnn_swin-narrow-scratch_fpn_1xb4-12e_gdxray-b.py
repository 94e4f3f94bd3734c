# Faster R-CNN, two-stage Swin without pretraining, on GDXray castings, protocol B: for two CPU cores.
# Command: python tools/train.py <this file>
_base_ = [
    '../_base_/models/faster-rcnn_swin-narrow_fpn.py',
    '../_base_/datasets/gdxray-b_384_detection.py',
    '../_base_/schedules/small-swin-12e.py',
]
model = dict(backbone=dict(img_size=384), **_base_.xray_heads)
