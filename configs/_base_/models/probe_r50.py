# A linear head on a frozen ResNet-50, whose pooled features are standardised.
_base_ = 'mmpretrain::_base_/models/resnet50.py'
model = dict(
    backbone=dict(frozen_stages=4, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    neck=dict(_delete_=True, type='StandardisedPooling', input_features=2048),
    head=dict(num_classes=2, topk=(1,)),
)
