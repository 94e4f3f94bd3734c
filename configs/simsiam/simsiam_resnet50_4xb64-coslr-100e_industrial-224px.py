# SimSiam on the plant's unlabelled radiographs with the paper's own augmentations (sections 3.2, 4.1).
# Command: tools/dist_train.sh <this file> 4
# Cost: 27,901 images / 256 = 109 iterations an epoch, 10,900 in all.
_base_ = ['mmpretrain::simsiam/simsiam_resnet50_8xb32-coslr-100e_in1k.py', '../_base_/xray_ssl.py']
custom_imports = _base_.xray_imports

data_preprocessor = dict(_delete_=True, type='XraySelfSupDataPreprocessor', **_base_.xray_norm)
train_dataloader = dict(
    _delete_=True,
    batch_size=64,
    dataset=dict(pipeline=_base_.xray_simsiam_pipeline, **_base_.xray_industrial),
    **_base_.xray_ssl_loader,
)

lr = 0.05 * 256 / 256  # 0.05 per 256 images; the predictor keeps it (SimSiamHook)
# The norm limit is too high to clip, but lets the gradient norm be logged.
optim_wrapper = dict(optimizer=dict(lr=lr, fused=True), clip_grad=dict(max_norm=1e9))
auto_scale_lr = dict(base_batch_size=256)

vis_backends = _base_.xray_vis_backends
visualizer = dict(vis_backends=vis_backends)
default_hooks = dict(logger=dict(interval=20), checkpoint=_base_.xray_checkpoint)
custom_hooks = [
    dict(type='SimSiamHook', priority='HIGH', fix_pred_lr=True, lr=lr),
    *_base_.xray_simsiam_hooks,
]
