# Swin-B from ImageNet: the paper's "Swin-T" has a 12 px window and 1024 = 128 * 2**3 channels at its end.
_base_ = ['./faster-rcnn_fpn.py', './swin-base_in1k.py']
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.SwinTransformer',
        arch='base',
        img_size=1024,
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        pad_small_map=True,  # maps of 256, 128, 64 and 32 are padded to multiples of the window
        stage_cfgs=dict(block_cfgs=dict(window_size=12)),
        init_cfg=_base_.xray_swin_base_in1k,
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
