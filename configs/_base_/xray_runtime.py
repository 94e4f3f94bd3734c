# Settings of all configs: modules, loading, normalisation, logging, checkpoints. Exports xray_* variables
# only; the other fragments inherit it.

xray_imports = dict(
    imports=[
        'projects.xray.compat',  # first, since it repairs the libraries that the others import
        'projects.xray.datasets',
        'projects.xray.mixed',
        'projects.xray.transforms',
        'projects.xray.apis',
        'projects.xray.crops',
        'projects.xray.preprocessors',
        'projects.xray.assigners',
        'projects.xray.metrics',
        'projects.xray.hooks',
        'projects.xray.lite0',
        'projects.xray.convnext',
        'projects.xray.necks',
        'projects.synthetic.transforms',
        'mmpretrain.models',
    ],
    allow_failed_imports=False,
)

# One window for all configs: the file's bit depth is mapped to 0..255, in one channel.
xray_load = dict(type='LoadXray', window=dict(type='full'), dtype='uint8')

# Persistent workers: otherwise every epoch draws the same augmentations.
xray_workers = dict(num_workers=8, persistent_workers=True, pin_memory=True)
# For two CPU cores.
xray_two_cores = dict(num_workers=1, pin_memory=False)
xray_shuffle = dict(type='DefaultSampler', shuffle=True)
xray_in_order = dict(type='DefaultSampler', shuffle=False)

# MLflow or W&B instead of TensorBoard: --cfg-options visualizer.vis_backends.1.type=MLflowVisBackend
xray_vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
# Verified initial weights; a stop if the loss is not finite; the loader's share of the time in the log; exact
# resuming.
xray_hooks = [
    dict(type='VerifiedLoadHook'),
    dict(type='FiniteLossHook'),
    dict(type='PaceHook'),
    dict(type='ResumeHook', minutes=10),
]
xray_checkpoint = dict(interval=1, max_keep_ckpts=2)

# Replaces both settings in a distillation.
xray_distill_imports = dict(xray_imports, imports=[*xray_imports['imports'], 'projects.xray.distill'])
xray_distill_hooks = [*xray_hooks, dict(type='StudentHook')]
