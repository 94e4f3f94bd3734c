# Faster R-CNN at native size, EfficientNet-Lite0 from ImageNet, on GDXray castings, protocol A.
# Command: python tools/train.py <this file>
# Cost: 617 images / 4 = 155 iterations an epoch, 2,170 in 14 epochs.
_base_ = [
    '../_base_/models/faster-rcnn_lite0-native_fpn.py',
    '../_base_/datasets/gdxray-a_crops_detection.py',
    '../_base_/schedules/native-14e.py',
]
model = _base_.xray_heads
