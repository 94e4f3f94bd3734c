# 24 epochs of AdamW in mixed precision, as Swin is trained.
_base_ = ['mmdet::_base_/schedules/schedule_2x.py', './xray_swin.py']
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', begin=0, end=24, by_epoch=True, milestones=[16, 22], gamma=0.1),
]
optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    optimizer=dict(lr=1e-4, **_base_.xray_adamw),
    **_base_.xray_swin_wrapper,
)
