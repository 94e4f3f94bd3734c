# Cascade R-CNN (Cai and Vasconcelos, arXiv:1712.00726) on drawn flaws: three box heads, each of which mends
# the extents of the one before.
# Command: python tools/train.py <this file>
# Cost: as its baseline, with three box heads.
_base_ = './drawn_lite0-in1k-pre_fpn_1xb4-4e_castings-b-160px.py'
# The stages of mmdet's cascade-rcnn_r50_fpn.
model = dict(
    type='CascadeRCNN',
    roi_head=dict(
        type='CascadeRoIHead',
        num_stages=3,
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_head=[
            dict(
                _base_.model.roi_head.bbox_head,
                reg_class_agnostic=True,
                bbox_coder=dict(_base_.model.roi_head.bbox_head.bbox_coder, target_stds=stds),
                loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0),
            )
            for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
        ],
    ),
    train_cfg=dict(
        rcnn=[
            dict(
                _base_.model.train_cfg.rcnn,
                assigner=dict(
                    _base_.model.train_cfg.rcnn.assigner, pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou
                ),
            )
            for iou in (0.5, 0.6, 0.7)
        ]
    ),
)
