# No pretraining at all.
# Command: python tools/train.py <this file>
_base_ = './faster-rcnn_lite0-in1k-pre_fpn_1xb4-4e_synthetic.py'
model = dict(backbone=dict(init_cfg=None))  # the class initialises itself (Kaiming)
