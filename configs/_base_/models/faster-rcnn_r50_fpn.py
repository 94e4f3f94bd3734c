# ResNet-50. Batch norm is trained and nothing is frozen, in every arm: statistics and stem of ImageNet are
# not those of a self-supervised backbone. sync_bn makes one group of the images on all GPUs.
_base_ = './faster-rcnn_fpn.py'
sync_bn = 'torch'
model = dict(backbone=dict(frozen_stages=-1, norm_eval=False))
