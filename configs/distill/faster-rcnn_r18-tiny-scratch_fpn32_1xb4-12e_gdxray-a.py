# A student at CPU scale, alone: quarter-width ResNet-18 with a 32-channel FPN, on castings, protocol A.
# Command: python tools/train.py <this file>
_base_ = '../small/faster-rcnn_r18-narrow-scratch_fpn_1xb4-12e_gdxray-a.py'
model = dict(
    backbone=dict(stem_channels=16, base_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32), bbox_head=dict(in_channels=32, fc_out_channels=128)
    ),
)
