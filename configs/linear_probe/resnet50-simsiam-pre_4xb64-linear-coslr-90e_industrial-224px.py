# Linear probe of the ResNet-50 that SimSiam pretrained on the plant's radiographs (paper Table 2).
# Command: tools/dist_train.sh <this file> 4
# Cost: as its baseline, 1,710 iterations.
_base_ = './resnet50-in1k-pre_4xb64-linear-coslr-90e_industrial-224px.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='work_dirs/simsiam_resnet50_4xb64-coslr-100e_industrial-224px/epoch_100.pth',
            prefix='backbone.',
        )
    )
)
