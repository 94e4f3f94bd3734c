# SimSiam, half-width ResNet-18, on generated radiographs: the full recipe, shrunk to two CPU cores.
# Command: python tools/train.py <this file>
_base_ = '../simsiam/simsiam_resnet50_4xb64-coslr-100e_industrial-224px.py'

# Tuned together: batch, epochs, learning rate.
train_cfg = dict(max_epochs=20)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=20, by_epoch=True, begin=0, end=20)]
lr = 0.05 * 64 / 256
optim_wrapper = dict(optimizer=dict(lr=lr))
auto_scale_lr = dict(base_batch_size=64)
custom_hooks = [
    dict(type='SimSiamHook', priority='HIGH', fix_pred_lr=True, lr=lr),
    *_base_.xray_simsiam_hooks,
]

model = dict(
    backbone=dict(depth=18, stem_channels=32, base_channels=32),
    neck=dict(in_channels=256, hid_channels=512, out_channels=512),
    head=dict(predictor=dict(in_channels=512, hid_channels=128, out_channels=512)),
)
xray_simsiam_view = [
    dict(type='XrayRandomResizedCrop', scale=128, crop_ratio_range=(0.2, 1.0), flip=0.5),
    dict(type='XrayColorJitter', brightness=0.4, contrast=0.4, prob=0.8),
    dict(type='XrayGaussianBlur', sigma=(0.1, 2.0 * 128 / 224), prob=0.5),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        data_root='data/synthetic',
        pipeline=[
            _base_.xray_load,
            dict(type='XrayMultiView', num_views=2, transforms=[xray_simsiam_view]),
            dict(type='PackInputs'),
        ],
    ),
)
default_hooks = dict(logger=dict(interval=5))
