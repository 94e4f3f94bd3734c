# Faster R-CNN on GDXray castings, Swin-B from ImageNet, protocol B: whole series held out.
# Command: tools/dist_train.sh <this file> 4
# Cost: 571 images / 16 = 36 iterations an epoch, 2,590 in 72 epochs.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/xray_det.py']
custom_imports = _base_.xray_imports

# The parent's names that nothing reads.
dataset_type = data_root = train_pipeline = test_pipeline = None

model = dict(
    data_preprocessor=dict(
        _delete_=True, type='XrayDetDataPreprocessor', pad_size_divisor=32, **_base_.xray_norm
    ),
    backbone=dict(
        _delete_=True,
        init_cfg=_base_.xray_swin_base_in1k,
        **_base_.xray_swin_base,
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
    # Best anchor IoU >= 0.7 / 0.5 for 86 / 100 % of the boxes at this input; COCO's [8]: 61 / 94 %.
    rpn_head=dict(anchor_generator=dict(scales=[4, 6])),
    roi_head=dict(bbox_head=dict(num_classes=1)),
)

train_dataloader = dict(
    _delete_=True,
    batch_size=4,
    dataset=dict(ann_file='b/train.json', pipeline=_base_.xray_det_train_pipeline, **_base_.xray_gdxray),
    **_base_.xray_det_train_loader,
)
val_dataloader = dict(
    _delete_=True,
    dataset=dict(
        ann_file='b/val.json',
        pipeline=_base_.xray_det_test_pipeline,
        test_mode=True,
        **_base_.xray_gdxray,
    ),
    **_base_.xray_det_test_loader,
)
test_dataloader = dict(
    _delete_=True,
    dataset=dict(
        ann_file='b/test.json',
        pipeline=_base_.xray_det_test_pipeline,
        test_mode=True,
        **_base_.xray_gdxray,
    ),
    **_base_.xray_det_test_loader,
)
val_evaluator = dict(_delete_=True, ann_file='data/gdxray/b/val.json', **_base_.xray_gdxray_metric)
test_evaluator = dict(_delete_=True, ann_file='data/gdxray/b/test.json', **_base_.xray_gdxray_metric)

train_cfg = dict(max_epochs=72)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=72, by_epoch=True, milestones=[64, 69], gamma=0.1),
]
optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys=dict(norm=dict(decay_mult=0.0), relative_position_bias_table=dict(decay_mult=0.0))
    ),
    clip_grad=dict(max_norm=35, norm_type=2),
)

vis_backends = _base_.xray_vis_backends
visualizer = dict(vis_backends=vis_backends)
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=_base_.xray_det_checkpoint,
    visualization=dict(_delete_=True, **_base_.xray_det_visualization),
)
custom_hooks = _base_.xray_hooks
