# ResNet-50. sync_bn normalises over the images on all GPUs.
_base_ = './mask-rcnn_fpn.py'
sync_bn = 'torch'
model = dict(backbone=_base_.xray_trained)
