# SimSiam weights of GDXray castings without the series tested here, continued from ImageNet weights.
# Command: python tools/train.py <this file>
# Cost: as its baseline.
_base_ = './faster-rcnn_lite0-in1k-pre_fpn_1xb4-14e_gdxray-b.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='work_dirs/simsiam_lite0-in1k-pre_1xb64-coslr-20e_castings-b-160px/epoch_20.pth'
        )
    )
)
