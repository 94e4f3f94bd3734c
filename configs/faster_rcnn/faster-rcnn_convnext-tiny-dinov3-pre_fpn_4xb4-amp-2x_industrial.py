# DINOv3 weights, self-supervised on photographs; by their licence each user downloads them from Meta.
# Command: tools/dist_train.sh <this file> 4
# Cost: as its baseline.
_base_ = './faster-rcnn_convnext-tiny-in1k-pre_fpn_4xb4-amp-2x_industrial.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='data/weights/dinov3_convnext_tiny_pretrain_lvd1689m-21b726bb.pth',
        )
    )
)
