# The whole detector, from ImageNet weights, on flaws drawn into unlabelled castings, without the test series
# of protocol B. It uses no labels; val and test measure its detections.
# Command: python tools/train.py <this file>
# Cost: 1,818 images / 4 = 455 iterations an epoch, 1,820 in 4 epochs.
_base_ = [
    '../_base_/models/faster-rcnn_lite0-native_fpn.py',
    '../_base_/datasets/castings-b_drawn_detection.py',
    '../_base_/schedules/native-4e.py',
]
model = _base_.xray_heads
