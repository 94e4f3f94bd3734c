# Faster R-CNN, half-width ResNet-18 without pretraining, on generated radiographs: shrunk to two CPU cores.
# Command: python tools/train.py <this file>
_base_ = ['../faster_rcnn/faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial.py', '../_base_/xray_small.py']

# Tuned together: batch, epochs, learning rate.
train_cfg = dict(max_epochs=8, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(
        type='CosineAnnealingLR',
        T_max=8,
        eta_min_ratio=0.02,
        by_epoch=True,
        begin=0,
        end=8,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(optimizer=dict(_delete_=True, **_base_.xray_small_adamw), clip_grad=dict(max_norm=10))
auto_scale_lr = dict(base_batch_size=4)

model = dict(
    backbone=dict(depth=18, stem_channels=32, base_channels=32, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    **_base_.xray_small_heads,
)

xray_resize = dict(type='Resize', scale=(192, 192), keep_ratio=True)
xray_test_loader = dict(
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        data_root='data/synthetic',
        severity='castings',
        pipeline=[
            _base_.xray_load,
            xray_resize,
            dict(type='LoadAnnotations', with_bbox=True),
            _base_.xray_det_test_pipeline[-1],
        ],
    ),
)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        data_root='data/synthetic',
        severity='castings',
        pipeline=[
            _base_.xray_load,
            dict(type='LoadAnnotations', with_bbox=True),
            xray_resize,
            dict(type='XrayRandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ],
    ),
)
val_dataloader = xray_test_loader
test_dataloader = xray_test_loader
val_evaluator = dict(ann_file='data/synthetic/val.json', severity='castings')
test_evaluator = dict(ann_file='data/synthetic/test.json', severity='castings')
default_hooks = dict(logger=dict(interval=30))
