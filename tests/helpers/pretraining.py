"""Small SimSiam and SimMIM runs."""

from mmengine.runner import Runner

from projects.xray import compat, preprocessors  # noqa: F401
from projects.xray.hooks import backbone, resume  # noqa: F401

SIZE = 32


VIEW = [
    dict(type='RandomResizedCrop', scale=SIZE, crop_ratio_range=(0.2, 1.0), backend='pillow'),
    dict(type='XrayColorJitter'),
    dict(type='RandomFlip', prob=0.5),
]


SIMSIAM = dict(
    type='SimSiam',
    data_preprocessor=dict(type='XraySelfSupDataPreprocessor'),
    backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8, norm_cfg=dict(type='BN')),
    neck=dict(
        type='NonLinearNeck',
        in_channels=64,
        hid_channels=64,
        out_channels=32,
        num_layers=2,
        with_last_bn=True,
        with_last_bn_affine=False,
        with_avg_pool=True,
    ),
    head=dict(
        type='LatentPredictHead',
        loss=dict(type='CosineSimilarityLoss'),
        predictor=dict(
            type='NonLinearNeck',
            in_channels=32,
            hid_channels=16,
            out_channels=32,
            with_avg_pool=False,
            with_last_bn=False,
        ),
    ),
)


SIMMIM = dict(
    type='SimMIM',
    data_preprocessor=dict(type='XraySelfSupDataPreprocessor'),
    backbone=dict(
        type='SimMIMSwinTransformer',
        arch=dict(embed_dims=12, depths=[2, 2], num_heads=[2, 2]),
        img_size=SIZE,
        out_indices=(1,),
        drop_path_rate=0.0,
        stage_cfgs=dict(block_cfgs=dict(window_size=4)),
    ),
    neck=dict(type='SimMIMLinearDecoder', in_channels=24, encoder_stride=8),
    head=dict(type='SimMIMHead', patch_size=4, loss=dict(type='PixelReconstructionLoss', criterion='L1')),
)


MASK = dict(
    type='SimMIMMaskGenerator', input_size=SIZE, mask_patch_size=8, model_patch_size=4, mask_ratio=0.6
)


def run(root, folder, model, pipeline, hooks, epochs=2, checkpoint=10, **more):
    runner = Runner(
        model=model,
        work_dir=str(folder),
        experiment_name=f'{folder.parent.name}-{folder.name}',
        default_scope='mmpretrain',
        train_dataloader=dict(
            dataset=dict(
                type='XrayImages', data_root=str(root), pipeline=[*pipeline, dict(type='PackInputs')]
            ),
            sampler=dict(type='DefaultSampler', shuffle=True),
            batch_size=16,
            num_workers=0,
            drop_last=True,
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=checkpoint, save_last=False),
            logger=dict(type='LoggerHook', interval=1),
            timer=dict(type='IterTimerHook'),
        ),
        custom_hooks=[dict(type=kind, **settings) for kind, settings in hooks.items()],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        randomness=dict(seed=0),
        log_level='INFO',
        **more,
    )
    runner.train()
    return runner


VIEWS = [dict(type='LoadXray'), dict(type='XrayMultiView', num_views=2, transforms=[VIEW])]


MASKED = [dict(type='LoadXray'), dict(type='Resize', scale=(SIZE, SIZE)), MASK]
