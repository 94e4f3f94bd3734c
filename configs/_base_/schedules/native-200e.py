# Two hundred epochs of crops at native size, batch 8: a fold of welds has few tiles.
_base_ = './native-14e.py'
train_cfg = dict(max_epochs=200, val_interval=50)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=200, end=200)]
auto_scale_lr = dict(base_batch_size=8)
