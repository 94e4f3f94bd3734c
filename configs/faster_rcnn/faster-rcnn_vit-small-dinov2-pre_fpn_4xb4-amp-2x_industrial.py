# Faster R-CNN on industrial radiographs, ViT-S from DINOv2, self-supervised on photographs.
# Command: tools/dist_train.sh <this file> 4
# Cost: 4,624 images / 16 = 289 iterations an epoch, 6,936 in 24 epochs.
_base_ = [
    '../_base_/models/faster-rcnn_vit-small_fpn.py',
    '../_base_/datasets/industrial_detection.py',
    '../_base_/schedules/adamw-amp-2x.py',
]
model = _base_.xray_heads
# No weight decay of norms and position table, which have other names in a ViT than in Swin.
optim_wrapper = dict(
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys=dict(cls_token=dict(decay_mult=0.0), pos_embed=dict(decay_mult=0.0)),
    )
)
