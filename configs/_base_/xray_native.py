# Detectors for CPUs that find flaws at native size: trained on crops, tested on whole radiographs.
# Exports xray_native_* variables only.
_base_ = './xray_det.py'

# EfficientNet-Lite0: strides 4, 8, 16, 32. ImageNet's weights of it come with a package.
xray_native_in1k = dict(type='Pretrained', checkpoint='package://efficientnet-lite0', prefix='backbone.')
xray_native_backbone = dict(type='mmpretrain.EfficientNetLite0', frozen_stages=0, norm_eval=False)
# A 64-channel FPN: at 256 channels FPN and RPN are most of the cost. Flaws of 8 to 350 px at native size:
# anchors of scales [4, 6] fit them at strides 4 to 64. Few proposals: on a CPU, NMS of 2,000 a level costs
# more than the backbone. What a crop cuts off is neither flaw nor sound.
xray_native_model = dict(
    neck=dict(in_channels=[24, 40, 112, 320], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4, 6])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64), bbox_head=dict(in_channels=64, fc_out_channels=256)
    ),
    train_cfg=dict(
        rpn=dict(assigner=dict(ignore_iof_thr=0.5), sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=300, max_per_img=150),
        rcnn=dict(assigner=dict(ignore_iof_thr=0.5), sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)

# Three crops of four are around a flaw. The scale varies widely: unseen castings have flaws several times
# as large as those learnt from. No preferred direction; film curve (gamma) and quantum noise vary.
xray_native_train_pipeline = [
    _base_.xray_load,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='XrayFlawCrop', size=256, flaw=0.75, scale=(0.5, 2.5)),
    dict(type='XrayRandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='XrayGamma', gamma=(0.7, 1.4), prob=0.5),
    dict(type='XrayPoissonNoise', prob=0.5),
    dict(type='PackDetInputs'),
]
# The same crops of unlabelled castings, into which flaws are drawn. Sizes, contrasts and the share of voids
# are those of the flaws that protocol B trains on, and so is the margin that annotators left around them.
xray_native_drawn_pipeline = [
    _base_.xray_load,
    dict(
        type='DrawFlaws',
        number=(1, 6),
        pitch=(0.13, 0.5),
        weights=dict(
            gas_pore=4,
            blowhole=4,
            pinhole=4,
            shrinkage_cavity=4,
            pore_cluster=4,
            wormhole=4,
            sand_inclusion=4,
            surface_pit=4,
        ),
        margin=0.15,
    ),
    *xray_native_train_pipeline[2:],
]
xray_native_castings_b = dict(
    type='XrayBackgrounds',
    data_root='data/gdxray',
    data_prefix=dict(img_path='images'),
    ann_file='b/unlabeled.txt',
    metainfo=_base_.xray_gdxray['metainfo'],
    severity=None,
)
# Weld films are scans on which less metal is darker.
xray_native_drawn_welds_pipeline = [
    _base_.xray_load,
    dict(type='DrawFlaws', number=(1, 6), film=True),
    *xray_native_train_pipeline[2:],
]
xray_native_welds = dict(_base_.xray_gdxray, data_root='data/welds')
xray_native_welds_archive = dict(xray_native_castings_b, data_root='data/welds', ann_file='unlabeled.txt')
xray_native_test_pipeline = [
    _base_.xray_load,
    dict(type='Resize', scale_factor=1.0),
    *_base_.xray_det_test_pipeline[-2:],
]
xray_native_workers = dict(num_workers=1, pin_memory=False)
xray_native_train_loader = dict(_base_.xray_det_train_loader, **xray_native_workers)
xray_native_test_loader = dict(_base_.xray_det_test_loader, **xray_native_workers)
# As the smaller recipes have it, for few updates.
xray_native_adamw = dict(type='AdamW', lr=1e-3, weight_decay=0.05)
xray_native_warmup = dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50)
xray_native_cosine = dict(
    type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=True, begin=0, convert_to_iter_based=True
)
