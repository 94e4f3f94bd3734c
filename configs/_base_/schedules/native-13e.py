# Thirteen epochs of crops at native size, batch 4, for drawn flaws in welds.
_base_ = './native-100e.py'
train_cfg = dict(max_epochs=13, val_interval=13)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=13, end=13)]
