# Faster R-CNN at native size, EfficientNet-Lite0 from ImageNet, on GDXray welds, fold 1 of three.
# Command: python tools/train.py <this file>
# Cost: 24 tiles / 8 = 3 iterations an epoch, 600 in 200 epochs.
_base_ = '../_base_/detectors/faster-rcnn_lite0_native.py'
train_dataloader = dict(dataset=dict(ann_file='1/train.json', **_base_.xray_native_welds))
val_dataloader = dict(dataset=dict(ann_file='1/val.json', **_base_.xray_native_welds))
test_dataloader = dict(dataset=dict(ann_file='1/test.json', **_base_.xray_native_welds))
val_evaluator = dict(ann_file='data/welds/1/val.json', drop_series=())
test_evaluator = dict(ann_file='data/welds/1/test.json', drop_series=())
train_cfg = dict(max_epochs=200, val_interval=50)
param_scheduler = [_base_.xray_native_warmup, dict(T_max=200, end=200, **_base_.xray_native_cosine)]
