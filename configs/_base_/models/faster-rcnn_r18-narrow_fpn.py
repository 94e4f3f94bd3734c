# Half-width ResNet-18 without pretraining, for two CPU cores; batch norm as the ResNet-50's.
_base_ = './faster-rcnn_narrow_fpn.py'
sync_bn = 'torch'
model = dict(
    backbone=dict(
        depth=18, stem_channels=32, base_channels=32, frozen_stages=-1, norm_eval=False, init_cfg=None
    ),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
