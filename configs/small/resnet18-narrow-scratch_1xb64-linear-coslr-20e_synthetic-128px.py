# Linear probe of a random, frozen half-width ResNet-18 on generated radiographs: the baseline without
# learning.
# Command: python tools/train.py <this file>
_base_ = [
    '../_base_/models/probe_r50.py',
    '../_base_/datasets/synthetic_probe.py',
    '../_base_/schedules/probe-20e.py',
]
model = dict(
    backbone=dict(depth=18, stem_channels=32, base_channels=32, init_cfg=None),
    neck=dict(input_features=256),
    head=dict(in_channels=256),
)
