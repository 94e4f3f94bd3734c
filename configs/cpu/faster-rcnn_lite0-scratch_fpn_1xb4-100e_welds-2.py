# No pretraining at all.
# Command: python tools/train.py <this file>
# Cost: as its baseline.
_base_ = './faster-rcnn_lite0-in1k-pre_fpn_1xb4-100e_welds-2.py'
model = dict(backbone=dict(init_cfg=None))  # the class initialises itself (Kaiming)
