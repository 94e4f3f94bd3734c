"""Profile of an exported graph: operations, time of box decoding and NMS, matrix-product rates."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .errors import BenchmarkError
from .variants import Variant

WEIGHTED = ('Convolution', 'MatMul')


def profile(variant: Variant, threads: int, image: str) -> tuple[int, float]:
    """Count the operations of OpenVINO's graph on a radiograph, and time its parts.

    Returns:
        Multiply-accumulates of convolutions and fully connected layers, and the share of the graph's time
        that box decoding and NMS take.
    """
    from projects.line.runtime import Inspector, folder

    exported = folder.read(variant.source, variant.engine)
    exported.depths, exported.gray_levels = [], {}
    arrays = list(Inspector.of(exported, None).input_of(image))
    graph = Path(variant.source) / exported.engines[variant.engine]
    return _count_macs(graph, arrays, threads), _time_decoding(graph, arrays, threads)


def _count_macs(graph: Path, arrays: list[np.ndarray], threads: int) -> int:
    """Count multiply-accumulates; in fully connected layers they depend on the number of RoIs."""
    from projects.line.runtime import engines

    model = engines.core().read_model(graph)
    nodes = {kind: [n for n in model.get_ops() if n.get_type_name() == kind] for kind in WEIGHTED}
    plain = len(model.outputs)
    model.add_outputs([node.output(0) for node in nodes['MatMul']])
    found = engines.core().compile_model(model, 'CPU', _settings(threads))(arrays)
    macs = 0
    for node in nodes['Convolution']:
        macs += int(np.prod(node.output(0).shape)) * int(np.prod(node.input(1).get_shape()[1:]))
    for node, output in zip(nodes['MatMul'], list(found.values())[plain:], strict=True):
        transposed = node.get_attributes()['transpose_a']
        macs += output.size * node.input(0).get_partial_shape()[-2 if transposed else -1].get_length()
    return macs


def _time_decoding(graph: Path, arrays: list[np.ndarray], threads: int) -> float:
    """Return the share of a graph's time that box decoding and NMS take.

    Each node's time is the best of ten runs, since other load on the machine slows a different node in each
    run.
    """
    from projects.line.runtime import engines

    compiled = engines.core().compile_model(graph, 'CPU', _settings(threads) | {'PERF_COUNT': True})
    named = of_the_network(compiled.get_runtime_model())
    request, best = compiled.create_infer_request(), {}
    for _ in range(10):
        request.infer(arrays)
        for node in request.profiling_info:
            seconds = node.real_time.total_seconds()
            best[node.node_name] = min(seconds, best.get(node.node_name, np.inf))
    return 1 - sum(seconds for name, seconds in best.items() if name in named) / sum(best.values())


def of_the_network(model) -> set[str]:
    """Return the names of the nodes of OpenVINO's runtime model that are not box decoding or NMS.

    They are the nodes named after the network's modules, and three kinds of nodes without such a name:
    normalisation before the backbone, scaling of INT8 maps for RoIAlign, and joining of RoIs before the box
    head.
    """
    from projects.line.export.int8 import NETWORK

    nodes = model.get_ops()
    image = [node for node in nodes if node.get_friendly_name() == 'image']
    pooling = [node for node in nodes if node.get_rt_info()['layerType'] == 'ROIAlign']
    maps = [node.input_value(0).get_node() for node in pooling]
    modules = {node.get_friendly_name() for node in nodes if node.get_friendly_name().startswith(NETWORK)}
    return modules | _unnamed(image + pooling, _after) | _unnamed(maps, _before)


def _unnamed(todo: list, neighbours: Callable) -> set[str]:
    """Follow a graph from the nodes `todo` to the network's modules; return the names on the way."""
    from projects.line.export.int8 import NETWORK

    found, todo = set(), list(todo)
    while todo:
        node = todo.pop()
        name = node.get_friendly_name()
        if name not in found and not name.startswith(NETWORK):
            found.add(name)
            todo += neighbours(node)
    return found


def _after(node) -> list:
    return [target.get_node() for port in node.outputs() for target in port.get_target_inputs()]


def _before(node) -> list:
    return [port.get_source_output().get_node() for port in node.inputs()]


def _settings(threads: int) -> dict:
    return {
        'INFERENCE_PRECISION_HINT': 'f32',
        'INFERENCE_NUM_THREADS': threads,
        'ENABLE_CPU_PINNING': False,
    }


def matmul_rates(threads: int, side: int = 2048) -> dict[str, float]:
    """Return the multiply-accumulates per second of a large matrix product, the best of twenty.

    The float32 rate is the better of PyTorch and OpenVINO. The INT8 rate is that of OpenVINO's fully
    connected layer on quantised values, as in an INT8 graph, without the time of quantisation.
    """
    import torch

    torch.set_num_threads(threads)
    a, best = torch.rand(side, side), np.inf
    for _ in range(20):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return dict(
        fp32=side**3 / min(best, _product_seconds(threads, side, False)),
        int8=side**3 / _product_seconds(threads, side, True),
    )


def _product_seconds(threads: int, side: int, quantised: bool) -> float:
    """Return the seconds of OpenVINO's product of two (side, side) matrices, the best of twenty."""
    import openvino
    from openvino import opset13 as ops

    from projects.line.runtime import engines

    values = np.random.default_rng(0).uniform(-1, 1, (side, side)).astype(np.float32)
    given = ops.parameter([side, side], np.float32)
    left, right = given, ops.constant(values)
    if quantised:
        low, high, symmetric = (ops.constant(np.float32(v)) for v in (-1, 127 / 128, 1))
        left = ops.fake_quantize(left, low, high, low, high, 256)
        right = ops.fake_quantize(right, low, symmetric, low, symmetric, 255)
    model = openvino.Model([ops.matmul(left, right, False, True)], [given])
    settings = _settings(threads) | {'PERF_COUNT': True}
    request = engines.core().compile_model(model, 'CPU', settings).create_infer_request()
    best = np.inf
    for _ in range(20):
        request.infer([values])
        (product,) = (node for node in request.profiling_info if 'FullyConnected' in node.node_type)
        if quantised and 'i8' not in product.exec_type:
            raise BenchmarkError(f'the INT8 product ran as {product.exec_type}; OpenVINO has changed')
        best = min(best, product.real_time.total_seconds())
    return best
