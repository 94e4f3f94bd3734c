"""Config of a small Faster R-CNN on drawn radiographs, and a checkpoint of it."""

from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import save_checkpoint

from projects.xray import compat, datasets, metrics, preprocessors, transforms  # noqa: F401
from projects.xray.hooks import pictures as hooks_pictures  # noqa: F401

DETECTOR = """
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
custom_imports = dict(
    imports=[
        'projects.xray.' + name
        for name in ('compat', 'datasets', 'transforms', 'preprocessors', 'metrics', 'hooks')
    ],
    allow_failed_imports=False,
)
default_scope = 'mmdet'
model = dict(
    data_preprocessor=dict(_delete_=True, type='XrayDetDataPreprocessor', pad_size_divisor=32),
    backbone=dict(depth=18, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=16, num_classes=2),
    ),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20)),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='XrayDefects',
        data_root='{root}',
        ann_file='test.json',
        data_prefix=dict(img='images'),
        metainfo=dict(classes=('critical', 'minor'), palette=[(213, 94, 0), (86, 180, 233)]),
        severity=dict(crack='critical', gas_pore='minor'),
        test_mode=True,
        pipeline=[
            dict(type='LoadXray'),
            dict(type='Resize', scale=(96, 96)),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
            ),
        ],
    ),
)
test_evaluator = dict(
    type='XrayDefectMetric', ann_file='{root}/test.json', severity=dict(crack='critical', gas_pore='minor')
)
test_cfg = dict()
default_hooks = dict(visualization=dict(type='XrayVisualizationHook', score_thr=0.05))
"""


def save_model(config, path):
    """Save a checkpoint of a config's model as it is built."""
    cfg = Config.fromfile(config)
    cfg.model._scope_ = cfg.default_scope
    save_checkpoint(dict(state_dict=MODELS.build(cfg.model).state_dict(), meta=dict(seed=7)), str(path))
