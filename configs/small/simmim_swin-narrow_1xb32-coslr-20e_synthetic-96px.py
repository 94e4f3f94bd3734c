# SimMIM of a two-stage, 32-channel Swin on generated radiographs: the full recipe, shrunk to two CPU cores.
# Command: python tools/train.py <this file>
_base_ = '../simmim/simmim_swin-base_4xb64-amp-coslr-100e_industrial-384px.py'

# Tuned together: batch, epochs, learning rate. So few updates want more than the rule's 2e-4 * 32 / 512.
train_cfg = dict(max_epochs=20)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-6 / 2e-4,
        by_epoch=True,
        begin=0,
        end=2,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=18,
        eta_min=1e-5,
        by_epoch=True,
        begin=2,
        end=20,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=5e-4))
auto_scale_lr = dict(base_batch_size=32)

# Maps of 24 and 12: window 12 stays exact. 16 px patches mask as large a part of the image as the
# original's 32 px of 192.
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
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        data_root='data/synthetic',
        pipeline=[
            _base_.xray_load,
            dict(type='XrayRandomResizedCrop', scale=96, crop_ratio_range=(0.67, 1.0), flip=0.5),
            dict(
                type='SimMIMMaskGenerator',
                input_size=96,
                mask_patch_size=16,
                model_patch_size=4,
                mask_ratio=0.6,
            ),
            dict(type='PackInputs'),
        ],
    ),
)
default_hooks = dict(logger=dict(interval=5))
