# Settings of all detectors: modules, hooks, logging, input pipelines, loaders.
_base_ = ['mmdet::_base_/default_runtime.py', './xray_runtime.py']
custom_imports = _base_.xray_imports
vis_backends = _base_.xray_vis_backends
visualizer = dict(vis_backends=vis_backends)
custom_hooks = _base_.xray_hooks
default_hooks = dict(
    checkpoint=dict(save_best='xray/AP50', rule='greater', **_base_.xray_checkpoint),
    # The stock hook reads the file again as 8-bit colour; this hook draws the model's input.
    visualization=dict(_delete_=True, type='XrayVisualizationHook', interval=1, num_images=8, score_thr=0.3),
)

# For recipes with masks: one bitmap per flaw, which keeps holes and separate parts.
xray_load_masks = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
xray_pack = dict(
    type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
)
# Training on crops at native size: three of four are around a flaw. The scale varies widely, since flaws of
# unseen parts may be several times as large as labelled ones. Direction, film curve (gamma) and quantum noise
# vary too.
xray_crops = [
    dict(type='XrayFlawCrop', size=256, flaw=0.75, scale=(0.5, 2.5)),
    dict(type='XrayRandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='XrayGamma', gamma=(0.7, 1.4), prob=0.5),
    dict(type='XrayPoissonNoise', prob=0.5),
    dict(type='PackDetInputs'),
]
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
