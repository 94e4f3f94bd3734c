# Faster R-CNN on crops, EfficientNet-Lite0 from ImageNet, GDXray castings, protocol B, tested at half size.
# Command: python tools/train.py <this file>
# Cost: 571 images / 4 = 143 iterations an epoch, 2,002 in 14 epochs.
_base_ = [
    '../_base_/models/faster-rcnn_lite0-native_fpn.py',
    '../_base_/datasets/gdxray-b_half_detection.py',
    '../_base_/schedules/native-14e.py',
]
model = _base_.xray_heads
