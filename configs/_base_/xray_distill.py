# Distillation of an FPN, level by level (P2 to P5). Exports xray_* variables only.
# A narrower student reaches the teacher's width by a 1x1 convolution per level, which is in training only.

xray_distill_hooks = [dict(type='StudentHook')]
xray_fpn = dict(fpn=dict(type='ModuleOutputs', source='neck'))

# PKD (arXiv:2207.02039): Pearson correlation of the maps, so that teacher and student may differ in kind.
xray_pkd_losses = dict(
    loss_fpn0=dict(type='PKDLoss', loss_weight=6),
    loss_fpn1=dict(type='PKDLoss', loss_weight=6),
    loss_fpn2=dict(type='PKDLoss', loss_weight=6),
    loss_fpn3=dict(type='PKDLoss', loss_weight=6),
)
# CWD (arXiv:2011.13256): divergence of each channel's distribution over the map.
xray_cwd_losses = dict(
    loss_fpn0=dict(type='ChannelWiseDivergence', tau=1, loss_weight=10),
    loss_fpn1=dict(type='ChannelWiseDivergence', tau=1, loss_weight=10),
    loss_fpn2=dict(type='ChannelWiseDivergence', tau=1, loss_weight=10),
    loss_fpn3=dict(type='ChannelWiseDivergence', tau=1, loss_weight=10),
)

# Student and teacher of equal width.
xray_level_to_level = dict(
    loss_fpn0=dict(
        preds_S=dict(from_student=True, recorder='fpn', data_idx=0),
        preds_T=dict(from_student=False, recorder='fpn', data_idx=0),
    ),
    loss_fpn1=dict(
        preds_S=dict(from_student=True, recorder='fpn', data_idx=1),
        preds_T=dict(from_student=False, recorder='fpn', data_idx=1),
    ),
    loss_fpn2=dict(
        preds_S=dict(from_student=True, recorder='fpn', data_idx=2),
        preds_T=dict(from_student=False, recorder='fpn', data_idx=2),
    ),
    loss_fpn3=dict(
        preds_S=dict(from_student=True, recorder='fpn', data_idx=3),
        preds_T=dict(from_student=False, recorder='fpn', data_idx=3),
    ),
)
# A narrower student, each level through its connector.
xray_connected = dict(
    loss_fpn0=dict(
        preds_S=dict(from_student=True, recorder='fpn', data_idx=0, connector='fpn0'),
        preds_T=dict(from_student=False, recorder='fpn', data_idx=0),
    ),
    loss_fpn1=dict(
        preds_S=dict(from_student=True, recorder='fpn', data_idx=1, connector='fpn1'),
        preds_T=dict(from_student=False, recorder='fpn', data_idx=1),
    ),
    loss_fpn2=dict(
        preds_S=dict(from_student=True, recorder='fpn', data_idx=2, connector='fpn2'),
        preds_T=dict(from_student=False, recorder='fpn', data_idx=2),
    ),
    loss_fpn3=dict(
        preds_S=dict(from_student=True, recorder='fpn', data_idx=3, connector='fpn3'),
        preds_T=dict(from_student=False, recorder='fpn', data_idx=3),
    ),
)
xray_64_to_256 = dict(type='ConvModuleConnector', in_channel=64, out_channel=256, act_cfg=None)
xray_32_to_64 = dict(type='ConvModuleConnector', in_channel=32, out_channel=64, act_cfg=None)
