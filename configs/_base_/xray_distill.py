# The line's student, and distillation of the FPN levels P2 to P5. Exports xray_* variables only.

# The line's student without its backbone: a 64-channel FPN and the heads that fit it.
xray_fpn64 = dict(
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64), bbox_head=dict(in_channels=64, fc_out_channels=256)
    ),
    # With few defects per image, 1,000 proposals would cost as much as the backbone.
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)
# The student at CPU scale: a quarter-width ResNet-18 with a 32-channel FPN.
xray_tiny = dict(
    backbone=dict(stem_channels=16, base_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32), bbox_head=dict(in_channels=32, fc_out_channels=128)
    ),
)

# The teachers: config, and the checkpoint of its training.
xray_swin_base_teacher = dict(
    type='XrayDistill',
    teacher='configs/faster_rcnn/faster-rcnn_swin-base-simmim-pre_fpn_4xb4-amp-2x_industrial.py',
    teacher_ckpt='work_dirs/faster-rcnn_swin-base-simmim-pre_fpn_4xb4-amp-2x_industrial/epoch_24.pth',
)
xray_r18_narrow_castings_teacher = dict(
    xray_swin_base_teacher,
    teacher='configs/small/faster-rcnn_r18-narrow-simsiam-castings-pre_fpn_1xb4-12e_gdxray-a.py',
    teacher_ckpt='work_dirs/faster-rcnn_r18-narrow-simsiam-castings-pre_fpn_1xb4-12e_gdxray-a/epoch_12.pth',
)
xray_r18_narrow_teacher = dict(
    xray_swin_base_teacher,
    teacher='configs/small/faster-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic.py',
    teacher_ckpt='work_dirs/faster-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic/epoch_8.pth',
)
xray_r50_teacher = dict(
    xray_swin_base_teacher,
    teacher='configs/one_gpu/faster-rcnn_r50-scratch_fpn_1xb8-amp-24e_synthetic-1024.py',
    teacher_ckpt='work_dirs/faster-rcnn_r50-scratch_fpn_1xb8-amp-24e_synthetic-1024/epoch_24.pth',
)

# PKD (arXiv:2207.02039): Pearson correlation of the maps, so that teacher and student may differ in kind.
xray_pkd_losses = {f'loss_fpn{level}': dict(type='PKDLoss', loss_weight=6) for level in range(4)}
# A sixth of the weight in short schedules: with clipped gradients, the full weight would leave the detector's
# losses too little influence in 720 updates. Chosen by AP50 on val at CPU scale.
xray_pkd_light_losses = {f'loss_fpn{level}': dict(type='PKDLoss', loss_weight=1) for level in range(4)}
# CWD (arXiv:2011.13256): divergence of each channel's distribution over the map.
xray_cwd_losses = {
    f'loss_fpn{level}': dict(type='ChannelWiseDivergence', tau=1, loss_weight=10) for level in range(4)
}

# Student and teacher of equal width.
xray_pkd = dict(
    _scope_='mmrazor',
    type='ConfigurableDistiller',
    student_recorders=dict(fpn=dict(type='ModuleOutputs', source='neck')),
    teacher_recorders=dict(fpn=dict(type='ModuleOutputs', source='neck')),
    distill_losses=xray_pkd_losses,
    loss_forward_mappings={
        f'loss_fpn{level}': dict(
            preds_S=dict(from_student=True, recorder='fpn', data_idx=level),
            preds_T=dict(from_student=False, recorder='fpn', data_idx=level),
        )
        for level in range(4)
    },
)
# A narrower student gets a 1x1 convolution per level to the teacher's width, in training only.
xray_connected = {
    f'loss_fpn{level}': dict(
        preds_S=dict(from_student=True, recorder='fpn', data_idx=level, connector=f'fpn{level}'),
        preds_T=dict(from_student=False, recorder='fpn', data_idx=level),
    )
    for level in range(4)
}
xray_pkd_64_to_256 = dict(
    xray_pkd,
    connectors={
        f'fpn{level}': dict(type='ConvModuleConnector', in_channel=64, out_channel=256, act_cfg=None)
        for level in range(4)
    },
    loss_forward_mappings=xray_connected,
)
xray_pkd_32_to_64 = dict(
    xray_pkd,
    distill_losses=xray_pkd_light_losses,
    connectors={
        f'fpn{level}': dict(type='ConvModuleConnector', in_channel=32, out_channel=64, act_cfg=None)
        for level in range(4)
    },
    loss_forward_mappings=xray_connected,
)
xray_pkd_light_64_to_256 = dict(xray_pkd_64_to_256, distill_losses=xray_pkd_light_losses)
