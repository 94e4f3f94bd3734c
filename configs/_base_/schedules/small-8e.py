# Eight epochs at CPU scale, batch 4, with AdamW: in so few updates SGD at 0.02 finds half as many flaws.
_base_ = 'mmdet::_base_/schedules/schedule_2x.py'
train_cfg = dict(max_epochs=8, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(
        type='CosineAnnealingLR',
        T_max=8,
        eta_min_ratio=0.02,
        by_epoch=True,
        begin=0,
        end=8,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05), clip_grad=dict(max_norm=10)
)
auto_scale_lr = dict(base_batch_size=4)
