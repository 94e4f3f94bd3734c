# Eight epochs at CPU scale, Swin's own optimizer at a higher rate.
_base_ = ['./small-8e.py', './xray_swin.py']
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(lr=1e-3, **_base_.xray_adamw),
    **_base_.xray_swin_wrapper,
)
