# Industrial radiographs at 1024 px, critical and minor defects.
_base_ = '../detection.py'
from projects.xray.classes import CLASSES as xray_classes, PALETTE as xray_palette  # noqa: E401, E402, I001

# Values of the model that depend on the data; a baseline passes them on.
xray_heads = dict(roi_head=dict(bbox_head=dict(num_classes=len(xray_classes))))

# Which defect types are critical: name of a map in the code, or path of a file.
xray_severity = 'castings'
xray_resize = dict(type='Resize', scale=(1024, 1024), keep_ratio=True)
# Radiographs without a defect are kept, so that the detector learns not to mark sound material.
xray_set = dict(
    type='XrayDefects',
    data_root='data/industrial',
    data_prefix=dict(img='images'),
    metainfo=dict(classes=xray_classes, palette=xray_palette),
    severity=xray_severity,
    filter_cfg=dict(filter_empty_gt=False),
)
# The steps before and after the resize.
xray_boxes = dict(type='LoadAnnotations', with_bbox=True)
xray_annotated = [_base_.xray_load, xray_boxes]
xray_augmented = [dict(type='XrayRandomFlip', prob=0.5), dict(type='PackDetInputs')]
xray_tested = [xray_boxes, _base_.xray_pack]
xray_test_set = dict(test_mode=True, pipeline=[_base_.xray_load, xray_resize, *xray_tested], **xray_set)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(ann_file='train.json', pipeline=[*xray_annotated, xray_resize, *xray_augmented], **xray_set),
    **_base_.xray_train_loader,
)
val_dataloader = dict(dataset=dict(ann_file='val.json', **xray_test_set), **_base_.xray_test_loader)
test_dataloader = dict(dataset=dict(ann_file='test.json', **xray_test_set), **_base_.xray_test_loader)
val_evaluator = dict(type='XrayDefectMetric', ann_file='data/industrial/val.json', severity=xray_severity)
test_evaluator = dict(type='XrayDefectMetric', ann_file='data/industrial/test.json', severity=xray_severity)
