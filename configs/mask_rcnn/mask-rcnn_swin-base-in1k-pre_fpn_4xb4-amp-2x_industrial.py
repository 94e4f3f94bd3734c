# Mask R-CNN on industrial radiographs, Swin-B from ImageNet: boxes, and the pixels of each flaw.
# Command: tools/dist_train.sh <this file> 4
# Cost: 4,624 images / 16 = 289 iterations an epoch, 6,936 in 24 epochs.
_base_ = [
    '../_base_/models/mask-rcnn_swin-base_fpn.py',
    '../_base_/datasets/industrial_masks_detection.py',
    '../_base_/schedules/adamw-amp-2x.py',
]
model = _base_.xray_heads
