# SimSiam on GDXray castings, without the series that protocol B tests on.
# Command: tools/dist_train.sh <this file> 4
# Cost: 1,818 radiographs, each 15 times an epoch, about match the 27,901 of the baseline: 10,600 iterations.
_base_ = './simsiam_resnet50_4xb64-coslr-100e_industrial-224px.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',
        times=15,
        dataset=dict(pipeline=_base_.xray_simsiam_pipeline, **_base_.xray_castings_b),
    )
)
