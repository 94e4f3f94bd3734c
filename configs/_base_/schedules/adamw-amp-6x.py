# 72 epochs of AdamW in mixed precision, for a set of a few hundred images.
_base_ = './adamw-amp-2x.py'
train_cfg = dict(max_epochs=72)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=500),
    dict(_base_.param_scheduler[1], end=72, milestones=[64, 69]),
]
