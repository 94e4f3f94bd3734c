# Fourteen epochs of crops at native size, batch 8.
_base_ = './small-8e.py'
train_cfg = dict(max_epochs=14, val_interval=14)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=14,
        eta_min_ratio=0.02,
        by_epoch=True,
        begin=0,
        end=14,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(base_batch_size=8)
