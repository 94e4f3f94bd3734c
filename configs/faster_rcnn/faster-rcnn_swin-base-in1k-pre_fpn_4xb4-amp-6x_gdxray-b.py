# Faster R-CNN on GDXray castings, Swin-B from ImageNet, protocol B: whole series held out.
# Command: tools/dist_train.sh <this file> 4
# Cost: 571 images / 16 = 36 iterations an epoch, 2,590 in 72 epochs.
_base_ = [
    '../_base_/models/faster-rcnn_swin-base_fpn.py',
    '../_base_/datasets/gdxray-b_detection.py',
    '../_base_/schedules/adamw-amp-6x.py',
]
model = _base_.xray_heads
