# Linear probe of a random, frozen half-width ResNet-18 on generated radiographs: what noise gives away.
# Command: python tools/train.py <this file>
_base_ = '../linear_probe/resnet50-in1k-pre_4xb64-linear-coslr-90e_industrial-224px.py'

# Tuned together: batch, epochs, learning rate.
train_cfg = dict(max_epochs=20)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=20, by_epoch=True, begin=0, end=20)]
optim_wrapper = dict(optimizer=dict(lr=0.1 * 64 / 256))
auto_scale_lr = dict(base_batch_size=64)

model = dict(
    backbone=dict(depth=18, stem_channels=32, base_channels=32, init_cfg=None),
    neck=dict(input_features=256),
    head=dict(in_channels=256),
)
xray_resize = dict(type='XrayResize', scale=(128, 128))
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
