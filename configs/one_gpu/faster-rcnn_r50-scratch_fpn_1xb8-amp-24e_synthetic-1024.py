# Faster R-CNN, ResNet-50 without pretraining, on generated radiographs of 1024 px: full size on one GPU.
# Command: python tools/train.py <this file>
# Cost: 358 images / 8 = 45 iterations an epoch, 1,080 in 24 epochs, a sixth of the full recipe's.
_base_ = [
    '../_base_/models/faster-rcnn_r50_fpn.py',
    '../_base_/datasets/synthetic-1024_detection.py',
    '../_base_/schedules/adamw-amp-24e.py',
]
model = dict(backbone=dict(init_cfg=None), **_base_.xray_heads)
