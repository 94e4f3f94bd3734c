# Faster R-CNN at half size, EfficientNet-Lite0 from ImageNet, on GDXray castings, protocol B, every second
# sample an unlabelled casting with drawn flaws.
# Command: python tools/train.py <this file>
# Cost: 571 images / 4 = 143 iterations an epoch, 2,002 in 14 epochs.
_base_ = [
    '../_base_/models/faster-rcnn_lite0-native_fpn.py',
    '../_base_/datasets/gdxray-b_mixed_detection.py',
    '../_base_/schedules/native-14e.py',
]
model = _base_.xray_heads
