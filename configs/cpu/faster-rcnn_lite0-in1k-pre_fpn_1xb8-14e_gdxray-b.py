# Faster R-CNN at native size, EfficientNet-Lite0 from ImageNet, on GDXray castings, protocol B.
# Command: python tools/train.py <this file>
# Cost: 571 images / 8 = 72 iterations an epoch, 1,008 in 14 epochs.
_base_ = '../_base_/detectors/faster-rcnn_lite0_native.py'
train_dataloader = dict(dataset=dict(ann_file='b/train.json', **_base_.xray_gdxray))
val_dataloader = dict(dataset=dict(ann_file='b/val.json', **_base_.xray_gdxray))
test_dataloader = dict(dataset=dict(ann_file='b/test.json', **_base_.xray_gdxray))
val_evaluator = dict(ann_file='data/gdxray/b/val.json')
test_evaluator = dict(ann_file='data/gdxray/b/test.json')
