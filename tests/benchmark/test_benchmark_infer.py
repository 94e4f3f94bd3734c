"""Detectors side by side: each in its own process, in turn; what is counted; the arithmetic of the table."""

import cv2
import numpy as np
import pytest
import torch
from helpers.exported import SIDE, export_to, spot
from onnx import TensorProto, helper, numpy_helper, save

from projects.benchmark import detectors, graphs, infer, loader, memory
from projects.benchmark import variants as benchmark_variants
from projects.benchmark.errors import BenchmarkError
from projects.line.runtime import engines, folder
from tools import benchmark

SMALL = 'configs/small/faster-rcnn_r18-narrow-scratch_fpn_1xb4-8e_synthetic.py'
TINY = 'configs/distill/faster-rcnn_r18-tiny-scratch_fpn32_1xb4-8e_synthetic.py'
STAGES = ['decode', 'window', 'network', 'NMS', 'merge']


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f'{k}.png' for k in range(3)]
    for k, path in enumerate(paths):
        cv2.imwrite(str(path), spot(20 + k, 30))
    return paths


@pytest.mark.slow
def test_exports_are_measured_in_turn_each_in_its_process(tmp_path, images):
    path = str(export_to(tmp_path / 'brightest', depths=['12-bit unsigned']))  # time asks for no depth
    variants = benchmark_variants.variants_of([path], 'none.pth')[2:]
    assert [v.name for v in variants] == ['brightest, openvino fp32', 'brightest, onnxruntime fp32']
    infer.measure(variants, images, turns=2, threads=1, side=SIDE)
    for variant in variants:
        assert [len(turn) for turn in variant.turns] == [3, 3]
        assert variant.boxes == [1] * 6
        assert min(variant.load, variant.first, variant.rate, variant.memory) > 0
    graph, other = variants
    assert set(graph.turns[0][0]) == set(STAGES)
    # No node is named as a module's, and all that matters depends on the image, not on its extent alone.
    assert graph.macs == 0
    assert graph.decoding < 0.5
    assert 0 < graph.outside() < 1
    assert graph.load_kept > 0
    assert (other.macs, other.decoding, other.stage('NMS'), other.outside()) == (None,) * 4
    assert other.load_kept is None
    assert not (tmp_path / '.brightest.cache').exists()

    # Where nothing is kept, as by ONNX Runtime, a second start says nothing.
    with pytest.raises(BenchmarkError, match='onnxruntime fp32: expected the second start to find the g'):
        infer.time_kept_load(other, threads=1)
    broken = benchmark_variants.Variant('broken', str(tmp_path / 'none'), 'openvino')
    with pytest.raises(BenchmarkError, match='broken: FolderError: .*none/metadata.json'):
        infer.measure([broken], images, turns=1, threads=1, side=SIDE)


def test_peak_memory_is_this_processs_own(tmp_path):
    ballast = np.ones(2**26)  # 0.5 GB, touched
    assert memory.peak_memory() > ballast.nbytes
    assert benchmark_variants.run_in_subprocess('peak', memory.peak_memory) < ballast.nbytes


def test_operations_are_counted_as_run(tmp_path):
    """A convolution and a product whose rows are only known when it runs."""
    shapes = dict(image=[1, 1, 8, 8], extent=[2])
    rng = np.random.default_rng(0)
    constants = dict(kernel=rng.normal(size=(4, 1, 3, 3)), weights=rng.normal(size=(6, 5)), zero=0)
    nodes = [
        ('Conv', ['image', 'kernel'], ['maps'], dict(pads=[1] * 4)),
        ('Reshape', ['maps', 'row'], ['values'], {}),
        ('Greater', ['values', 'zero'], ['above'], {}),
        ('Compress', ['values', 'above'], ['some'], dict(axis=0)),
        ('Unsqueeze', ['some', 'axis'], ['column'], {}),
        ('Expand', ['column', 'wide'], ['rows'], {}),
        ('MatMul', ['rows', 'weights'], ['product'], {}),
        ('Relu', ['product'], ['positive'], {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, i, o, name=f'/neck/{kind}', **more) for kind, i, o, more in nodes],
        'counted',
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [
            helper.make_tensor_value_info('positive', TensorProto.FLOAT, ['found', 5]),
            helper.make_tensor_value_info('some', TensorProto.FLOAT, ['found']),
        ],
        [numpy_helper.from_array(np.array(v, np.float32), name) for name, v in constants.items()]
        + [
            helper.make_tensor('row', TensorProto.INT64, [1], [-1]),
            helper.make_tensor('axis', TensorProto.INT64, [1], [1]),
            helper.make_tensor('wide', TensorProto.INT64, [2], [1, 6]),
        ],
    )
    path = tmp_path / 'counted.onnx'
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), path)
    image = rng.normal(size=(1, 1, 8, 8)).astype(np.float32)
    maps = torch.nn.functional.conv2d(
        torch.from_numpy(image), torch.tensor(constants['kernel'], dtype=torch.float32), padding=1
    )
    rows = int((maps > 0).sum())
    assert 0 < rows < 4 * 64
    counted = graphs._count_macs(path, [image, np.array([8, 8], np.float32)], 1)
    assert counted == 4 * 64 * 9 + rows * 6 * 5


