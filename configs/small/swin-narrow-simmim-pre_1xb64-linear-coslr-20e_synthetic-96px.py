# Linear probe of the narrow Swin that SimMIM pretrained on generated radiographs.
# Command: python tools/train.py <this file>
_base_ = './swin-narrow-scratch_1xb64-linear-coslr-20e_synthetic-96px.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='work_dirs/simmim_swin-narrow_1xb32-coslr-20e_synthetic-96px/epoch_20.pth',
            prefix='backbone.',
        )
    )
)
