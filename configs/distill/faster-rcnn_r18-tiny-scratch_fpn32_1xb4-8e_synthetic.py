# A student at CPU scale, alone: quarter-width ResNet-18 with a 32-channel FPN, on generated radiographs.
# Command: python tools/train.py <this file>
_base_ = ['../small/faster-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic.py', '../_base_/xray_distill.py']
model = _base_.xray_tiny
