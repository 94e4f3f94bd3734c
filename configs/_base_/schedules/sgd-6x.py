# 72 epochs of SGD, for a set of a few hundred images.
_base_ = 'mmdet::_base_/schedules/schedule_2x.py'
train_cfg = dict(max_epochs=72)
param_scheduler = [
    dict(_base_.param_scheduler[0]),
    dict(_base_.param_scheduler[1], end=72, milestones=[64, 69]),
]
