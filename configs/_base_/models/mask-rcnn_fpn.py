# mmdet's Mask R-CNN with an FPN and one input channel: boxes and the mask of the flaw in each.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', '../xray_detectors.py']
model = dict(
    data_preprocessor=dict(_delete_=True, pad_mask=True, **_base_.xray_one_channel),
    train_cfg=_base_.xray_ignoring,
)
