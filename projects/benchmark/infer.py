"""Detectors that inspect one radiograph after the other: mmdet and torchvision in PyTorch beside our exports.

Each variant has a process of its own, so that load time and peak memory are its own; they take turns, so that
whatever else the machine does meets all alike. Without folders, detectors with random weights of the right
shapes are exported first, from one seed: all that run ResNet-50 run the same backbone. What follows the
network depends on how many boxes there are, which is why the table counts them.
"""

import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from .detectors import count_in_torch, load_detector
from .graphs import profile
from .variants import (
    IN_PYTORCH,
    PATIENCE,
    STAGES,
    STOCK,
    BenchmarkError,
    Variant,
    one_line,
    run_in_subprocess,
)

GOALS = {'r50-int8': 7, 'student-int8': 25}


"""How many times as fast as mmdet the untrained exports are to be."""


MOST_OUTSIDE = 0.15  # of the time, that is not the network


LEAST_STREAMED = 30  # radiographs, in throughput mode


def measure(variants: Sequence[Variant], images: Sequence[Path], turns: int, threads: int, side: int) -> None:
    """Run the variants in turn, and write into them what was measured.

    Args:
        variants: What to run.
        images: Radiographs; every variant sees them in the same order.
        turns: How often each variant inspects all of them.
        threads: CPU threads of each.
        side: px of the input of the two in PyTorch.

    Raises:
        BenchmarkError: One of them did not run.
    """
    context = multiprocessing.get_context('spawn')
    names = [str(path) for path in images]
    for variant in variants:
        if variant.engine == 'openvino':
            variant.macs, variant.decoding = run_in_subprocess(
                variant.name, profile, variant, threads, names[0]
            )
            variant.load_kept = time_kept_load(variant, threads)
    started = []
    try:
        for variant in variants:
            here, there = context.Pipe()
            arguments = (there, variant, threads, side, names[0])
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            there.close()
            started.append((variant, process, here))
            variant.load, variant.first = _ask(variant, here)
        for _ in range(turns):
            for variant, _, pipe in started:
                found = _ask(variant, pipe, ('latency', names))
                variant.turns.append([_told_apart(seconds, variant.decoding) for seconds, _ in found])
                variant.boxes += [boxes for _, boxes in found]
        for variant, _, pipe in started:
            variant.memory = _ask(variant, pipe, ('memory', names))
            if variant.engine in IN_PYTORCH:
                variant.macs = _ask(variant, pipe, ('operations', names))
        streamed = list(islice(cycle(names), max(LEAST_STREAMED, len(names))))
        for variant, _, pipe in started:
            # PyTorch has no streams: its turns are all there is.
            variant.rate = _ask(variant, pipe, ('throughput', streamed)) or 1 / np.mean(variant.totals())
    finally:
        for _, process, pipe in started:
            pipe.close()
            process.join(10)
            process.kill()


def time_kept_load(variant: Variant, threads: int) -> float:
    """Start an exported folder twice, each in a process of its own, and return the seconds of the second.

    Of a copy, so that no graph is kept beside the folder itself.

    Raises:
        BenchmarkError: The second start did not find what the first one kept.
    """
    with tempfile.TemporaryDirectory(prefix='benchmark-') as place:
        copy = replace(variant, source=shutil.copytree(variant.source, f'{place}/detector'))
        kept = []
        for _ in range(2):
            seconds = run_in_subprocess(variant.name, _start, copy, threads)
            kept.append([file.stat().st_mtime_ns for file in Path(place).glob('.detector.cache/*')])
    if not kept[0] or kept[0] != kept[1]:
        raise BenchmarkError(
            f'{variant.name}: expected the second start to find the graph that the first one kept, found '
            f'none; make room in {tempfile.gettempdir()}'
        )
    return seconds


def _start(variant: Variant, threads: int) -> float:
    start = time.perf_counter()
    load_detector(variant, threads, 0, cache=True)
    return time.perf_counter() - start


