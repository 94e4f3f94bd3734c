# Faster R-CNN on industrial radiographs, ConvNeXt-T from ImageNet: the reference of DINOv3.
# Command: tools/dist_train.sh <this file> 4
# Cost: 4,624 images / 16 = 289 iterations an epoch, 6,936 in 24 epochs.
_base_ = [
    '../_base_/models/faster-rcnn_convnext-tiny_fpn.py',
    '../_base_/datasets/industrial_detection.py',
    '../_base_/schedules/adamw-amp-2x.py',
]
model = _base_.xray_heads
