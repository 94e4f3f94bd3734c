# Mask R-CNN on industrial radiographs, ResNet-50 from ImageNet: boxes, and the pixels of each flaw.
# Command: tools/dist_train.sh <this file> 4
# Cost: 4,624 images / 16 = 289 iterations an epoch, 6,936 in 24 epochs.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/industrial_masks_detection.py',
    'mmdet::_base_/schedules/schedule_2x.py',
]
model = _base_.xray_heads
