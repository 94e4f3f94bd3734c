# What every chain shares: modules, loading, normalisation, logging, checkpoints.
# Exports xray_* variables only; the other fragments inherit this one, a baseline names one of those.

xray_imports = dict(
    imports=[
        'projects.xray.compat',  # first: it repairs the libraries the others import
        'projects.xray.datasets',
        'projects.xray.transforms',
        'projects.xray.crops',
        'projects.xray.preprocessors',
        'projects.xray.metrics',
        'projects.xray.hooks',
        'projects.xray.lite0',
        'projects.synthetic.transforms',
        'mmpretrain.models',
    ],
    allow_failed_imports=False,
)

# One window for every chain: the file's own bit depth mapped to 0..255, one channel.
xray_load = dict(type='LoadXray', window=dict(type='full'), dtype='uint8')
# ImageNet's channel averages, in every arm: an ImageNet backbone meets the input range it knows,
# and no arm gains by statistics that another does not have.
xray_norm = dict(mean=[114.5], std=[57.6])

# Persistent workers: without them every epoch draws the same augmentations.
xray_workers = dict(num_workers=8, persistent_workers=True, pin_memory=True)
xray_shuffle = dict(type='DefaultSampler', shuffle=True)
xray_in_order = dict(type='DefaultSampler', shuffle=False)

# MLflow or W&B instead of TensorBoard: --cfg-options visualizer.vis_backends.1.type=MLflowVisBackend
xray_vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
# Proven hand-over; no weights of a broken loss; the loader's share of the time in the log; resume that
# loses nothing.
xray_hooks = [
    dict(type='VerifiedLoadHook'),
    dict(type='FiniteLossHook'),
    dict(type='PaceHook'),
    dict(type='ResumeHook', minutes=10),
]
xray_checkpoint = dict(interval=1, max_keep_ckpts=2)

# ImageNet weights of the Swin-B that the paper uses, window 12 at 384 px.
xray_swin_base_in1k = dict(
    type='Pretrained',
    checkpoint='https://mmassets.onedl.ai/mmclassification/v0/swin-transformer/convert/'
    'swin_base_patch4_window12_384-02c598a4.pth',
    prefix='backbone.',
)
