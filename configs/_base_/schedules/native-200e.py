# Two hundred epochs of crops at native size: a fold of welds has few tiles.
_base_ = './native-14e.py'
train_cfg = dict(max_epochs=200, val_interval=50)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=200,
        eta_min_ratio=0.02,
        by_epoch=True,
        begin=0,
        end=200,
        convert_to_iter_based=True,
    ),
]
