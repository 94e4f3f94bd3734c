# EfficientNet-Lite0 for radiographs at native size: samples and proposals for crops with a few flaws each.
_base_ = './faster-rcnn_lite0_fpn.py'
model = dict(
    train_cfg=dict(rpn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)
