# SimMIM weights of GDXray castings without the series tested here.
# Command: python tools/train.py <this file>
_base_ = './faster-rcnn_swin-narrow-scratch_fpn_1xb4-12e_gdxray-b.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='work_dirs/simmim_swin-narrow_1xb32-coslr-20e_castings-b-96px/epoch_20.pth',
            prefix='backbone.',
        )
    )
)
