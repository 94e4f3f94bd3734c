# SimSiam ResNet-18 on GDXray castings, without the series that protocol B tests on.
# Command: python tools/train.py <this file>
_base_ = './simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px.py'
train_dataloader = dict(dataset=dict(**_base_.xray_castings_b))
