"""A small classifier that trains and tests in seconds."""

from pathlib import Path

CLASSIFIER = """
custom_imports = dict(
    imports=['projects.xray.' + name for name in ('compat', 'datasets', 'transforms', 'metrics', 'hooks')],
    allow_failed_imports=False,
)
default_scope = 'mmpretrain'
load = [dict(type='LoadXray'), dict(type='Resize', scale=32), dict(type='PackInputs')]
loader = dict(batch_size=4, num_workers=0, collate_fn=dict(type='default_collate'))
data = dict(
    type='XraySeverity',
    data_root='{root}',
    metainfo=dict(classes=('critical', 'minor')),
    severity=dict(crack='critical', gas_pore='minor'),
    pipeline=load,
)
train_dataloader = dict(
    dataset=dict(ann_file='train.json', **data), sampler=dict(type='DefaultSampler', shuffle=True), **loader
)
test_dataloader = dict(
    dataset=dict(ann_file='test.json', test_mode=True, **data),
    sampler=dict(type='DefaultSampler', shuffle=False),
    **loader,
)
test_evaluator = dict(type='XraySeverityMetric')
test_cfg = dict()
# No batch norm: one process with a batch of 8 is two ranks with 4 each.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[114.5], std=[57.6]),
    backbone=dict(type='LeNet5', num_classes=2),
    head=dict(type='ClsHead', loss=dict(type='CrossEntropyLoss')),
)
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2))
custom_hooks = [dict(type='VerifiedLoadHook'), dict(type='FiniteLossHook'), dict(type='PaceHook')]
"""


def write_classifier(path: Path, root: Path) -> Path:
    """Write the config of the classifier of a set that `draw_set` drew, of 16 radiographs; returns it."""
    path.write_text(CLASSIFIER.replace('{root}', str(root)))
    return path
