# Twelve epochs at CPU scale, with Swin's own optimizer.
_base_ = './small-swin-8e.py'
train_cfg = dict(max_epochs=12, val_interval=2)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=12, end=12)]
