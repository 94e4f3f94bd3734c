"""Detectors side by side: each in its own process, in turn, and the arithmetic of the table."""

import cv2
import pytest
from test_deploy import SIDE, export_to, spot

from projects.xray.benchmark import infer


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f'{k}.png' for k in range(3)]
    for k, path in enumerate(paths):
        cv2.imwrite(str(path), spot(20 + k, 30))
    return paths


def test_exports_are_measured_in_turn_each_in_its_process(tmp_path, images):
    folder = str(export_to(tmp_path / 'brightest'))
    variants = [variant for variant in infer.variants_of([folder]) if variant.source == folder]
    assert [v.name for v in variants] == ['brightest, openvino fp32', 'brightest, onnxruntime fp32']
    infer.measure(variants, images, turns=2, threads=1, side=SIDE)
    for variant in variants:
        assert len(variant.turns) == 6
        assert set(variant.turns[0]) == {'decode', 'window', 'network', 'merge'}
        assert min(variant.load, variant.rate, variant.memory) > 0
    assert 0 <= variants[0].decoding <= 1
    broken = infer.Variant('broken', str(tmp_path / 'none'), 'openvino')
    with pytest.raises(infer.BenchmarkError, match='broken: FolderError: .*expected an exported detector'):
        infer.measure([broken], images, turns=1, threads=1, side=SIDE)


def test_the_table_is_relative_to_mmdet():
    stock = infer.Variant(infer.STOCK, 'x', 'torch', turns=[dict(decode=0.0, window=0.0, network=0.2)] * 3)
    ours = infer.Variant('ours', 'x', 'openvino', decoding=0.1, macs=2 * 10**9)
    ours.turns = [dict(decode=0.005, window=0.005, network=0.01, merge=0.0)] * 3
    assert ours.outside() == pytest.approx(1 - 0.009 / 0.02)
    row = infer.table([stock, ours], rate=1e12).splitlines()[3]
    cells = [cell.strip() for cell in row.split('|')[1:-1]]
    assert cells[:4] == ['ours', '20', '20', '10.0×']
    assert cells[7:] == ['5.0', '5.0', '55.0%', '2', '20%']
