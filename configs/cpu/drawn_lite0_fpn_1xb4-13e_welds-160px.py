# The same with a backbone from random weights.
# Command: python tools/train.py <this file>
# Cost: as its baseline.
_base_ = './drawn_lite0-in1k-pre_fpn_1xb4-13e_welds-160px.py'
model = dict(backbone=dict(init_cfg=None))  # the class initialises itself (Kaiming)
