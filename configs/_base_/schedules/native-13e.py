# Thirteen epochs of crops at native size: of drawn flaws in welds.
_base_ = './native-14e.py'
train_cfg = dict(max_epochs=13, val_interval=13)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=13,
        eta_min_ratio=0.02,
        by_epoch=True,
        begin=0,
        end=13,
        convert_to_iter_based=True,
    ),
]
