# Faster R-CNN at native size, EfficientNet-Lite0 from ImageNet, on GDXray welds, fold 0 of three.
# Command: python tools/train.py <this file>
# Cost: 40 tiles / 4 = 10 iterations an epoch, 1,000 in 100 epochs.
_base_ = [
    '../_base_/models/faster-rcnn_lite0-native_fpn.py',
    '../_base_/datasets/welds-0_native_detection.py',
    '../_base_/schedules/native-100e.py',
]
model = _base_.xray_heads
