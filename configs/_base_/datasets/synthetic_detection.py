# Generated radiographs at 192 px, for two CPU cores, with smaller anchors.
_base_ = './industrial_detection.py'
xray_heads = dict(rpn_head=dict(anchor_generator=dict(scales=[2, 3])))

xray_resize = dict(type='Resize', scale=(192, 192), keep_ratio=True)
xray_set = dict(data_root='data/synthetic', severity='castings')
# The inherited pipelines with this input size.
xray_train_pipeline = [*_base_.xray_annotated, xray_resize, *_base_.xray_augmented]
xray_test_pipeline = [_base_.xray_load, xray_resize, *_base_.xray_tested]
train_dataloader = dict(dataset=dict(pipeline=xray_train_pipeline, **xray_set), **_base_.xray_two_cores)
val_dataloader = dict(dataset=dict(pipeline=xray_test_pipeline, **xray_set), **_base_.xray_two_cores)
test_dataloader = dict(dataset=dict(pipeline=xray_test_pipeline, **xray_set), **_base_.xray_two_cores)
val_evaluator = dict(ann_file='data/synthetic/val.json', severity='castings')
test_evaluator = dict(ann_file='data/synthetic/test.json', severity='castings')
default_hooks = dict(logger=dict(interval=30))
