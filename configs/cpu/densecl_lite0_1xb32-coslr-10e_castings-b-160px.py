# DenseCL, EfficientNet-Lite0, on GDXray castings at native size, without the test series of protocol B.
# DenseCL contrasts positions of a map instead of images, so that it may learn features of flaws.
# Command: python tools/train.py <this file>
# Cost: 1,818 radiographs / 32 = 56 iterations an epoch, 560 in 10 epochs.
_base_ = ['mmpretrain::densecl/densecl_resnet50_8xb32-coslr-200e_in1k.py', '../_base_/xray_ssl.py']
custom_imports = _base_.xray_imports

data_preprocessor = dict(_delete_=True, type='XraySelfSupDataPreprocessor', **_base_.xray_norm)
model = dict(
    queue_len=4096,
    backbone=dict(_delete_=True, type='EfficientNetLite0', out_indices=(5,), init_cfg=None),
    neck=dict(in_channels=320, hid_channels=512),
)
train_dataloader = dict(
    _delete_=True,
    batch_size=32,
    dataset=dict(pipeline=_base_.xray_dense_pipeline, **_base_.xray_castings_b),
    **dict(_base_.xray_ssl_loader, **_base_.xray_two_cores),
)

train_cfg = dict(max_epochs=10)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=10, by_epoch=True, begin=0, end=10)]
optim_wrapper = dict(optimizer=dict(lr=0.03))
auto_scale_lr = dict(base_batch_size=32)

vis_backends = _base_.xray_vis_backends
visualizer = dict(vis_backends=vis_backends)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(_delete_=True, type='CheckpointHook', **_base_.xray_checkpoint)
)
custom_hooks = _base_.xray_ssl_hooks
