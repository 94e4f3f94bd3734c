# Half-width ResNet-18 without pretraining and 64 channels in FPN and mask head, for two CPU cores.
_base_ = './mask-rcnn_fpn.py'
sync_bn = 'torch'
model = dict(
    backbone=_base_.xray_r18_narrow,
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    rpn_head=_base_.xray_narrow_rpn,
    roi_head=dict(
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(in_channels=64, conv_out_channels=64),
        **_base_.xray_narrow_box,
    ),
    train_cfg=_base_.xray_few,
    test_cfg=_base_.xray_few_tested,
)
