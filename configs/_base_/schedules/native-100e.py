# A hundred epochs of crops at native size, batch 4, since a fold of welds has few tiles.
_base_ = './native-14e.py'
train_cfg = dict(max_epochs=100, val_interval=50)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=100, end=100)]
