# Eight epochs at CPU scale, Swin's own optimizer at a higher rate.
_base_ = './small-8e.py'
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys=dict(norm=dict(decay_mult=0.0), relative_position_bias_table=dict(decay_mult=0.0))
    ),
    clip_grad=dict(max_norm=35, norm_type=2),
)
