"""A small detector and its start from a checkpoint."""

import re

from mmengine.hub import get_config
from mmengine.runner import Runner

from projects.xray import compat, datasets, handover, lite0, transforms  # noqa: F401
from projects.xray.hooks import finite_loss, pace, verified_load  # noqa: F401

RESNET_TARGET = dict(type='mmdet.ResNet', depth=18)


def detector(backbone, checkpoint=None, prefix='backbone.', num_classes=2):
    """Config of a Faster R-CNN, its backbone from `checkpoint`."""
    cfg = get_config('mmdet::_base_/models/faster-rcnn_r50_fpn.py').model
    cfg._scope_ = 'mmdet'
    init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint))
    if prefix:
        init_cfg['prefix'] = prefix
    cfg.backbone = dict(**backbone, init_cfg=init_cfg if checkpoint else None)
    cfg.neck.in_channels = [24, 48] if 'Swin' in backbone['type'] else [64, 128, 256, 512]
    cfg.neck.out_channels = cfg.rpn_head.in_channels = cfg.rpn_head.feat_channels = 16
    cfg.roi_head.bbox_roi_extractor.out_channels = cfg.roi_head.bbox_head.in_channels = 16
    cfg.roi_head.bbox_head.fc_out_channels = 16
    cfg.roi_head.bbox_head.num_classes = num_classes
    return cfg


def hand_over(model, tmp_path, request, load_from=None, extra=(), cfg=None):
    """Initialise a model as training does, with VerifiedLoadHook; return the Runner and the log."""
    runner = Runner(
        model=model,
        work_dir=str(tmp_path / 'run'),
        train_dataloader=dict(dataset=[0], sampler=dict(type='DefaultSampler'), batch_size=1),
        train_cfg=dict(by_epoch=True, max_epochs=0),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[*extra, verified_load.VerifiedLoadHook()],
        load_from=load_from and str(load_from),
        experiment_name=re.sub(r'\W', '_', request.node.name),
        cfg=cfg,
    )
    runner.train()
    return runner, log_of(tmp_path / 'run')


def log_of(folder):
    return '\n'.join(file.read_text() for file in folder.rglob('*.log'))
