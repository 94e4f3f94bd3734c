# EfficientNet-Lite0 for radiographs at native size: samples and proposals for crops with a few flaws each.
_base_ = './faster-rcnn_lite0_fpn.py'
model = dict(
    train_cfg=dict(rpn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)
# Cascade R-CNN (Cai and Vasconcelos, arXiv:1712.00726): three box heads, each of which mends the extents of
# the one before. The stages are those of mmdet's cascade-rcnn_r50_fpn; what they add to the box head:
xray_stages = [
    dict(
        reg_class_agnostic=True,
        bbox_coder=dict(_base_.model.roi_head.bbox_head.bbox_coder, target_stds=stds),
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0),
    )
    for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
]
xray_cascade = dict(type='CascadeRoIHead', num_stages=3, stage_loss_weights=[1, 0.5, 0.25])
xray_cascade_trained = [
    dict(
        _base_.model.train_cfg.rcnn,
        assigner=dict(
            _base_.model.train_cfg.rcnn.assigner, pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou
        ),
    )
    for iou in (0.5, 0.6, 0.7)
]