@pytest.fixture
def small(monkeypatch):
    """The default set at the scale of a test; the variants carry their configs to their processes."""
    monkeypatch.setattr(benchmark_variants, 'BASELINE', SMALL)
    monkeypatch.setattr(benchmark_variants, 'STUDENT', TINY)
    monkeypatch.setattr(infer, 'LEAST_STREAMED', 4)


@pytest.mark.slow
def test_torchvision_runs_the_checkpoints_backbone(tmp_path, images):
    checkpoint = benchmark_variants.write_untrained(tmp_path / 'r50.pth', 128)
    mmdet, variant = benchmark_variants.variants_of([], checkpoint)
    assert (mmdet.name, mmdet.engine, mmdet.config) == (
        benchmark_variants.STOCK,
        'mmdet',
        benchmark_variants.BASELINE,
    )
    infer.measure([variant], images[:1], turns=1, threads=1, side=128)
    (seconds,) = variant.turns[0]
    assert list(seconds) == STAGES
    assert all(seconds[stage] > 0 for stage in STAGES)
    assert seconds['NMS'] < seconds['network']
    assert variant.rate == pytest.approx(1 / sum(seconds.values()))
    # Of 192 GMAC at 1024 px 1/64 is left, besides the box head's for up to 1,000 RoIs of 12,544 values.
    assert 192e9 / 64 * 0.8 < variant.macs < 192e9 / 64 + 1.1 * 1000 * 12544 * 1024
    assert variant.memory > 2e8
    weights = torch.load(checkpoint)['state_dict']
    # Every residual branch counts: mmdet begins them with a gamma of 0.
    assert not [key for key, value in weights.items() if key.endswith('bn3.weight') and not value.all()]


@pytest.mark.long
def test_the_exports_find_what_mmdet_finds_in_their_checkpoint(small, tmp_path):
    loader.write_radiographs(tmp_path / 'data', 2, 128)
    images = sorted((tmp_path / 'data' / 'images').iterdir())
    checkpoint = benchmark_variants.write_untrained(tmp_path / 'r50.pth', 128)
    folders = benchmark_variants.export_untrained(tmp_path, 128, images)
    assert [path.rpartition('/')[2] for path in folders] == [
        'r50-fp32',
        'r50-int8',
        'student-fp32',
        'student-int8',
    ]
    variants = [
        v
        for v in benchmark_variants.variants_of(folders, checkpoint, infer.GOALS)
        if v.engine in ('mmdet', 'openvino')
    ]
    assert [v.goal for v in variants] == [None, None, 7, None, 25]
    infer.measure(variants, images, turns=1, threads=1, side=128)
    mmdet, full, quantised, *students = variants
    assert full.boxes == mmdet.boxes
    assert min(full.boxes) > 0
    assert folder.read(folders[1]).precision == 'int8'
    for variant in (full, quantised, *students):
        assert 0 < variant.decoding < 1
        graph = engines.core().compile_model(f'{variant.source}/model.xml', 'CPU').get_runtime_model()
        network, kinds = graphs.of_the_network(graph), {}
        for node in graph.get_ops():
            kinds.setdefault(node.get_rt_info()['layerType'].value, []).append(node)
        for node in kinds['ROIAlign']:
            assert node.input_value(0).get_node().get_friendly_name() in network
        for kind in ('TopK', 'NonMaxSuppression'):
            assert not network & {node.get_friendly_name() for node in kinds[kind]}
    # mmdet's first convolution has three channels, the graph's one, of 32 filters of 7 x 7 at half the size.
    assert mmdet.macs - full.macs == 2 * 32 * 49 * 64 * 64
    # Another number of RoIs may reach the box head.
    assert quantised.macs == pytest.approx(full.macs, rel=0.1)
    assert students[0].macs < full.macs / 2


