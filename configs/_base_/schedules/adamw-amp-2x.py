# 24 epochs of AdamW in mixed precision, as Swin is trained.
_base_ = 'mmdet::_base_/schedules/schedule_2x.py'
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', begin=0, end=24, by_epoch=True, milestones=[16, 22], gamma=0.1),
]
optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys=dict(norm=dict(decay_mult=0.0), relative_position_bias_table=dict(decay_mult=0.0))
    ),
    clip_grad=dict(max_norm=35, norm_type=2),
)
