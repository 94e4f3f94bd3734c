# The whole detector, from ImageNet weights, on flaws drawn into unlabelled welds, without the annotated
# films. It uses no labels; fold 0 measures its detections.
# Command: python tools/train.py <this file>
# Cost: 556 tiles / 4 = 139 iterations an epoch, 1,807 in 13 epochs.
_base_ = [
    '../_base_/models/faster-rcnn_lite0-native_fpn.py',
    '../_base_/datasets/welds_drawn_detection.py',
    '../_base_/schedules/native-13e.py',
]
model = _base_.xray_heads
