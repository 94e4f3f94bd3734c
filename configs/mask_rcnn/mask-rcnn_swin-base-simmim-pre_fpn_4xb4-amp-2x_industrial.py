# SimMIM weights of the plant's own radiographs instead of ImageNet's.
# Command: tools/dist_train.sh <this file> 4
# Cost: as its baseline.
_base_ = './mask-rcnn_swin-base-in1k-pre_fpn_4xb4-amp-2x_industrial.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='work_dirs/simmim_swin-base_4xb64-amp-coslr-100e_industrial-384px/epoch_100.pth',
            prefix='backbone.',
        )
    )
)
