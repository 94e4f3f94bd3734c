# The whole detector, from ImageNet weights, on flaws drawn into unlabelled castings, without the series that
# protocol B tests on. No label is read; its own val and test say what it finds so.
# Command: python tools/train.py <this file>
# Cost: 1,818 images / 8 = 228 iterations an epoch, 912 in 4 epochs.
_base_ = '../_base_/detectors/faster-rcnn_lite0_native.py'
train_dataloader = dict(
    batch_sampler=None,  # crops are square; an unlabelled list does not say how wide its images are
    dataset=dict(_delete_=True, pipeline=_base_.xray_native_drawn_pipeline, **_base_.xray_native_castings_b),
)
val_dataloader = dict(dataset=dict(ann_file='b/val.json', **_base_.xray_gdxray))
test_dataloader = dict(dataset=dict(ann_file='b/test.json', **_base_.xray_gdxray))
val_evaluator = dict(ann_file='data/gdxray/b/val.json')
test_evaluator = dict(ann_file='data/gdxray/b/test.json')
train_cfg = dict(max_epochs=4, val_interval=4)
param_scheduler = [
    _base_.xray_native_warmup,
    dict(T_max=4, end=4, **_base_.xray_native_cosine),
]
