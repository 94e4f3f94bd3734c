"""Config of a detector as tools/check_dataset.py reads it, of a data set in the converters' layout."""

CONFIG = """
custom_imports = dict(imports=['projects.xray.datasets', 'projects.xray.transforms'])
default_scope = 'mmdet'
model = dict(
    type='FasterRCNN',
    rpn_head=dict(anchor_generator=dict(
        type='AnchorGenerator', scales=[6, 8], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64])),
    roi_head=dict(bbox_head=dict(num_classes=2)))
pipeline = [
    dict(type='LoadXray', window=dict(type='full')),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=({px}, {px}), keep_ratio=True),
    dict(type='PackDetInputs')]
dataset = dict(
    type='XrayDefects', data_root='{root}', data_prefix=dict(img='images'), pipeline=pipeline,
    metainfo=dict(classes={classes}))
train_dataloader = dict(dataset=dict(ann_file='train.json', **dataset))
val_dataloader = dict(dataset=dict(ann_file='val.json', **dataset))
test_dataloader = dict(dataset=dict(ann_file='test.json', **dataset))
"""
