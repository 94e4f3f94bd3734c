"""Every family over NCCL, on one GPU and on all that are visible; statistics of batch norm over the ranks.

`make test-gpu` runs them with all GPUs of the machine, or those that CUDA_VISIBLE_DEVICES names.
"""

import pytest
import torch
from helpers.families import families
from helpers.ranks import LABELLED, UNLABELLED, check_family, one_update, runner_of_scripts

FAMILIES = {str(family): family for family in families()}
GPUS = torch.cuda.device_count()


@pytest.fixture(autouse=True)
def gpu():
    if not GPUS:
        pytest.skip('no GPU here: NCCL is not tested')


@pytest.fixture
def run(repo, tmp_path):
    return runner_of_scripts(repo, tmp_path)


@pytest.mark.parametrize('ranks', sorted({1, max(1, GPUS)}))
@pytest.mark.parametrize('family', FAMILIES.values(), ids=str)
def test_a_family_trains_tests_and_resumes_over_nccl(family, ranks, run, tiny_coco, tmp_path):
    root = tiny_coco(n=LABELLED, unlabeled=UNLABELLED, masks=True)
    result = check_family(run, family, ranks, root, tmp_path)
    assert 'no CUDA' not in result


def test_statistics_of_all_ranks_are_those_of_one_with_the_whole_batch(run, tiny_coco, tmp_path):
    """Weights, and means and variances of every layer, neck and predictor among them, after one update."""
    if GPUS < 2:
        pytest.skip('one GPU: there is nothing to synchronise')
    images = 4 * GPUS
    family, root = FAMILIES['small-simsiam-resnet18'], tiny_coco(n=1, types=('crack',), unlabeled=images)
    many, one = (one_update(run, family, ranks, root, tmp_path, images) for ranks in (GPUS, 1))
    assert any(key.startswith('neck.') and key.endswith('running_var') for key in one)
    for key, value in one.items():
        torch.testing.assert_close(many[key], value, atol=1e-3, rtol=1e-2, msg=key)
