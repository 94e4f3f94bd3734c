# mmdet's Faster R-CNN with an FPN, fed with one channel. Crowd and objects marked difficult are ignored;
# mmdet takes them for background.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
from projects.xray.norm import MEAN as xray_mean, STD as xray_std  # noqa: E401, E402, I001

model = dict(
    data_preprocessor=dict(
        _delete_=True, type='XrayDetDataPreprocessor', pad_size_divisor=32, mean=[xray_mean], std=[xray_std]
    ),
    train_cfg=dict(
        rpn=dict(assigner=dict(type='XrayMaxIoUAssigner')),
        rcnn=dict(assigner=dict(type='XrayMaxIoUAssigner')),
    ),
)
