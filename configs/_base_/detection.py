# What every detector shares: modules, hooks, logging, input pipelines, loaders.
_base_ = ['mmdet::_base_/default_runtime.py', './xray_runtime.py']
custom_imports = _base_.xray_imports
vis_backends = _base_.xray_vis_backends
visualizer = dict(vis_backends=vis_backends)
custom_hooks = _base_.xray_hooks
default_hooks = dict(
    checkpoint=dict(save_best='xray/AP50', rule='greater', **_base_.xray_checkpoint),
    # The stock hook reads the file again as 8-bit colour; this one draws what the model saw.
    visualization=dict(_delete_=True, type='XrayVisualizationHook', interval=1, num_images=8, score_thr=0.3),
)

xray_pack = dict(
    type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
)
xray_train_loader = dict(
    sampler=_base_.xray_shuffle,
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    collate_fn=dict(type='pseudo_collate'),
    **_base_.xray_workers,
)
xray_test_loader = dict(
    batch_size=1,
    drop_last=False,
    sampler=_base_.xray_in_order,
    collate_fn=dict(type='pseudo_collate'),
    **_base_.xray_workers,
)
