# SimSiam, half-width ResNet-18, on generated radiographs: the full recipe, shrunk to two CPU cores.
# Command: python tools/train.py <this file>
_base_ = '../simsiam/simsiam_resnet50_4xb64-coslr-100e_industrial-224px.py'

# Batch, epochs and learning rate were tuned together.
train_cfg = dict(max_epochs=20)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=20, by_epoch=True, begin=0, end=20)]
lr = 0.05 * 64 / 256
optim_wrapper = dict(optimizer=dict(lr=lr))
auto_scale_lr = dict(base_batch_size=64)
custom_hooks = [dict(_base_.custom_hooks[0], lr=lr), *_base_.xray_simsiam_hooks]

model = dict(
    backbone=dict(depth=18, stem_channels=32, base_channels=32),
    neck=dict(in_channels=256, hid_channels=512, out_channels=512),
    head=dict(predictor=dict(in_channels=512, hid_channels=128, out_channels=512)),
)
train_dataloader = dict(
    batch_size=64,
    dataset=dict(data_root='data/synthetic', pipeline=_base_.xray_simsiam_128_pipeline),
    **_base_.xray_two_cores,
)
default_hooks = dict(logger=dict(interval=5))
