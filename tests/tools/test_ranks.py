"""Every family of recipes on several ranks without a GPU, by the command that a user types.

In `make test-slow` SimSiam on two ranks stands for all; `make test-long` runs every family on two and four.
"""

import json

import pytest
import torch
from helpers.families import families, tiny
from helpers.ranks import LABELLED, UNLABELLED, check_family, one_update, runner_of_scripts

FAMILIES = {str(family): family for family in families()}


def matrix():
    """Yield every family on two and four ranks; a new one is found by itself."""
    for name, family in FAMILIES.items():
        for ranks in (2, 4):
            short = (name, ranks) == ('small-simsiam-resnet18', 2)
            yield pytest.param(
                family, ranks, id=f'{name}-{ranks}', marks=pytest.mark.slow if short else pytest.mark.long
            )


@pytest.fixture
def run(repo, tmp_path):
    """Run a script of tools/ in `tmp_path`."""
    return runner_of_scripts(repo, tmp_path)


def test_the_families_are_those_that_the_recipes_teach():
    assert {'pretrain', 'probe', 'detector'} <= {family.kind for family in FAMILIES.values()}
    named = {(family.method, family.architecture) for family in FAMILIES.values()}
    for architecture in ('resnet18', 'resnet50', 'swin'):
        assert {('detector', architecture), ('mask-rcnn', architecture)} <= named
    assert {('simsiam', 'resnet50'), ('simmim', 'swin'), ('probe', 'resnet50'), ('probe', 'swin')} <= named
    assert {'pkd', 'cwd'} <= {method for method, _ in named}


@pytest.mark.parametrize(('family', 'ranks'), matrix())
def test_a_family_trains_tests_and_resumes(family, ranks, run, tiny_coco, tmp_path):
    root = tiny_coco(n=LABELLED, unlabeled=UNLABELLED, masks=True)
    result = check_family(run, family, ranks, root, tmp_path)
    assert result.count(f'nccl -> gloo, {ranks} ranks') == 1
    if family.method == 'simsiam':  # its neck and predictor have SyncBN that no config names
        assert 'SyncBN -> BN' in result


LOSSES = """
import json, os
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class WriteLoss(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        with open(f'{runner.work_dir}/losses{os.environ.get("RANK", 0)}.jsonl', 'a') as file:
            file.write(json.dumps(outputs['loss'].item()) + '\\n')
"""


def losses(folder, rank):
    return [json.loads(line) for line in (folder / f'losses{rank}.jsonl').read_text().splitlines()]


@pytest.mark.long
@pytest.mark.parametrize(
    ('name', 'change'),
    [
        ('small-simmim-swin', ''),
        # The probe's own neck standardises by the batch of each rank.
        ('small-probe-resnet18', "model.update(neck=dict(type='GlobalAveragePooling'))"),
    ],
    ids=['simmim', 'probe'],
)
def test_losses_of_two_ranks_are_those_of_one_with_twice_the_batch(name, change, run, tiny_coco, tmp_path):
    """Where no batch norm enters: to 1e-4 of the loss in every step, as the order of sums differs."""
    root = tiny_coco(n=16, unlabeled=32)
    (tmp_path / 'losses.py').write_text(LOSSES)
    config = tiny(FAMILIES[name], tmp_path, root, 4)
    config.write_text(
        config.read_text()
        + "\ncustom_imports['imports'].append('losses')\ncustom_hooks.append(dict(type='WriteLoss'))\n"
        + f'{change}\n'
    )
    path = dict(PYTHONPATH=str(tmp_path))
    run('dist_train.sh', config, 2, '--work-dir', 'two', **path)
    double = ('--cfg-options', 'train_dataloader.batch_size=8')
    run('dist_train.sh', config, 1, '--work-dir', 'one', *double, **path)
    each = [losses(tmp_path / 'two', rank) for rank in range(2)]
    whole = losses(tmp_path / 'one', 0)
    assert each[0] != each[1]
    assert len(set(whole)) > 1
    assert [sum(pair) / 2 for pair in zip(*each, strict=True)] == pytest.approx(whole, rel=1e-4)


@pytest.mark.long
def test_two_ranks_see_the_radiographs_of_one_with_the_whole_batch(run, tiny_coco, tmp_path):
    """The first layer's mean says so without synchronised batch norm; tests/gpu compares all layers."""
    family, root = FAMILIES['small-simsiam-resnet18'], tiny_coco(n=1, types=('crack',), unlabeled=16)
    two, one = (one_update(run, family, ranks, root, tmp_path, images=16) for ranks in (2, 1))
    mean = 'backbone.bn1.running_mean'
    assert one[mean].abs().max() > 1e-3
    torch.testing.assert_close(two[mean], one[mean], atol=1e-5, rtol=1e-4)
