# Linear probe of ImageNet's Swin-B: critical or minor, backbone frozen (paper Table 2).
# Command: tools/dist_train.sh <this file> 4
# Cost: 4,624 images / 256 = 19 iterations an epoch, 1,710 in all.
_base_ = ['mmpretrain::simsiam/benchmarks/resnet50_8xb512-linear-coslr-90e_in1k.py', '../_base_/xray_cls.py']
custom_imports = _base_.xray_imports

data_preprocessor = dict(_delete_=True, type='XrayClsDataPreprocessor', **_base_.xray_norm)
model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        arch='base',
        img_size=384,
        out_indices=(3,),
        pad_small_map=False,
        stage_cfgs=dict(block_cfgs=dict(window_size=12)),
        frozen_stages=3,
        init_cfg=_base_.xray_swin_base_in1k,
    ),
    neck=dict(_delete_=True, type='StandardisedPooling', input_features=1024),
    head=dict(num_classes=2, in_channels=1024, topk=(1,)),
)
train_dataloader = dict(
    _delete_=True,
    batch_size=64,
    dataset=dict(
        ann_file='train.json', pipeline=_base_.xray_probe_384_train_pipeline, **_base_.xray_industrial
    ),
    **_base_.xray_probe_train_loader,
)
val_dataloader = dict(
    _delete_=True,
    batch_size=64,
    dataset=dict(
        ann_file='val.json',
        pipeline=_base_.xray_probe_384_test_pipeline,
        test_mode=True,
        **_base_.xray_industrial,
    ),
    **_base_.xray_probe_test_loader,
)
test_dataloader = dict(
    _delete_=True,
    batch_size=64,
    dataset=dict(
        ann_file='test.json',
        pipeline=_base_.xray_probe_384_test_pipeline,
        test_mode=True,
        **_base_.xray_industrial,
    ),
    **_base_.xray_probe_test_loader,
)
val_evaluator = dict(_delete_=True, **_base_.xray_metric)
test_evaluator = dict(_delete_=True, **_base_.xray_metric)

optim_wrapper = dict(optimizer=dict(_delete_=True, **_base_.xray_probe_sgd))
auto_scale_lr = dict(base_batch_size=256)

vis_backends = _base_.xray_vis_backends
visualizer = dict(vis_backends=vis_backends)
default_hooks = dict(logger=dict(interval=10), checkpoint=_base_.xray_probe_checkpoint)
custom_hooks = _base_.xray_hooks
