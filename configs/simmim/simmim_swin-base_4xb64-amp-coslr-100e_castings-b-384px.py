# SimMIM on GDXray castings, without the series that protocol B tests on.
# Command: tools/dist_train.sh <this file> 4
# Cost: the list read 20 times an epoch gives about as many iterations as its baseline's 10,800.
_base_ = './simmim_swin-base_4xb64-amp-coslr-100e_industrial-384px.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',
        times=20,
        dataset=dict(pipeline=_base_.xray_simmim_pipeline, **_base_.xray_castings_b),
    )
)
