# ConvNeXt-T from ImageNet.
_base_ = './faster-rcnn_fpn.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.DetectorConvNeXt',
        arch='tiny',
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/convnext/'
            'convnext-tiny_32xb128_in1k_20221207-998cf3e9.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
