# Linear probe of a random, frozen narrow Swin on generated radiographs: what the probe reads out of noise.
# Command: python tools/train.py <this file>
_base_ = '../linear_probe/swin-base-in1k-pre_4xb64-linear-coslr-90e_industrial-384px.py'

# Tuned together: batch, epochs, learning rate.
train_cfg = dict(max_epochs=20)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=20, by_epoch=True, begin=0, end=20)]
optim_wrapper = dict(optimizer=dict(lr=0.1 * 64 / 256))
auto_scale_lr = dict(base_batch_size=64)

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=32, depths=(2, 2), num_heads=(2, 4)),
        img_size=96,
        out_indices=(1,),
        frozen_stages=1,
        init_cfg=dict(_delete_=True, type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
    ),
    neck=dict(input_features=64),
    head=dict(in_channels=64),
)
xray_resize = dict(type='XrayResize', scale=(96, 96))
xray_test_loader = dict(
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        data_root='data/synthetic',
        severity='castings',
        pipeline=[_base_.xray_load, xray_resize, dict(type='PackInputs')],
    ),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        data_root='data/synthetic',
        severity='castings',
        pipeline=[
            _base_.xray_load,
            xray_resize,
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
val_dataloader = xray_test_loader
test_dataloader = xray_test_loader
default_hooks = dict(logger=dict(interval=5))
