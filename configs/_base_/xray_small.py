# What the CPU-scale detectors share beyond their full recipes. Exports xray_small_* variables only.

# A 64-channel FPN: at 256 channels FPN and RPN are two thirds of the cost. Anchors shrink with the input.
# Small samples: with few flaws an image, 256 anchors would be nearly all background. Few proposals:
# on a CPU, NMS of 2,000 a level costs more than the backbone.
xray_small_heads = dict(
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[2, 3])),
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
# AdamW: in so few updates SGD at 0.02 finds half as much.
xray_small_adamw = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
