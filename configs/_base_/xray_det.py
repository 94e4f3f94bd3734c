# Detection: boxes with a severity (industrial) or one class (GDXray). Exports xray_* variables only.
_base_ = './xray_runtime.py'
from projects.xray.norm import MEAN as xray_mean, STD as xray_std  # noqa: E401, E402, I001

xray_norm = dict(mean=[xray_mean], std=[xray_std])

xray_det_train_pipeline = [
    _base_.xray_load,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(1024, 1024), keep_ratio=True),
    dict(type='XrayRandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
xray_det_test_pipeline = [
    _base_.xray_load,
    dict(type='Resize', scale=(1024, 1024), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

# Radiographs without a defect are kept: they teach the detector what to leave alone.
xray_industrial = dict(
    type='XrayDefects',
    data_root='data/industrial',
    data_prefix=dict(img='images'),
    metainfo=dict(classes=('critical', 'minor'), palette=[(213, 94, 0), (86, 180, 233)]),
    severity='castings',
    filter_cfg=dict(filter_empty_gt=False),
)
xray_industrial_metric = dict(type='XrayDefectMetric', severity='castings')
xray_gdxray = dict(
    type='XrayDefects',
    data_root='data/gdxray',
    data_prefix=dict(img='images'),
    metainfo=dict(classes=('defect',), palette=[(213, 94, 0)]),
    severity=None,
    filter_cfg=dict(filter_empty_gt=False),
)
# C0055 holds 42 % of all boxes (drilled holes), so results are also given without it.
xray_gdxray_metric = dict(type='XrayDefectMetric', severity=None, drop_series=('C0055',))

xray_det_train_loader = dict(
    sampler=_base_.xray_shuffle,
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    collate_fn=dict(type='pseudo_collate'),
    **_base_.xray_workers,
)
xray_det_test_loader = dict(
    batch_size=1,
    drop_last=False,
    sampler=_base_.xray_in_order,
    collate_fn=dict(type='pseudo_collate'),
    **_base_.xray_workers,
)
xray_det_checkpoint = dict(save_best='xray/AP50', rule='greater', **_base_.xray_checkpoint)
# The stock hook reads the file again as 8-bit colour; this one draws what the model saw.
xray_det_visualization = dict(type='XrayVisualizationHook', interval=1, num_images=8, score_thr=0.3)

# The paper's "Swin-T" has a 12 px window and 1024 channels at its end: Swin-B (1024 = 128 * 2**3).
xray_swin_base = dict(
    type='mmpretrain.SwinTransformer',
    arch='base',
    img_size=1024,
    out_indices=(0, 1, 2, 3),
    drop_path_rate=0.2,
    pad_small_map=True,  # maps of 256, 128, 64 and 32 are padded to multiples of the window
    stage_cfgs=dict(block_cfgs=dict(window_size=12)),
)
