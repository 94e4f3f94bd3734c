# Swin's AdamW: no weight decay of norms and position tables. Exports xray_* variables only.
xray_adamw = dict(type='AdamW', betas=(0.9, 0.999), weight_decay=0.05)
xray_swin_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(norm=dict(decay_mult=0.0), relative_position_bias_table=dict(decay_mult=0.0))
    ),
    clip_grad=dict(max_norm=35, norm_type=2),
)
# At CPU scale, at a higher rate.
xray_small_swin = dict(type='OptimWrapper', optimizer=dict(xray_adamw, lr=1e-3), **xray_swin_wrapper)