@pytest.mark.slow
def test_the_tool_measures_a_folder_at_its_own_size(tmp_path, monkeypatch, capsys, small):
    monkeypatch.setattr(graphs, 'matmul_rates', fixed_rates)
    monkeypatch.setattr(
        benchmark_variants, 'variants_of', without_torchvision(benchmark_variants.variants_of)
    )
    path = export_to(tmp_path / 'brightest')
    assert benchmark.main(['infer', str(path), '--images', '2', '--turns', '1', '--threads', '1']) == 0
    printed = capsys.readouterr().out
    assert f'2 radiographs of {SIDE} x {SIDE} px, 8-bit PNG; 1 turns; 1 threads' in printed
    assert 'load average' in printed
    rows = [line for line in printed.splitlines() if line.startswith('| ')]
    assert [row.split(' | ')[0] for row in rows[1:]] == [
        '| mmdet, PyTorch',
        '| brightest, openvino fp32',
        '| brightest, onnxruntime fp32',
    ]
    assert 'goal' not in printed
    assert benchmark.main(['infer', str(tmp_path / 'none')]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert 'none/metadata.json: ' in line


def fixed_rates(threads):
    return dict(fp32=1e12, int8=4e12)


def without_torchvision(variants_of):
    """Its backbone is a ResNet-50, which the small set's is not."""

    def some(*args):
        return [v for v in variants_of(*args) if v.engine != 'torchvision']

    return some


@pytest.mark.long
def test_the_default_set_runs_whole(capsys):
    arguments = ['infer', '--size', '128', '--images', '2', '--turns', '1', '--threads', '1']
    assert benchmark.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count('\n| ') == 9
    assert [line.split(',')[0] for line in printed.splitlines() if 'goal' in line] == [
        'r50-int8',
        'student-int8',
    ]


def test_matrix_products_run_in_int8_and_float32():
    rates = graphs.matmul_rates(1, side=64)
    assert min(rates.values()) > 0


def test_the_table_is_relative_to_mmdet_and_says_which_goals_are_reached():
    def turns(*milliseconds, network, nms=0.0):
        return [
            [dict(decode=0.0, window=(ms - network) / 1e3, network=network / 1e3, NMS=nms, merge=0.0)] * 3
            for ms in milliseconds
        ]

    # Twice as slow in the second turn, when the machine was busy: ratios are taken turn by turn.
    stock = benchmark_variants.Variant(
        benchmark_variants.STOCK, 'x', 'mmdet', turns=turns(200, 400, network=100)
    )
    ours = benchmark_variants.Variant('ours', 'x', 'openvino', 'int8', goal=10, macs=2 * 10**9)
    ours.turns = turns(20, 40, network=16)
    other = benchmark_variants.Variant('other', 'x', 'onnxruntime')
    other.turns = [[{k: v for k, v in s.items() if k != 'NMS'} for s in turn] for turn in ours.turns]
    for variant in (stock, ours, other):
        variant.load, variant.first, variant.boxes, variant.memory, variant.rate = 1.5, 0.25, [3, 4], 2e9, 4.0
    ours.load_kept = 0.26
    assert ours.outside() == pytest.approx(1 - 2 * 16 / (20 + 40))
    result = infer.table([stock, ours, other], dict(fp32=1e12, int8=5e11)).splitlines()
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in result[:5]]
    assert cells[3][:9] == ['ours', '30', '40', '10.0×', '4.00', '1.5', '0.3', '250', '2.00']
    assert cells[3][9:] == ['0.0', '14.0', '16.0', '0.0', '0.0', '46.7%', '4', '2', '25%']
    assert dict(zip(cells[0], cells[4], strict=True)) | {
        'load, kept s': '–',
        'NMS ms': '–',
        'not network': '–',
        'GMAC': '–',
        'of matmul rate': '–',
    } == dict(zip(cells[0], cells[4], strict=True))
    assert result[-1] == 'ours: goal 10.0× reached (10.0×), goal 15% not network missed (46.7%)'
    assert 'reach 1000 GMAC/s in float32 and 500 in INT8' in result[-2]


def test_what_ran_within_the_networks_stage_is_moved():
    class Owner:
        def double(self, value):
            return 2 * value

    owner = Owner()
    timed = detectors._Timed(owner, 'double')
    assert (owner.double(4), timed.last) == (8, 8)
    seconds = dict(network=1.0, NMS=0.0)
    detectors._move(seconds, 'NMS', timed)
    assert 0 < seconds['NMS'] < 1
    assert sum(seconds.values()) == pytest.approx(1)
    assert timed.take() == 0
