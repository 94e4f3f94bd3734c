# Linear probe of a random, frozen narrow Swin on generated radiographs: the baseline without learning.
# Command: python tools/train.py <this file>
_base_ = [
    '../_base_/models/probe_swin-base.py',
    '../_base_/datasets/synthetic_96_probe.py',
    '../_base_/schedules/probe-20e.py',
]
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=32, depths=(2, 2), num_heads=(2, 4)),
        img_size=96,
        out_indices=(1,),
        frozen_stages=1,
        init_cfg=dict(_delete_=True, type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
    ),
    neck=dict(input_features=64),
    head=dict(in_channels=64),
)
