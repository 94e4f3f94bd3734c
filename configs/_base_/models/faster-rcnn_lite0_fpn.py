# EfficientNet-Lite0 for two CPU cores, with ImageNet weights from a Python package.
_base_ = './faster-rcnn_narrow_fpn.py'
sync_bn = 'torch'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.EfficientNetLite0',
        frozen_stages=0,
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='package://efficientnet-lite0', prefix='backbone.'),
    ),
    neck=dict(in_channels=[24, 40, 112, 320]),
)
