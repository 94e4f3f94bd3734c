# SimMIM on the plant's unlabelled radiographs (paper sections 3.3, 4.1), as in microsoft/SimMIM: no drop
# path, no decay of the mask token, antialiased crop. At 384 px window 12 is exact (12 x 12 maps at the last
# stage), and the public ImageNet weights have this size.
# Command: tools/dist_train.sh <this file> 4
# Cost: 27,901 images / 256 = 109 iterations an epoch, 10,900 in all. The published batch of 2048 would
# leave 1,300.
_base_ = [
    'mmpretrain::simmim/simmim_swin-base-w6_8xb256-amp-coslr-100e_in1k-192px.py',
    '../_base_/xray_ssl.py',
]
custom_imports = _base_.xray_imports

model = dict(
    backbone=dict(img_size=384, drop_path_rate=0.0, pad_small_map=False, stage_cfgs=_base_.xray_window_12)
)
data_preprocessor = dict(_delete_=True, type='XraySelfSupDataPreprocessor', **_base_.xray_norm)
train_dataloader = dict(
    _delete_=True,
    batch_size=64,
    dataset=dict(pipeline=_base_.xray_simmim_pipeline, **_base_.xray_industrial),
    **_base_.xray_ssl_loader,
)

# The original's rates are per 512 images.
optim_wrapper = dict(
    optimizer=dict(lr=2e-4 * 256 / 512, fused=True),
    paramwise_cfg=dict(custom_keys=dict(mask_token=dict(decay_mult=0.0))),
)
param_scheduler = [dict(_base_.param_scheduler[0]), dict(_base_.param_scheduler[1], eta_min=1e-5 * 256 / 512)]
auto_scale_lr = dict(base_batch_size=256)

vis_backends = _base_.xray_vis_backends
visualizer = dict(vis_backends=vis_backends)
default_hooks = dict(logger=dict(interval=20), checkpoint=_base_.xray_checkpoint)
custom_hooks = _base_.xray_simmim_hooks
