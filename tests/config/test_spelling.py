"""Misspelt keys are found before a run, with the one that was meant; keys that are right pass."""

import copy

import pytest
from helpers.config_grammar import CONFIGS, all_configs, resolved
from mmengine.utils import import_modules_from_strings

from projects.config.spelling import absent_part, misspelt, misspelt_top
from projects.runs.running import UsageError, read_config

SIMSIAM = CONFIGS / 'small/simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px.py'
DETECTOR = CONFIGS / 'small/faster-rcnn_lite0-scratch_fpn_1xb4-4e_synthetic.py'


def judge(path, *options):
    """What is said of options, as `read_config` judges them, on a config that is read once."""
    config = copy.deepcopy(resolved(path))
    import_modules_from_strings(**config.custom_imports)
    added = [absent_part(config, key) for key, _ in options]
    for key, value in options:
        config.merge_from_dict({key: value})
    return [misspelt(config, parts) for parts in added if parts]


@pytest.mark.parametrize(
    ('path', 'key', 'meant'),
    [
        (DETECTOR, 'train_dataloder.batch_size', 'train_dataloader'),
        (DETECTOR, 'train_dataloader.batchsize', 'batch_size'),
        (DETECTOR, 'train_dataloader.dataset.anno_file', 'ann_file'),
        (DETECTOR, 'optim_wrapper.optimizer.lrr', 'lr'),
        (DETECTOR, 'optim_wrapper.optimiser.lr', 'optimizer'),
        (DETECTOR, 'train_cfg.max_epoch', 'max_epochs'),
        (DETECTOR, 'param_scheduler.0.start_facter', 'start_factor'),
        (DETECTOR, 'model.rpn_head.anchor_generator.scale', 'scales'),
        (DETECTOR, 'default_hooks.checkpoint.intervall', 'interval'),
        (DETECTOR, 'randomnes.seed', 'randomness'),
        (SIMSIAM, 'custom_hooks.0.lrr', 'lr'),
    ],
)
def test_a_misspelt_option_names_the_one_that_was_meant(path, key, meant):
    (result,) = judge(path, (key, 1))
    assert result.endswith(f'did you mean `{meant}`?') and key.split('.')[-1] in result or meant in result


@pytest.mark.parametrize(
    ('path', 'key'),
    [
        (DETECTOR, 'work_dir'),
        (DETECTOR, 'randomness.seed'),
        (DETECTOR, 'compile'),
        (DETECTOR, 'optim_wrapper.accumulative_counts'),
        (DETECTOR, 'optim_wrapper.optimizer.betas'),
        (DETECTOR, 'train_dataloader.prefetch_factor'),
        (DETECTOR, 'train_dataloader.dataset.indices'),
        (DETECTOR, 'model.backbone.with_cp'),
        (DETECTOR, 'model.roi_head.bbox_head.loss_cls.loss_weight'),
        (DETECTOR, 'auto_scale_lr.enable'),
        (DETECTOR, 'test_evaluator.drop_series'),
        (DETECTOR, 'default_hooks.early.type'),
        (DETECTOR, 'env_cfg.dist_cfg.timeout'),
        (SIMSIAM, 'custom_hooks.0.lr'),
    ],
)
def test_a_key_that_something_takes_passes(path, key):
    assert judge(path, (key, 1)) in ([], [None])


def test_one_option_may_name_the_class_that_takes_another():
    scale = ('optim_wrapper.loss_scale', 'dynamic')
    assert judge(DETECTOR, scale) != [None]
    assert judge(DETECTOR, scale, ('optim_wrapper.type', 'AmpOptimWrapper')) == [None]
    kind = ('visualizer.vis_backends.1.type', 'MLflowVisBackend')
    assert judge(DETECTOR, kind, ('visualizer.vis_backends.1.exp_name', 'x')) == [None]


def test_a_tool_says_so_in_one_line(tmp_path):
    with pytest.raises(UsageError, match='did you mean `train_dataloader`') as caught:
        read_config(str(DETECTOR), ['train_dataloder.batch_size=8'])
    assert '\n' not in str(caught.value)
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = '{DETECTOR}'\ntrain_dataloder = dict(batch_size=8)\n")
    with pytest.raises(UsageError, match=r'mine.py: `train_dataloder` .* did you mean `train_dataloader`'):
        read_config(str(path))


def test_no_config_of_ours_has_one():
    for path in all_configs():
        assert misspelt_top(resolved(path)) is None, path.stem
