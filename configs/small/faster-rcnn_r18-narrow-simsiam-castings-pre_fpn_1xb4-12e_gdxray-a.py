# SimSiam weights of GDXray castings without the series tested here.
# Command: python tools/train.py <this file>
_base_ = './faster-rcnn_r18-narrow-scratch_fpn_1xb4-12e_gdxray-a.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='work_dirs/simsiam_resnet18-narrow_1xb64-coslr-20e_castings-a-128px/epoch_20.pth',
            prefix='backbone.',
        )
    )
)
