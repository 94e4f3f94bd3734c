# mmdet's Faster R-CNN with an FPN and one input channel.
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', '../xray_detectors.py']
model = dict(data_preprocessor=dict(_delete_=True, **_base_.xray_one_channel), train_cfg=_base_.xray_ignoring)
