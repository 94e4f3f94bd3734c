# Linear probe: is there a critical defect in this radiograph? Exports xray_* variables only.
_base_ = ['./xray_runtime.py', './models/swin-base_in1k.py']
from projects.xray.norm import MEAN as xray_mean, STD as xray_std  # noqa: E401, E402, I001

xray_norm = dict(mean=[xray_mean], std=[xray_std])

# The whole image is resized: a random or a centre crop can cut the defect out.
xray_probe_train_pipeline = [
    _base_.xray_load,
    dict(type='XrayResize', scale=(224, 224)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
xray_probe_test_pipeline = [
    _base_.xray_load,
    dict(type='XrayResize', scale=(224, 224)),
    dict(type='PackInputs'),
]
xray_probe_384_train_pipeline = [
    _base_.xray_load,
    dict(type='XrayResize', scale=(384, 384)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
xray_probe_384_test_pipeline = [
    _base_.xray_load,
    dict(type='XrayResize', scale=(384, 384)),
    dict(type='PackInputs'),
]

xray_industrial = dict(
    type='XraySeverity',
    data_root='data/industrial',
    data_prefix=dict(img_path='images'),
    metainfo=dict(classes=('critical', 'minor')),
    severity='castings',
)

xray_probe_train_loader = dict(
    sampler=_base_.xray_shuffle, collate_fn=dict(type='default_collate'), **_base_.xray_workers
)
xray_probe_test_loader = dict(
    sampler=_base_.xray_in_order, collate_fn=dict(type='default_collate'), **_base_.xray_workers
)
xray_metric = dict(type='XraySeverityMetric')
xray_probe_checkpoint = dict(save_best='xray/mAP', rule='greater', **_base_.xray_checkpoint)

# SGD, 0.1 per 256 images, no decay, on standardised features (StandardisedPooling). LARS, SimSiam's choice
# for batches of 4,096, moves a head by a small share of its own size: in 80 updates it hardly leaves the
# class that most images have.
xray_probe_sgd = dict(type='SGD', momentum=0.9, weight_decay=0.0, lr=0.1)
