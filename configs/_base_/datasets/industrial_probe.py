# Industrial radiographs at 224 px, classified by whether they show a critical defect.
_base_ = '../probe.py'
from projects.xray.norm import MEAN as xray_mean, STD as xray_std  # noqa: E401, E402, I001

# The whole image is resized, since a random or centre crop could miss the defect.
xray_resize = dict(type='XrayResize', scale=(224, 224))
xray_set = dict(
    type='XraySeverity',
    data_root='data/industrial',
    data_prefix=dict(img_path='images'),
    metainfo=dict(classes=('critical', 'minor')),
    severity='castings',
)
xray_test_set = dict(
    test_mode=True, pipeline=[_base_.xray_load, xray_resize, dict(type='PackInputs')], **xray_set
)
data_preprocessor = dict(type='XrayClsDataPreprocessor', mean=[xray_mean], std=[xray_std])
train_dataloader = dict(
    batch_size=64,
    dataset=dict(
        ann_file='train.json',
        pipeline=[
            _base_.xray_load,
            xray_resize,
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
        **xray_set,
    ),
    **_base_.xray_train_loader,
)
val_dataloader = dict(
    batch_size=64, dataset=dict(ann_file='val.json', **xray_test_set), **_base_.xray_test_loader
)
test_dataloader = dict(
    batch_size=64, dataset=dict(ann_file='test.json', **xray_test_set), **_base_.xray_test_loader
)
val_evaluator = dict(type='XraySeverityMetric')
test_evaluator = dict(type='XraySeverityMetric')
