# Linear probe of the Swin-B that SimMIM pretrained on the plant's radiographs (paper Table 2).
# Command: tools/dist_train.sh <this file> 4
# Cost: as its baseline, 1,710 iterations.
_base_ = './swin-base-in1k-pre_4xb64-linear-coslr-90e_industrial-384px.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='work_dirs/simmim_swin-base_4xb64-amp-coslr-100e_industrial-384px/epoch_100.pth',
            prefix='backbone.',
        )
    )
)
