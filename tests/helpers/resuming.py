"""A training that uses all that has a state, the hook that kills it, and its resume."""

import itertools
import os
import random
import signal

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner

from projects.xray import compat  # noqa: F401
from projects.xray.hooks.resume import newest_checkpoint


@DATASETS.register_module()
class ResumeNoise(BaseDataset):
    """Samples that are nothing but random draws, one of each generator."""

    def __init__(self, **kwargs):
        # Serialising collects garbage, which makes a forked child copy all that its parent has imported.
        super().__init__(serialize_data=False, **kwargs)

    def load_data_list(self):
        return [dict(number=i) for i in range(22)]

    def prepare_data(self, idx):
        drawn = [random.random(), np.random.rand(), torch.rand(1).item(), self.get_data_info(idx)['number']]
        return dict(inputs=torch.tensor(drawn, dtype=torch.float32), data_samples=torch.tensor(idx % 2))


@MODELS.register_module()
class ResumeNet(BaseModel):
    """Batch norm, dropout, and a buffer that remembers every sample it saw."""

    def __init__(self, width=8, bias=True, **kwargs):
        super().__init__(**kwargs)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, width),
            torch.nn.BatchNorm1d(width),
            torch.nn.Dropout(0.3),
            torch.nn.ReLU(),
            torch.nn.Linear(width, 2, bias=bias),
        )
        self.register_buffer('seen', torch.zeros(22))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'predict':
            return [dict()]
        self.seen[inputs[:, 3].long()] += 1
        return dict(loss=torch.nn.functional.cross_entropy(self.net(inputs), data_samples))


@METRICS.register_module()
class ResumeScore(BaseMetric):
    """Better at each validation of the process."""

    default_prefix = 'resume'
    scores = itertools.count()

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(score=next(self.scores))


@HOOKS.register_module()
class KillHook(Hook):
    """Ends the process the hard way at one moment of one iteration."""

    def __init__(self, iteration, moment):
        self.iteration, self.moment = iteration, moment
        self.priority = 'HIGHEST' if moment in ('before', 'early') else 'LOWEST'

    def _kill(self, runner, moment):
        if runner.iter == self.iteration and moment == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def before_train_iter(self, runner, **kwargs):
        self._kill(runner, 'before')
        # Half a file is on disk when the write is cut short.
        if runner.iter == self.iteration and self.moment in ('write', 'rename'):
            fsync, moment = os.fsync, self.moment

            def cut(descriptor):
                if moment == 'write':
                    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
                fsync(descriptor)
                os.kill(os.getpid(), signal.SIGKILL)

            os.fsync = cut

    def after_train_iter(self, runner, **kwargs):
        self._kill(runner, 'early')
        self._kill(runner, 'late')


def settings(folder, *, workers=0, count=1, minutes=0.0, hooks=(), batch_size=4, epochs=3):
    """Arguments of a Runner that uses all that has a state."""
    return dict(
        model=dict(type='ResumeNet'),
        work_dir=str(folder),
        experiment_name=f'{folder.parent.name}-{folder.name}',
        train_dataloader=dict(
            dataset=dict(type='ResumeNoise'),
            sampler=dict(type='DefaultSampler', shuffle=True),
            batch_size=batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=0.01), accumulative_counts=count, clip_grad=dict(max_norm=1.0)
        ),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=7),
            dict(type='CosineAnnealingLR', by_epoch=True, begin=1, end=epochs),
        ],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
            logger=dict(type='LoggerHook', interval=2),
        ),
        custom_hooks=[dict(type='EMAHook'), dict(type='ResumeHook', minutes=minutes), *hooks],
        randomness=dict(seed=3),
        log_level='WARNING',
    )


def train(arguments, resume=False):
    """Train; on resume from what tools/train.py would take."""
    found = newest_checkpoint(arguments['work_dir'], say=lambda line: None) if resume else None
    runner = Runner(resume=found is not None, load_from=found and str(found), **arguments)
    runner.train()
    return runner


def leaves(node, path=''):
    """Yield (path, value as a tensor or its text's) of everything in a nested state."""
    if isinstance(node, dict | list | tuple):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(value, f'{path}.{key}')
    else:
        yield path, node if torch.is_tensor(node) else torch.tensor(list(repr(node).encode()))
