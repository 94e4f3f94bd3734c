# Fourteen epochs of crops at native size, batch 4.
_base_ = './small-8e.py'
train_cfg = dict(max_epochs=14, val_interval=14)
param_scheduler = [dict(_base_.param_scheduler[0], end=50), dict(_base_.param_scheduler[1], T_max=14, end=14)]
