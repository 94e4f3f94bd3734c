# Generated radiographs at 128 px, for two CPU cores.
_base_ = './industrial_probe.py'
# The baseline's pipelines with another input size.
xray_resize = dict(type='XrayResize', scale=(128, 128))
xray_train_pipeline = [_base_.xray_load, xray_resize, *_base_.train_dataloader['dataset']['pipeline'][2:]]
xray_test_pipeline = [_base_.xray_load, xray_resize, *_base_.test_dataloader['dataset']['pipeline'][2:]]
xray_set = dict(data_root='data/synthetic', severity='castings')
train_dataloader = dict(dataset=dict(pipeline=xray_train_pipeline, **xray_set), **_base_.xray_two_cores)
val_dataloader = dict(dataset=dict(pipeline=xray_test_pipeline, **xray_set), **_base_.xray_two_cores)
test_dataloader = dict(dataset=dict(pipeline=xray_test_pipeline, **xray_set), **_base_.xray_two_cores)
default_hooks = dict(logger=dict(interval=5))
