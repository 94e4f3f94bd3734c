# SimMIM of the narrow Swin on GDXray castings, without the series that protocol B tests on.
# Command: python tools/train.py <this file>
_base_ = './simmim_swin-narrow_1xb32-coslr-20e_synthetic-96px.py'
train_dataloader = dict(dataset=dict(**_base_.xray_castings_b))
