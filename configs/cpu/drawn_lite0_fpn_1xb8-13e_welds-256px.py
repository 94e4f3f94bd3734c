# The whole detector on flaws drawn into unlabelled welds, none of which is an annotated one. No label is
# read; fold 0 says what it finds so.
# Command: python tools/train.py <this file>
# Cost: 556 tiles / 8 = 70 iterations an epoch, 910 in 13 epochs.
_base_ = '../_base_/detectors/faster-rcnn_lite0_native.py'
model = dict(backbone=dict(init_cfg=None))
train_dataloader = dict(
    batch_sampler=None,  # crops are square; an unlabelled list does not say how wide its images are
    dataset=dict(
        _delete_=True, pipeline=_base_.xray_native_drawn_welds_pipeline, **_base_.xray_native_welds_archive
    ),
)
val_dataloader = dict(dataset=dict(ann_file='0/val.json', **_base_.xray_native_welds))
test_dataloader = dict(dataset=dict(ann_file='0/test.json', **_base_.xray_native_welds))
val_evaluator = dict(ann_file='data/welds/0/val.json', drop_series=())
test_evaluator = dict(ann_file='data/welds/0/test.json', drop_series=())
train_cfg = dict(max_epochs=13, val_interval=13)
param_scheduler = [_base_.xray_native_warmup, dict(T_max=13, end=13, **_base_.xray_native_cosine)]
