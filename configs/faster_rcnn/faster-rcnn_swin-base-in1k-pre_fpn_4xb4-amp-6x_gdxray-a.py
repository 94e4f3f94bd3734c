# Faster R-CNN on GDXray castings, Swin-B from ImageNet, protocol A: frames at random (paper Table 3).
# Command: tools/dist_train.sh <this file> 4
# Cost: 617 images / 16 = 39 iterations an epoch, 2,800 in 72 epochs.
_base_ = [
    '../_base_/models/faster-rcnn_swin-base_fpn.py',
    '../_base_/datasets/gdxray-a_detection.py',
    '../_base_/schedules/adamw-amp-6x.py',
]
model = _base_.xray_heads
