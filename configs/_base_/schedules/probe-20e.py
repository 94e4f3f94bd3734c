# 20 epochs at CPU scale, batch 64.
_base_ = './probe-90e.py'
train_cfg = dict(max_epochs=20)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=20, by_epoch=True, begin=0, end=20)]
optim_wrapper = dict(optimizer=dict(lr=0.1 * 64 / 256))
auto_scale_lr = dict(base_batch_size=64)
