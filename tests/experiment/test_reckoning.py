"""What doctor says a recipe costs on a CPU: operations counted without a step, and the times they take."""

import pytest
from helpers.config_grammar import CONFIGS

from projects.experiment import reckoning
from projects.runs.running import read_config

DETECTOR = CONFIGS / 'faster_rcnn/faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial.py'
SIMSIAM = CONFIGS / 'simsiam/simsiam_resnet50_4xb64-coslr-100e_industrial-224px.py'


@pytest.mark.parametrize(
    ('path', 'low', 'high'),
    [
        (DETECTOR, 2 * 190, 2 * 202),  # about 196 G multiply-adds at 1024 px, backbone, FPN and proposals
        (SIMSIAM, 2 * 2 * 4.0, 2 * 2 * 4.2),  # two views of 4.1 G
    ],
)
def test_operations_are_those_of_the_network(path, low, high):
    assert low < reckoning._forward_operations(read_config(str(path))) / 1e9 < high


def test_the_cost_is_one_line_with_its_assumption(monkeypatch):
    monkeypatch.setattr(reckoning, 'matmul_rate', lambda amp: 300e9)
    result = reckoning.cost_on_cpu(read_config(str(DETECTOR)))
    # 3 * 393 GFLOP * 1,000 radiographs at half of 300 GFLOP/s are 2.2 hours.
    assert '300 GFLOP/s' in result and '2 hours for an epoch of 1,000 radiographs' in result
    assert result.endswith('2 days for the 24 epochs')
    assert '\n' not in result
