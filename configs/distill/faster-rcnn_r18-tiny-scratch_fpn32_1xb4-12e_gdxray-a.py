# A student at CPU scale, alone: quarter-width ResNet-18 with a 32-channel FPN, on castings, protocol A.
# Command: python tools/train.py <this file>
_base_ = ['../small/faster-rcnn_r18-narrow-scratch_fpn_1xb4-12e_gdxray-a.py', '../_base_/xray_distill.py']
model = _base_.xray_tiny
