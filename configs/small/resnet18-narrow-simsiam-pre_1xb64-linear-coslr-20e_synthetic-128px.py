# Linear probe of the ResNet-18 that SimSiam pretrained on generated radiographs.
# Command: python tools/train.py <this file>
_base_ = './resnet18-narrow-scratch_1xb64-linear-coslr-20e_synthetic-128px.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='work_dirs/simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px/epoch_20.pth',
            prefix='backbone.',
        )
    )
)
