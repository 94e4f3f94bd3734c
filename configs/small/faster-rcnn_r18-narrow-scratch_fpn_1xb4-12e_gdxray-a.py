# Faster R-CNN, half-width ResNet-18 without pretraining, on GDXray castings, protocol A: for two CPU cores.
# Command: python tools/train.py <this file>
_base_ = ['../faster_rcnn/faster-rcnn_r50-in1k-pre_fpn_4xb4-6x_gdxray-a.py', '../_base_/xray_small.py']

# Tuned together: batch, epochs, learning rate.
train_cfg = dict(max_epochs=12, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(
        type='CosineAnnealingLR',
        T_max=12,
        eta_min_ratio=0.02,
        by_epoch=True,
        begin=0,
        end=12,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(optimizer=dict(_delete_=True, **_base_.xray_small_adamw), clip_grad=dict(max_norm=10))
auto_scale_lr = dict(base_batch_size=4)

# Anchors of scales [2, 3]: best IoU >= 0.5 for 99 % of the boxes at this input, 61 % with [4, 6].
model = dict(
    backbone=dict(depth=18, stem_channels=32, base_channels=32, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    **_base_.xray_small_heads,
)

xray_resize = dict(type='Resize', scale=(384, 288), keep_ratio=True)
xray_test_loader = dict(
    num_workers=1,
    pin_memory=False,
    dataset=dict(
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
default_hooks = dict(logger=dict(interval=30))
