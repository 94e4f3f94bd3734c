# SimSiam weights of generated radiographs.
# Command: python tools/train.py <this file>
# Cost: as its baseline.
_base_ = './faster-rcnn_r50-scratch_fpn_1xb8-amp-24e_synthetic-1024.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='work_dirs/simsiam_resnet50_1xb256-amp-coslr-100e_synthetic-1024-224px/epoch_100.pth',
            prefix='backbone.',
        )
    )
)
