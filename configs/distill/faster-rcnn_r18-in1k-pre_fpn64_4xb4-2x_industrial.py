# The line's student alone: ResNet-18 from ImageNet with a 64-channel FPN, for 0.126 s on two CPU cores.
# Command: tools/dist_train.sh <this file> 4
# Cost: the iterations of the ResNet-50, a quarter of its operations (44 against 209 GMAC a radiograph).
_base_ = [
    '../faster_rcnn/faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial.py',
    '../_base_/xray_distill.py',
]
model = dict(backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')), **_base_.xray_fpn64)
