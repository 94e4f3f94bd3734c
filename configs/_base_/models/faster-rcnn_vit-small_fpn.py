# ViT-S with patches of 14 px and DINOv2's weights; ViTDet's pyramid, whose strides follow the patches.
_base_ = './faster-rcnn_fpn.py'
xray_strides = [3.5, 7, 14, 28, 56]
model = dict(
    data_preprocessor=dict(pad_size_divisor=28),
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch='dinov2-small',
        img_size=518,  # of the position table; it is resized to each image
        patch_size=14,
        layer_scale_init_value=1e-5,
        out_type='featmap',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmpretrain/v1.0/dinov2/'
            'vit-small-p14_dinov2-pre_3rdparty_20230426-5641ca5a.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(_delete_=True, type='SimpleFPN', in_channels=384, out_channels=256),
    rpn_head=dict(anchor_generator=dict(strides=xray_strides)),
    roi_head=dict(bbox_roi_extractor=dict(featmap_strides=xray_strides[:4])),
)
