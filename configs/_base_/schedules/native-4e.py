# Four epochs of crops at native size, batch 4, for drawn flaws in castings.
_base_ = './native-14e.py'
train_cfg = dict(max_epochs=4, val_interval=4)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=4, end=4)]
