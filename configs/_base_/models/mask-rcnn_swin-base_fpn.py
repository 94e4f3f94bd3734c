# Swin-B from ImageNet.
_base_ = './mask-rcnn_fpn.py'
model = dict(backbone=dict(_delete_=True, **_base_.xray_swin_base), neck=_base_.xray_swin_base_neck)
