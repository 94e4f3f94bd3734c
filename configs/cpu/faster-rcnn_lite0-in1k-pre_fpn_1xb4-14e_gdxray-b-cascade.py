# Cascade R-CNN on GDXray castings, protocol B: three box heads, each of which mends the extents of the one
# before.
# Command: python tools/train.py <this file>
# Cost: as its baseline, with three box heads.
_base_ = './faster-rcnn_lite0-in1k-pre_fpn_1xb4-14e_gdxray-b.py'
model = dict(
    type='CascadeRCNN',
    roi_head=dict(
        bbox_head=[dict(_base_.model.roi_head.bbox_head, **stage) for stage in _base_.xray_stages],
        **_base_.xray_cascade,
    ),
    train_cfg=dict(rcnn=_base_.xray_cascade_trained),
)
