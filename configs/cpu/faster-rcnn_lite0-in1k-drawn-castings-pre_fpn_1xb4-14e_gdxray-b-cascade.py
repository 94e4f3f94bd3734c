# The whole detector pretrained on flaws drawn into unlabelled castings, continued from ImageNet weights.
# Command: python tools/train.py <this file>
# Cost: as its baseline.
_base_ = './faster-rcnn_lite0-in1k-pre_fpn_1xb4-14e_gdxray-b-cascade.py'
load_from = 'work_dirs/drawn_lite0-in1k-pre_fpn_1xb4-4e_castings-b-cascade-160px/epoch_4.pth'
