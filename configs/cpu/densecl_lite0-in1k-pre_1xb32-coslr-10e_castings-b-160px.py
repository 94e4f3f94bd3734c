# Continued from ImageNet weights.
# Command: python tools/train.py <this file>
# Cost: as its baseline.
_base_ = './densecl_lite0_1xb32-coslr-10e_castings-b-160px.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True, type='Pretrained', checkpoint='package://efficientnet-lite0', prefix='backbone.'
        )
    )
)
