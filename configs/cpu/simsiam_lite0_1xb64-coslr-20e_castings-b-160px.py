# SimSiam, EfficientNet-Lite0, on GDXray castings at native size, without the test series of protocol B.
# Both views are cut from one small square, so that they share what is small.
# Command: python tools/train.py <this file>
# Cost: 1,818 radiographs / 64 = 28 iterations an epoch, 560 in 20 epochs.
_base_ = '../small/simsiam_resnet18-narrow_1xb64-coslr-20e_castings-b-128px.py'

model = dict(
    backbone=dict(_delete_=True, type='EfficientNetLite0', out_indices=(5,)),
    neck=dict(in_channels=320),
)
train_dataloader = dict(dataset=dict(pipeline=_base_.xray_dense_pipeline))
