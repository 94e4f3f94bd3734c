# Faster R-CNN on industrial radiographs, ResNet-50 from ImageNet: critical and minor defects (paper Table 3).
# Command: tools/dist_train.sh <this file> 4
# Cost: 4,624 images / 16 = 289 iterations an epoch, 6,936 in 24 epochs.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/xray_det.py']
custom_imports = _base_.xray_imports

# The parent's names that nothing reads.
dataset_type = data_root = train_pipeline = test_pipeline = None

# Batch norm is trained, nothing is frozen, in every arm: statistics and stem of ImageNet are not those
# of a self-supervised backbone. sync_bn makes one group of the four GPUs' 16 images.
sync_bn = 'torch'
model = dict(
    data_preprocessor=dict(
        _delete_=True, type='XrayDetDataPreprocessor', pad_size_divisor=32, **_base_.xray_norm
    ),
    backbone=dict(frozen_stages=-1, norm_eval=False),
    roi_head=dict(bbox_head=dict(num_classes=2)),
)

train_dataloader = dict(
    _delete_=True,
    batch_size=4,
    dataset=dict(ann_file='train.json', pipeline=_base_.xray_det_train_pipeline, **_base_.xray_industrial),
    **_base_.xray_det_train_loader,
)
val_dataloader = dict(
    _delete_=True,
    dataset=dict(
        ann_file='val.json',
        pipeline=_base_.xray_det_test_pipeline,
        test_mode=True,
        **_base_.xray_industrial,
    ),
    **_base_.xray_det_test_loader,
)
test_dataloader = dict(
    _delete_=True,
    dataset=dict(
        ann_file='test.json',
        pipeline=_base_.xray_det_test_pipeline,
        test_mode=True,
        **_base_.xray_industrial,
    ),
    **_base_.xray_det_test_loader,
)
val_evaluator = dict(_delete_=True, ann_file='data/industrial/val.json', **_base_.xray_industrial_metric)
test_evaluator = dict(_delete_=True, ann_file='data/industrial/test.json', **_base_.xray_industrial_metric)

train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=24, by_epoch=True, milestones=[16, 22], gamma=0.1),
]
optim_wrapper = dict(optimizer=dict(lr=0.02 * 16 / 16))  # 0.02 per 16 images

vis_backends = _base_.xray_vis_backends
visualizer = dict(vis_backends=vis_backends)
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=_base_.xray_det_checkpoint,
    visualization=dict(_delete_=True, **_base_.xray_det_visualization),
)
custom_hooks = _base_.xray_hooks
