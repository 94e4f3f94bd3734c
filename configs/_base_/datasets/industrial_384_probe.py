# Industrial radiographs at 384 px.
_base_ = './industrial_probe.py'
# The baseline's pipelines with another input size.
xray_resize = dict(type='XrayResize', scale=(384, 384))
xray_train_pipeline = [_base_.xray_load, xray_resize, *_base_.train_dataloader['dataset']['pipeline'][2:]]
xray_test_pipeline = [_base_.xray_load, xray_resize, *_base_.test_dataloader['dataset']['pipeline'][2:]]
train_dataloader = dict(dataset=dict(pipeline=xray_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=xray_test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=xray_test_pipeline))
