# No pretraining at all.
# Command: tools/dist_train.sh <this file> 4
# Cost: as its baseline.
_base_ = './faster-rcnn_vit-small-dinov2-pre_fpn_4xb4-amp-2x_industrial.py'
model = dict(backbone=dict(init_cfg=None))  # the class initialises itself
