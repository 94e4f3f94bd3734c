# Settings that Faster R-CNN and Mask R-CNN share. Exports xray_* variables only.
_base_ = './models/swin-base_in1k.py'
from projects.xray.norm import MEAN as xray_mean, STD as xray_std  # noqa: E401, E402, I001

# One input channel.
xray_one_channel = dict(type='XrayDetDataPreprocessor', pad_size_divisor=32, mean=[xray_mean], std=[xray_std])
# Crowd and difficult objects are ignored; mmdet would assign them to the background.
xray_ignoring = dict(
    rpn=dict(assigner=dict(type='XrayMaxIoUAssigner')), rcnn=dict(assigner=dict(type='XrayMaxIoUAssigner'))
)
# ResNet: in every arm batch norm is trained and nothing is frozen, since the statistics and stem of a
# self-supervised backbone differ from ImageNet's.
xray_trained = dict(frozen_stages=-1, norm_eval=False)
# Swin-B from ImageNet: the paper's "Swin-T" has window 12 and 1024 = 128 * 2**3 final channels.
xray_swin_base = dict(
    type='mmpretrain.SwinTransformer',
    arch='base',
    img_size=1024,
    out_indices=(0, 1, 2, 3),
    drop_path_rate=0.2,
    pad_small_map=True,  # maps of 256, 128, 64 and 32 are padded to multiples of the window
    stage_cfgs=_base_.xray_window_12,
    init_cfg=_base_.xray_swin_base_in1k,
)
xray_swin_base_neck = dict(in_channels=[128, 256, 512, 1024])
# Half-width ResNet-18 without pretraining.
xray_r18_narrow = dict(depth=18, stem_channels=32, base_channels=32, init_cfg=None, **xray_trained)
# A 64-channel FPN for two CPU cores: with 256 channels, FPN and RPN would be two thirds of the cost.
# Small samples: with few flaws per image, 256 anchors would be nearly all background. Few proposals: on a
# CPU, NMS of 2,000 per level costs more than the backbone.
xray_narrow_rpn = dict(in_channels=64, feat_channels=64)
xray_narrow_box = dict(
    bbox_roi_extractor=dict(out_channels=64), bbox_head=dict(in_channels=64, fc_out_channels=256)
)
xray_few = dict(
    rpn=dict(sampler=dict(num=48)),
    rpn_proposal=dict(nms_pre=300, max_per_img=150),
    rcnn=dict(sampler=dict(num=64)),
)
xray_few_tested = dict(rpn=dict(nms_pre=300, max_per_img=150))
