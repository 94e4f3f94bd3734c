# Faster R-CNN at native size on EfficientNet-Lite0 from ImageNet, for two CPU cores: all but its data.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../xray_native.py']
custom_imports = _base_.xray_imports

# The parent's names that nothing reads.
dataset_type = data_root = train_pipeline = test_pipeline = None

# Batch norm is trained and nothing is frozen, in every arm.
sync_bn = 'torch'
model = dict(
    data_preprocessor=dict(
        _delete_=True, type='XrayDetDataPreprocessor', pad_size_divisor=32, **_base_.xray_norm
    ),
    backbone=dict(_delete_=True, init_cfg=_base_.xray_native_in1k, **_base_.xray_native_backbone),
    **_base_.xray_native_model,
)
model['roi_head']['bbox_head'].update(num_classes=1)

train_dataloader = dict(
    _delete_=True,
    batch_size=8,
    dataset=dict(pipeline=_base_.xray_native_train_pipeline),
    **_base_.xray_native_train_loader,
)
val_dataloader = dict(
    _delete_=True,
    dataset=dict(pipeline=_base_.xray_native_test_pipeline, test_mode=True),
    **_base_.xray_native_test_loader,
)
test_dataloader = dict(
    _delete_=True,
    dataset=dict(pipeline=_base_.xray_native_test_pipeline, test_mode=True),
    **_base_.xray_native_test_loader,
)
val_evaluator = dict(_delete_=True, **_base_.xray_gdxray_metric)
test_evaluator = dict(_delete_=True, **_base_.xray_gdxray_metric)

train_cfg = dict(max_epochs=14, val_interval=14)
param_scheduler = [_base_.xray_native_warmup, dict(T_max=14, end=14, **_base_.xray_native_cosine)]
optim_wrapper = dict(optimizer=dict(_delete_=True, **_base_.xray_native_adamw), clip_grad=dict(max_norm=10))
auto_scale_lr = dict(base_batch_size=8)

vis_backends = _base_.xray_vis_backends
visualizer = dict(vis_backends=vis_backends)
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=_base_.xray_det_checkpoint,
    visualization=dict(_delete_=True, **_base_.xray_det_visualization),
)
custom_hooks = _base_.xray_hooks
