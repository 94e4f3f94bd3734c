# SimMIM continued from ImageNet weights: does the plant's own data add to what ImageNet taught?
# Command: tools/dist_train.sh <this file> 4
# Cost: as its baseline, 10,900 iterations.
_base_ = './simmim_swin-base_4xb64-amp-coslr-100e_industrial-384px.py'
model = dict(backbone=dict(init_cfg=_base_.xray_swin_base_in1k))
