# Two-stage, 32-channel Swin without pretraining, for two CPU cores.
_base_ = './faster-rcnn_narrow_fpn.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.SwinTransformer',
        arch=dict(embed_dims=32, depths=(2, 2), num_heads=(2, 4)),
        out_indices=(0, 1),
        drop_path_rate=0.2,
        pad_small_map=True,
        stage_cfgs=_base_.xray_window_12,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
    ),
    neck=dict(in_channels=[32, 64]),
)
