# The line's student alone, without pretraining, on generated radiographs of 1024 px: full size on one GPU.
# Command: python tools/train.py <this file>
_base_ = [
    '../one_gpu/faster-rcnn_r50-scratch_fpn_1xb8-amp-24e_synthetic-1024.py',
    '../_base_/xray_distill.py',
]
model = dict(backbone=dict(depth=18), **_base_.xray_fpn64)
