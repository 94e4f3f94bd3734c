# The whole detector, from ImageNet weights, on flaws drawn into unlabelled castings, without the test images
# of protocol A. It uses no labels; val and test measure its detections.
# Command: python tools/train.py <this file>
# Cost: 1,433 images / 4 = 359 iterations an epoch, 1,436 in 4 epochs.
_base_ = [
    '../_base_/models/faster-rcnn_lite0-native_fpn.py',
    '../_base_/datasets/castings-a_drawn_detection.py',
    '../_base_/schedules/native-4e.py',
]
model = _base_.xray_heads
