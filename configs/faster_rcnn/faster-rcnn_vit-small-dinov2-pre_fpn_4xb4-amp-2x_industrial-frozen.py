# DINOv2's backbone stays as it is; only pyramid and heads learn.
# Command: tools/dist_train.sh <this file> 4
# Cost: as its baseline, without the backbone's backward pass.
_base_ = './faster-rcnn_vit-small-dinov2-pre_fpn_4xb4-amp-2x_industrial.py'
model = dict(backbone=dict(frozen_stages=12))
