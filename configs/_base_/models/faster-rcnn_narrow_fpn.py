# A 64-channel FPN for two CPU cores.
_base_ = './faster-rcnn_fpn.py'
model = dict(
    neck=dict(out_channels=64),
    rpn_head=_base_.xray_narrow_rpn,
    roi_head=_base_.xray_narrow_box,
    train_cfg=_base_.xray_few,
    test_cfg=_base_.xray_few_tested,
)
