# SimMIM of a two-stage, 32-channel Swin on generated radiographs: the full recipe, shrunk to two CPU cores.
# Command: python tools/train.py <this file>
_base_ = '../simmim/simmim_swin-base_4xb64-amp-coslr-100e_industrial-384px.py'

# Batch, epochs and learning rate were tuned together. So few updates need more than the rule's 2e-4 * 32 /
# 512.
train_cfg = dict(max_epochs=20)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=2),
    dict(_base_.param_scheduler[1], T_max=18, eta_min=1e-5, begin=2, end=20),
]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=5e-4))
auto_scale_lr = dict(base_batch_size=32)

# With maps of 24 and 12, window 12 is exact.
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=32, depths=(2, 2), num_heads=(2, 4)),
        img_size=96,
        out_indices=(1,),
    ),
    neck=dict(in_channels=64, encoder_stride=8),
)
train_dataloader = dict(
    batch_size=32,
    dataset=dict(data_root='data/synthetic', pipeline=_base_.xray_simmim_96_pipeline),
    **_base_.xray_two_cores,
)
default_hooks = dict(logger=dict(interval=5))
