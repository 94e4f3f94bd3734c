# SimSiam weights of the plant's own radiographs instead of ImageNet's.
# Command: tools/dist_train.sh <this file> 4
# Cost: as its baseline.
_base_ = './mask-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='work_dirs/simsiam_resnet50_4xb64-coslr-100e_industrial-224px/epoch_100.pth',
            prefix='backbone.',
        )
    )
)
