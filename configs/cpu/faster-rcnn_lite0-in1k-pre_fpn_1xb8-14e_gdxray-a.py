# Faster R-CNN at native size, EfficientNet-Lite0 from ImageNet, on GDXray castings, protocol A.
# Command: python tools/train.py <this file>
# Cost: 617 images / 8 = 78 iterations an epoch, 1,092 in 14 epochs.
_base_ = '../_base_/detectors/faster-rcnn_lite0_native.py'
train_dataloader = dict(dataset=dict(ann_file='a/train.json', **_base_.xray_gdxray))
val_dataloader = dict(dataset=dict(ann_file='a/val.json', **_base_.xray_gdxray))
test_dataloader = dict(dataset=dict(ann_file='a/test.json', **_base_.xray_gdxray))
val_evaluator = dict(ann_file='data/gdxray/a/val.json')
test_evaluator = dict(ann_file='data/gdxray/a/test.json')
