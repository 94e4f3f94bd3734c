# A 64-channel FPN for two CPU cores: at 256 channels FPN and RPN are two thirds of the cost.
# Small samples: with few flaws an image, 256 anchors would be nearly all background. Few proposals: on a CPU,
# NMS of 2,000 a level costs more than the backbone.
_base_ = './faster-rcnn_fpn.py'
model = dict(
    neck=dict(out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64), bbox_head=dict(in_channels=64, fc_out_channels=256)
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=48)),
        rpn_proposal=dict(nms_pre=300, max_per_img=150),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=150)),
)
