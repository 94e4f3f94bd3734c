# Linear probe of ImageNet's ResNet-50: critical or minor, backbone frozen (paper Table 2).
# Command: tools/dist_train.sh <this file> 4
# Cost: 4,624 images / 256 = 19 iterations an epoch, 1,710 in all.
_base_ = [
    '../_base_/models/probe_r50.py',
    '../_base_/datasets/industrial_probe.py',
    '../_base_/schedules/probe-90e.py',
]
