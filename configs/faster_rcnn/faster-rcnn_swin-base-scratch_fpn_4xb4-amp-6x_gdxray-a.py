# No pretraining at all.
# Command: tools/dist_train.sh <this file> 4
# Cost: as its baseline.
_base_ = './faster-rcnn_swin-base-in1k-pre_fpn_4xb4-amp-6x_gdxray-a.py'
# Without this, Linear layers keep PyTorch's default initialisation, which is five times as wide.
model = dict(
    backbone=dict(init_cfg=dict(_delete_=True, type='TruncNormal', layer='Linear', std=0.02, bias=0.0))
)
