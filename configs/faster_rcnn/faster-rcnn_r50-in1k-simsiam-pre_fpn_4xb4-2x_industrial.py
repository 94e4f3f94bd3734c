# ImageNet weights continued with SimSiam on the plant's own radiographs.
# Command: tools/dist_train.sh <this file> 4
# Cost: as its baseline.
_base_ = './faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='work_dirs/simsiam_resnet50-in1k-pre_4xb64-coslr-100e_industrial-224px/epoch_100.pth',
            prefix='backbone.',
        )
    )
)
