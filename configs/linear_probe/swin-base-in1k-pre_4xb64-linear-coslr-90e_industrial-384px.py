# Linear probe of ImageNet's Swin-B: critical or minor, backbone frozen (paper Table 2).
# Command: tools/dist_train.sh <this file> 4
# Cost: 4,624 images / 256 = 19 iterations an epoch, 1,710 in all.
_base_ = [
    '../_base_/models/probe_swin-base.py',
    '../_base_/datasets/industrial_384_probe.py',
    '../_base_/schedules/probe-90e.py',
]
