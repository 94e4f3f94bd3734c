# The line's student alone: ResNet-18 from ImageNet with a 64-channel FPN, for 0.126 s on two CPU cores.
# Command: tools/dist_train.sh <this file> 4
# Cost: as the ResNet-50's in iterations, a quarter in operations (44 against 209 GMAC a radiograph).
_base_ = '../faster_rcnn/faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial.py'
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64), bbox_head=dict(in_channels=64, fc_out_channels=256)
    ),
    # With few defects an image, 1,000 proposals would cost as much as the backbone.
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)
