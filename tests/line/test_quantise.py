"""INT8: layers are quantised, box decoding is not, and a loss is mended by layers in float32."""

import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from projects.line.export.int8 import decoding, quantise, quantised_layers
from projects.line.runtime import engines


@pytest.fixture
def graph(tmp_path):
    """Two convolutions and an addition named like box decoding, with inputs as a detector's."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((8, 1, 3, 3), (4, 8, 3, 3))]
    nodes = [
        helper.make_node('Conv', ['image', 'w0'], ['a'], name='/backbone/Conv', pads=[1] * 4),
        helper.make_node('Relu', ['a'], ['b'], name='/backbone/Relu'),
        # A maximum hands INT8 on as it is.
        helper.make_node(
            'MaxPool', ['b'], ['p'], name='/backbone/MaxPool', kernel_shape=[3, 3], pads=[1] * 4
        ),
        helper.make_node('Conv', ['p', 'w1'], ['c'], name='/neck/Conv', pads=[1] * 4),
        helper.make_node('ReduceMax', ['extent'], ['side'], name='/ReduceMax', keepdims=1),
        helper.make_node('Mul', ['c', 'side'], ['boxes'], name='/Mul'),
    ]
    made = helper.make_graph(
        nodes,
        'two layers',
        [
            helper.make_tensor_value_info('image', TensorProto.FLOAT, [1, 1, 16, 16]),
            helper.make_tensor_value_info('extent', TensorProto.FLOAT, [2]),
        ],
        [helper.make_tensor_value_info('boxes', TensorProto.FLOAT, [1, 4, 16, 16])],
        [numpy_helper.from_array(w, f'w{k}') for k, w in enumerate(weights)],
    )
    save(
        helper.make_model(made, opset_imports=[helper.make_opsetid('', 17)], ir_version=8),
        tmp_path / 'm.onnx',
    )
    model = engines.core().read_model(tmp_path / 'm.onnx')
    openvino.save_model(model, tmp_path / 'm.xml', compress_to_fp16=False)
    inputs = [
        (rng.normal(0, 1, (1, 1, 16, 16)).astype(np.float32), np.array([16, 16], np.float32))
        for _ in range(8)
    ]
    return tmp_path / 'm.xml', inputs


@pytest.fixture(scope='module')
def run_in_subprocess():
    """Run checks in one other process: after NNCF, a training in the same process crashes."""
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        yield lambda check, *args: pool.submit(check, *args).result()


def likeness(path, inputs):
    """1 less the mean error against float32, as a measure of an engine."""
    reference = engines.load('openvino', path, threads=1)
    wanted = [reference(*pair)[0] for pair in inputs]

    def measure(engine):
        errors = [np.abs(engine(*pair)[0] - want).mean() for pair, want in zip(inputs, wanted, strict=True)]
        return 1 - float(np.mean(errors))

    return measure


def test_the_layers_are_quantised_and_the_decoding_is_not(graph, run_in_subprocess):
    run_in_subprocess(check_layers, *graph)


def check_layers(path, inputs):
    result = quantise(path, inputs, likeness(path, inputs), 1.0, most_loss=10)
    assert result['images'] == 8
    assert result['float32'] == []
    assert result['measure_after_plain_quantisation'] < 1
    model = engines.core().read_model(path)
    assert len(quantised_layers(model)) == 2
    assert set(decoding(model)) >= {'/ReduceMax', 'boxes'}
    users = {
        target.get_node().get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() == 'FakeQuantize'
        for target in node.output(0).get_target_inputs()
    }
    assert not users & set(decoding(model))
    assert {file.name for file in path.parent.iterdir()} == {'m.onnx', 'm.xml', 'm.bin'}


def test_a_loss_beyond_the_limit_puts_layers_back(graph, run_in_subprocess):
    run_in_subprocess(check_loss, *graph)


def check_loss(path, inputs):
    measure = likeness(path, inputs)
    result = quantise(path, inputs, measure, 1.0, most_loss=1e-4)
    assert result['float32']
    assert measure(engines.load('openvino', path, threads=1)) > result['measure_after_plain_quantisation']


@pytest.mark.slow
def test_what_float32_loses_itself_counts(graph, run_in_subprocess):
    run_in_subprocess(check_own_loss, *graph)


def check_own_loss(path, inputs):
    """As where the runtime pads images more than mmdet does."""
    measure, copy = likeness(path, inputs), path.with_name('copy.xml')
    for suffix in ('.xml', '.bin'):
        shutil.copy(path.with_suffix(suffix), copy.with_suffix(suffix))
    plain = quantise(copy, inputs, measure, 1.0, most_loss=10)['measure_after_plain_quantisation']
    most_loss = 2 * (1 - plain)

    def shifted(engine):
        return measure(engine) - 0.75 * most_loss

    result = quantise(path, inputs, shifted, 1.0, most_loss)
    assert result['float32']
    assert shifted(engines.load('openvino', path, threads=1)) >= 1 - most_loss
