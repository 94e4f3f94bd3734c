# Flaws drawn into unlabelled castings, without the test series of protocol B.
_base_ = './gdxray-b_half_detection.py'
xray_drawn = dict(
    data_root='data/gdxray',
    ann_file='b/unlabeled.txt',
    pipeline=[_base_.xray_load, _base_.xray_voids, *_base_.xray_crops],
    **_base_.xray_backgrounds,
)
train_dataloader = dict(
    batch_sampler=None,  # crops are square; an unlabelled list does not state image sizes
    dataset=dict(_delete_=True, **xray_drawn),
)
