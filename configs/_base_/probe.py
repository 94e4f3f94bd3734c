# Settings of all linear probes: modules, hooks, logging, loaders.
_base_ = ['mmpretrain::_base_/default_runtime.py', './xray_runtime.py']
custom_imports = _base_.xray_imports
vis_backends = _base_.xray_vis_backends
visualizer = dict(vis_backends=vis_backends)
custom_hooks = _base_.xray_hooks
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(save_best='xray/mAP', rule='greater', **_base_.xray_checkpoint)
)

xray_train_loader = dict(
    sampler=_base_.xray_shuffle, collate_fn=dict(type='default_collate'), **_base_.xray_workers
)
xray_test_loader = dict(
    sampler=_base_.xray_in_order, collate_fn=dict(type='default_collate'), **_base_.xray_workers
)
