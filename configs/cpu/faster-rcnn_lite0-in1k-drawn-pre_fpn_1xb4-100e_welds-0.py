# The whole detector pretrained on flaws drawn into unlabelled welds, continued from ImageNet weights.
# Command: python tools/train.py <this file>
# Cost: as its baseline.
_base_ = './faster-rcnn_lite0-in1k-pre_fpn_1xb4-100e_welds-0.py'
load_from = 'work_dirs/drawn_lite0-in1k-pre_fpn_1xb4-13e_welds-160px/epoch_13.pth'
