# Four epochs at CPU scale, for a backbone with ImageNet weights.
_base_ = './small-8e.py'
train_cfg = dict(max_epochs=4)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=4, end=4)]
