# Flaws drawn into unlabelled welds at native size, without the annotated films; tested on fold 0.
_base_ = './welds-0_native_detection.py'
train_dataloader = dict(
    batch_sampler=None,  # crops are square; an unlabelled list does not state image sizes
    dataset=dict(
        _delete_=True,
        data_root='data/welds',
        ann_file='unlabeled.txt',
        # On scanned weld films less metal is darker.
        pipeline=[_base_.xray_load, dict(type='DrawFlaws', number=(1, 6), film=True), *_base_.xray_crops],
        **_base_.xray_backgrounds,
    ),
)
