# SimMIM weights of the industrial radiographs, transferred (paper Table 3), instead of ImageNet's.
# Command: tools/dist_train.sh <this file> 4
# Cost: as its baseline.
_base_ = './faster-rcnn_swin-base-in1k-pre_fpn_4xb4-amp-6x_gdxray-a.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='work_dirs/simmim_swin-base_4xb64-amp-coslr-100e_industrial-384px/epoch_100.pth',
            prefix='backbone.',
        )
    )
)