def _told_apart(seconds: dict[str, float], decoding: float | None) -> dict[str, float]:
    """Take box decoding and NMS out of the network's seconds, where they are a share of them."""
    if decoding is None:
        return seconds
    network = seconds['network']
    return seconds | dict(network=network * (1 - decoding), NMS=network * decoding)


def _ask(variant: Variant, pipe: Connection, order=None):
    """Send an order and return the answer."""
    try:
        if order:
            pipe.send(order)
        answer = pipe.recv() if pipe.poll(PATIENCE) else BenchmarkError(f'no answer in {PATIENCE} s')
    except (EOFError, OSError):
        answer = BenchmarkError('its process ended')
    if isinstance(answer, Exception):
        raise BenchmarkError(f'{variant.name}: {answer}')
    return answer


def _work(pipe: Connection, variant: Variant, threads: int, side: int, first: str) -> None:
    """Load a variant and follow the orders that come."""
    try:
        start = time.perf_counter()
        inspect, stream = load_detector(variant, threads, side)
        loaded = time.perf_counter()
        inspect(first)
        pipe.send((loaded - start, time.perf_counter() - loaded))
        for _ in range(2):
            inspect(first)
        while True:
            order, names = pipe.recv()
            if order == 'latency':
                pipe.send([inspect(name) for name in names])
            elif order == 'memory':
                pipe.send(peak_memory())
            elif order == 'operations':
                pipe.send(count_in_torch(inspect, names[0]))
            else:
                pipe.send(stream(names) if stream else None)
    except EOFError:
        return
    except Exception as error:  # whatever it is, the parent says it
        pipe.send(BenchmarkError(one_line(error)))


def peak_memory() -> int:
    """Return the peak of this process's memory in bytes; `ru_maxrss` would begin with that of its parent."""
    status = Path('/proc/self/status').read_text()
    return 1024 * int(status.partition('VmHWM:')[2].split()[0])


<<<<<<< HEAD
=======
def _load(variant: Variant, threads: int, side: int, cache: bool = False):
    """Return a function that inspects a file, seconds by stage and boxes, and one that measures a stream.

    Unless `cache` says otherwise, a graph is compiled anew: a kept one would be an earlier run's.
    """
    os.environ['OMP_NUM_THREADS'] = str(threads)
    import cv2

    cv2.setNumThreads(threads)
    if variant.engine == 'mmdet':
        return _mmdet(variant, threads, side), None
    if variant.engine == 'torchvision':
        return _torchvision(variant, threads, side), None
    return _exported(variant, threads, cache)


def _exported(variant: Variant, threads: int, cache: bool):
    """The runtime on an exported folder; nothing of PyTorch is imported in its process."""

    def load(streams):
        from projects.line.runtime import Inspector

        inspector = Inspector(variant.source, variant.engine, threads=threads, streams=streams, cache=cache)
        inspector.exported.depths = []  # any radiograph will do to measure time
        return inspector

    inspector = load(1)

    def inspect(name):
        said = inspector(name)
        return said.seconds, len(said.boxes)

    def stream(names):
        streaming = load(threads)
        for _ in streaming.stream(names[: 3 * threads]):  # each stream's first ones
            pass
        start = time.perf_counter()
        for _ in streaming.stream(names):
            pass
        return len(names) / (time.perf_counter() - start)

    return inspect, stream


