# Continued from ImageNet weights.
# Command: python tools/train.py <this file>
# Cost: as its baseline.
_base_ = './simsiam_lite0_1xb64-coslr-20e_castings-b-160px.py'
model = dict(
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='package://efficientnet-lite0', prefix='backbone.')
    )
)
