# Half-width ResNet-18 without pretraining, for two CPU cores; batch norm as in the ResNet-50.
_base_ = './faster-rcnn_narrow_fpn.py'
sync_bn = 'torch'
model = dict(backbone=_base_.xray_r18_narrow, neck=dict(in_channels=[32, 64, 128, 256]))
