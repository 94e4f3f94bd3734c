# Flaws drawn into unlabelled welds at native size, none of which is an annotated one; fold 0 tests.
_base_ = './welds-0_native_detection.py'
train_dataloader = dict(
    batch_sampler=None,  # crops are square; an unlabelled list does not say how wide its images are
    dataset=dict(
        _delete_=True,
        data_root='data/welds',
        ann_file='unlabeled.txt',
        # Weld films are scans on which less metal is darker.
        pipeline=[_base_.xray_load, dict(type='DrawFlaws', number=(1, 6), film=True), *_base_.xray_crops],
        **_base_.xray_backgrounds,
    ),
)