class _Timed:
    """A method of an object, timed from now on.

    Attributes:
        last: What it returned last.
    """

    def __init__(self, owner, name: str):
        self.last, self._seconds, self._call = None, 0.0, getattr(owner, name)
        setattr(owner, name, self)

    def __call__(self, *args, **kwargs):
        start = time.perf_counter()
        self.last = self._call(*args, **kwargs)
        self._seconds += time.perf_counter() - start
        return self.last

    def take(self) -> float:
        """Return the seconds since the last time."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def _mmdet(variant: Variant, threads: int, side: int):
    """Mmdet with its own pipeline, on files."""
    import torch

    from projects.line.export import detector as export_detector
    from projects.line.export import parity

    torch.set_num_threads(threads)
    cfg = _read(variant.config, side)
    detector = export_detector.load_detector(cfg, variant.source)
    normalise = _Timed(detector.data_preprocessor, 'forward')
    propose = _Timed(detector.rpn_head, 'predict_by_feat')
    detect = _Timed(detector.roi_head.bbox_head, 'predict_by_feat')
    run = parity.mmdet_runner(cfg, detector)

    def inspect(name):
        seconds = dict.fromkeys(STAGES, 0.0) | run(name)
        _move(seconds, 'window', normalise)
        _move(seconds, 'NMS', propose, detect)
        return seconds, len(detect.last[0].bboxes)

    return inspect


def _torchvision(variant: Variant, threads: int, side: int):
    """Torchvision's Faster R-CNN ResNet-50 with the checkpoint's backbone, on files read by us."""
    import torch
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    from projects.radiograph.read import read
    from projects.radiograph.recipe import prepare

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=side, max_size=side
    ).eval()
    weights = torch.load(variant.source, weights_only=True)['state_dict']
    prefix = 'backbone.'  # both call the layers of a ResNet alike
    own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    model.backbone.body.load_state_dict(own)
    normalise, merge = _Timed(model.transform, 'forward'), _Timed(model.transform, 'postprocess')
    propose = _Timed(model.rpn.box_coder, 'decode'), _Timed(model.rpn, 'filter_proposals')
    detect = _Timed(model.roi_heads, 'postprocess_detections')

    def inspect(name):
        clocks = [time.perf_counter()]
        radiograph = read(name)
        clocks.append(time.perf_counter())
        pixels = prepare(radiograph, dict(type='full'), 'float32')
        image = torch.from_numpy(pixels)[None].expand(3, -1, -1) / 255
        clocks.append(time.perf_counter())
        with torch.no_grad():
            (found,) = model([image])
        clocks.append(time.perf_counter())
        seconds = dict.fromkeys(STAGES, 0.0) | dict(zip(STAGES, np.diff(clocks).tolist(), strict=False))
        _move(seconds, 'window', normalise)
        _move(seconds, 'NMS', *propose, detect)
        _move(seconds, 'merge', merge)
        return seconds, len(found['boxes'])

    return inspect


def _move(seconds: dict[str, float], stage: str, *timed: _Timed) -> None:
    """Count what ran within the network's stage to another."""
    taken = sum(one.take() for one in timed)
    seconds['network'] -= taken
    seconds[stage] += taken


