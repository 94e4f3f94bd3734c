# SimMIM weights of generated radiographs.
# Command: python tools/train.py <this file>
_base_ = './faster-rcnn_swin-narrow-scratch_fpn_1xb4-8e_synthetic.py'
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
