# Twelve epochs at CPU scale, with Swin's own optimizer.
_base_ = './small-swin-8e.py'
train_cfg = dict(max_epochs=12, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(
        type='CosineAnnealingLR',
        T_max=12,
        eta_min_ratio=0.02,
        by_epoch=True,
        begin=0,
        end=12,
        convert_to_iter_based=True,
    ),
]
