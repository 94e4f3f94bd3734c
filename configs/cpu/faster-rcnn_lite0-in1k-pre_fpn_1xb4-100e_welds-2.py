# Faster R-CNN at native size, EfficientNet-Lite0 from ImageNet, on GDXray welds, fold 2 of three.
# Command: python tools/train.py <this file>
# Cost: 29 tiles / 4 = 8 iterations an epoch, 800 in 100 epochs.
_base_ = [
    '../_base_/models/faster-rcnn_lite0-native_fpn.py',
    '../_base_/datasets/welds-2_native_detection.py',
    '../_base_/schedules/native-100e.py',
]
model = _base_.xray_heads
