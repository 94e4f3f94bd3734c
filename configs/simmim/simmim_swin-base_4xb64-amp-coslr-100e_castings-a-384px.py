# SimMIM on GDXray castings, without the series that protocol A tests on.
# Command: tools/dist_train.sh <this file> 4
# Cost: 1,433 radiographs, each 20 times an epoch, about match the 27,901 of the baseline: 11,100 iterations.
_base_ = './simmim_swin-base_4xb64-amp-coslr-100e_industrial-384px.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',
        times=20,
        dataset=dict(pipeline=_base_.xray_simmim_pipeline, **_base_.xray_castings_a),
    )
)
