# A linear head on a frozen Swin-B, window 12 at 384 px, whose pooled features are standardised.
_base_ = ['./probe_r50.py', './swin-base_in1k.py']
model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        arch='base',
        img_size=384,
        out_indices=(3,),
        pad_small_map=False,
        stage_cfgs=_base_.xray_window_12,
        frozen_stages=3,
        init_cfg=_base_.xray_swin_base_in1k,
    ),
    neck=dict(input_features=1024),
    head=dict(in_channels=1024),
)
