# Flaws drawn into unlabelled castings, without the test images of protocol A and their copies.
_base_ = './gdxray-a_crops_detection.py'
train_dataloader = dict(
    batch_sampler=None,  # crops are square; an unlabelled list does not state image sizes
    dataset=dict(
        _delete_=True,
        data_root='data/gdxray',
        ann_file='a/unlabeled.txt',
        pipeline=[_base_.xray_load, _base_.xray_voids, *_base_.xray_crops],
        **_base_.xray_backgrounds,
    ),
)