def _count_in_torch(inspect: Callable, image: str) -> int:
    """Count multiply-accumulates of convolutions and fully connected layers."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        inspect(image)
    return counter.get_total_flops() // 2


def profile(variant: Variant, threads: int, image: str) -> tuple[int, float]:
    """Count the operations of OpenVINO's graph on a radiograph, and time its parts.

    Returns:
        Multiply-accumulates of convolutions and fully connected layers, and the share of the graph's time
        that box decoding and NMS take.
    """
    from projects.line.runtime import Inspector, folder

    exported = folder.read(variant.source, variant.engine)
    exported.depths = []
    arrays = list(Inspector.of(exported, None).input_of(image))
    graph = Path(variant.source) / exported.engines[variant.engine]
    return _count_macs(graph, arrays, threads), _time_decoding(graph, arrays, threads)


def _count_macs(graph: Path, arrays: list[np.ndarray], threads: int) -> int:
    """Count multiply-accumulates; those of fully connected layers hang on how many RoIs there are."""
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

    Of each node the best of ten counts: what else the machine does lengthens now one, now another.
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
    """Name the nodes of OpenVINO's runtime model that are not box decoding and NMS.

    Those of the network's modules, and three that bear no module's name: normalisation before the backbone,
    what scales INT8 maps for RoIAlign, and what joins RoIs before the box head.
    """
    from projects.line.export.int8 import NETWORK

    nodes = model.get_ops()
    image = [node for node in nodes if node.get_friendly_name() == 'image']
    pooling = [node for node in nodes if node.get_rt_info()['layerType'] == 'ROIAlign']
    maps = [node.input_value(0).get_node() for node in pooling]
    modules = {node.get_friendly_name() for node in nodes if node.get_friendly_name().startswith(NETWORK)}
    return modules | _unnamed(image + pooling, _after) | _unnamed(maps, _before)


def _unnamed(todo: list, neighbours: Callable) -> set[str]:
    """Follow a graph from some nodes as far as the network's modules; return the names on the way."""
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
    """Return multiply-accumulates a second of a large matrix product, the best of twenty.

    In float32 the better of PyTorch and OpenVINO; INT8 is OpenVINO's fully connected layer between quantised
    values, as in an INT8 graph, without the time to quantise them.
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


>>>>>>> d2397cd (Readers of one format each; DICOM by its prefix, damaged JPEG, orientations and hidden frames refused)
def table(variants: Sequence[Variant], rates: dict[str, float]) -> str:
    """Return the results as Markdown.

    Args:
        variants: Measured.
        rates: Of `matmul_rates`.
    """
    stock = next(v for v in variants if v.name == STOCK)
    header = (
        'variant',
        'ms p50',
        'p95',
        'vs stock',
        'images/s',
        'load s',
        'load, kept s',
        'first ms',
        'peak GB',
        *(f'{name} ms' for name in STAGES),
        'not network',
        'boxes',
        'GMAC',
        'of matmul rate',
    )
    lines = [f'| {" | ".join(header)} |', '|---|' + '---:|' * (len(header) - 1)]
    for v in variants:
        stages = [v.stage(name) for name in STAGES]
        outside, network = v.outside(), v.stage('network')
        cells = (
            v.name,
            f'{v.milliseconds(50):.0f}',
            f'{v.milliseconds(95):.0f}',
            f'{v.against(stock):.1f}×',
            f'{v.rate:.2f}',
            f'{v.load:.1f}',
            '–' if v.load_kept is None else f'{v.load_kept:.1f}',
            f'{1e3 * v.first:.0f}',
            f'{v.memory / 1e9:.2f}',
            *('–' if seconds is None else f'{1e3 * seconds:.1f}' for seconds in stages),
            '–' if outside is None else f'{outside:.1%}',
            f'{np.mean(v.boxes):.0f}',
            f'{v.macs / 1e9:.0f}' if v.macs else '–',
            f'{v.macs / network / rates[v.precision]:.0%}' if v.macs else '–',
        )
        lines.append(f'| {" | ".join(cells)} |')
    lines.append(
        '"Load, kept": with the compiled graph of an earlier start, as OpenVINO keeps it. '
        'NMS: with box decoding; of ONNX Runtime it is in the network\'s time. "Not network": all but '
        'backbone, FPN, RoIAlign and heads. GMAC: of convolutions and fully connected layers. Matrix '
        f'products reach {rates["fp32"] / 1e9:.0f} GMAC/s in float32 and {rates["int8"] / 1e9:.0f} in INT8.'
    )
    lines += [_goal(v, v.against(stock), v.outside()) for v in variants if v.goal]
    return '\n'.join(lines)


def _goal(variant: Variant, ratio: float, outside: float) -> str:
    speed = 'reached' if ratio >= variant.goal else 'missed'
    rest = 'reached' if outside <= MOST_OUTSIDE else 'missed'
    return (
        f'{variant.name}: goal {variant.goal:.1f}× {speed} ({ratio:.1f}×), '
        f'goal {MOST_OUTSIDE:.0%} not network {rest} ({outside:.1%})'
    )
