# 24 epochs of AdamW with a cosine schedule in mixed precision, batch 8, from random weights, as at CPU scale.
_base_ = './small-8e.py'
train_cfg = dict(max_epochs=24, val_interval=12)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=100),
    dict(_base_.param_scheduler[1], T_max=24, end=24),
]
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(lr=4e-4))
auto_scale_lr = dict(base_batch_size=8)
