# 72 epochs of SGD, for a set of a few hundred images.
_base_ = 'mmdet::_base_/schedules/schedule_2x.py'
train_cfg = dict(max_epochs=72)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=72, by_epoch=True, milestones=[64, 69], gamma=0.1),
]
