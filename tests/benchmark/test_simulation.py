"""Hours, requests and cost follow from the rates by arithmetic, and the slowest stage is named."""

from dataclasses import replace

import pytest

from projects.benchmark.simulation import Rates, forecast
from tools import simulate_archive

RATES = Rates(
    decode=100,
    cores=10,
    step=500,
    devices=1,
    latency_s=0.05,
    bandwidth=1e15,
    readers=8,
    image_bytes=2**18,
    device_hour=3.0,
    requests_price=0.5,
)


def test_the_accelerator_sets_the_pace():
    found = forecast(RATES, images=1_000_000, epochs=2)
    assert found.bottleneck == 'accelerator'
    assert found.hours == pytest.approx(2_000_000 / 500 / 3600)
    assert found.requests == 2 * 15_625  # 64 images a block
    assert found.cost == pytest.approx(found.hours * 3 + 31.25 * 0.5)
    assert found.stages == pytest.approx(
        {'decode': 1000, 'object store': 8 * 64 / 0.05, 'accelerator': 500}, 1e-3
    )


def test_an_object_an_image_makes_the_latency_the_bottleneck():
    files = replace(RATES, block_bytes=RATES.image_bytes)
    found = forecast(files, images=1_000_000, epochs=2)
    assert found.bottleneck == 'object store'
    assert found.hours == pytest.approx(2_000_000 / (8 / 0.05) / 3600, rel=1e-3)
    assert found.requests == 2_000_000
    # What the disks keep is fetched in the first epoch alone; then the accelerator sets the pace.
    kept = forecast(files, images=1_000_000, epochs=2, kept=True)
    assert kept.hours == pytest.approx((1_000_000 / 160 + 1_000_000 / 500) / 3600, rel=1e-3)
    assert kept.requests == 1_000_000


def test_bandwidth_is_shared_by_the_readers_of_a_node():
    slow = replace(RATES, latency_s=1e-9, bandwidth=100 * 2**18)
    assert forecast(slow, 1000, 1).stages['object store'] == pytest.approx(100)
    assert forecast(replace(slow, nodes=4), 1000, 1).stages['object store'] == pytest.approx(400)
    assert forecast(replace(RATES, cores=2), 1000, 1).bottleneck == 'decode'


def test_the_tool(capsys):
    assert simulate_archive.main(['--decode', '100', '--step', '500', '--epochs', '2']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [['1,000,000', '1.1'], ['100,000,000', '111.1']]
    assert 'accelerator (500 images/s)' in lines[2]
    assert simulate_archive.main(['--decode', '100', '--step', '500', '--files', '--images', '1000']) == 0
    assert 'object store (' in capsys.readouterr().out
    assert simulate_archive.main(['--decode', '1', '--step', '1', '--image', '0.0001']) == 0  # a byte each
    for wrong in (['--decode', '0'], ['--step', 'inf'], ['--images', '0'], ['--requests', '-1'], []):
        with pytest.raises(SystemExit) as end:
            simulate_archive.main(['--decode', '1', '--step', '1', *wrong] if wrong else [])
        assert end.value.code == 2
