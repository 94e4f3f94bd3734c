# Twelve epochs at CPU scale.
_base_ = './small-8e.py'
train_cfg = dict(max_epochs=12, val_interval=2)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=12, end=12)]
