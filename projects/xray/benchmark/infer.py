"""Detectors that inspect one radiograph after the other: mmdet and torchvision in PyTorch beside our exports.

Each variant has a process of its own, so that load time and peak memory are its own; they take turns, so that
whatever else the machine does meets all alike. Without folders, detectors with random weights of the right
shapes are exported first: the time of a network does not depend on them.
"""

import multiprocessing
import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

STOCK = 'mmdet, PyTorch'
TORCHVISION = 'torchvision, PyTorch'
BASELINE = 'configs/faster_rcnn/faster-rcnn_r50-in1k-pre_fpn_4xb4-2x_industrial.py'
STUDENT = 'configs/distill/faster-rcnn_r18-in1k-pre_fpn64_4xb4-2x_industrial.py'
CALIBRATION = 4


class BenchmarkError(RuntimeError):
    """A variant did not run; one line with what it said."""


@dataclass
class Variant:
    """One detector on one engine.

    Attributes:
        name: In the table.
        source: Exported folder, or a config for STOCK, or None for TORCHVISION.
        engine: 'openvino', 'onnxruntime' or 'torch'.
        load: Seconds until it can inspect, imports among them.
        turns: Seconds of each radiograph by stage: 'decode', 'window', 'network' (with NMS), 'merge'.
        rate: Radiographs a second with as many streams as threads.
        memory: Peak of the process in bytes.
        decoding: Share of the graph's time that is box decoding and NMS; None where it is not measured.
        macs: Multiply-accumulates of the graph's convolutions; None where they are not known.
    """

    name: str
    source: str | None
    engine: str
    load: float = 0.0
    turns: list[dict[str, float]] = field(default_factory=list)
    rate: float = 0.0
    memory: int = 0
    decoding: float | None = None
    macs: int | None = None

    def milliseconds(self, percent: float) -> float:
        """Return a percentile of the time of a radiograph."""
        return 1e3 * float(np.percentile([sum(turn.values()) for turn in self.turns], percent))

    def outside(self) -> float:
        """Return the share of the time that is not the network: files, window, decoding, NMS, merging."""
        total = sum(sum(turn.values()) for turn in self.turns)
        network = sum(turn['network'] for turn in self.turns)
        return 1 - network * (1 - (self.decoding or 0)) / total


def variants_of(folders: Sequence[str]) -> list[Variant]:
    """List a variant per graph of each exported folder, after the two in PyTorch."""
    from projects.xray.deploy import folder as exported

    found = [Variant(STOCK, BASELINE, 'torch'), Variant(TORCHVISION, None, 'torch')]
    for path in folders:
        said = exported.read(path)
        found += [
            Variant(f'{Path(path).name}, {engine} {said.precision}', str(path), engine)
            for engine in said.engines
        ]
    return found


def export_untrained(root: Path, side: int, images: Sequence[Path]) -> list[str]:
    """Export baseline and student with random weights, in float32 and INT8; return the folders."""
    from projects.xray import export

    folders = []
    for name, config in (('r50', BASELINE), ('student', STUDENT)):
        for precision in ('fp32', 'int8'):
            out = root / f'{name}-{precision}'
            calibration = images[:CALIBRATION] if precision == 'int8' else ()
            export.export_untrained(_read(config, side), out, side, calibration)
            folders.append(str(out))
    return folders


def _read(config: str, side: int):
    """Read a config of the repository for inputs of `side` px."""
    from projects.xray import running

    cfg = running.read_config(str(running.REPO / config))
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type == 'Resize':
            step.scale = (side, side)
    return cfg


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
    started = []
    try:
        for variant in variants:
            here, there = context.Pipe()
            arguments = (there, variant.source, variant.engine, threads, side, names[0])
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            there.close()
            started.append((variant, process, here))
            variant.load, variant.decoding, variant.macs = _ask(variant, here)
        for _ in range(turns):
            for variant, _, pipe in started:
                variant.turns += _ask(variant, pipe, ('latency', names))
        for variant, _, pipe in started:
            variant.rate = _ask(variant, pipe, ('throughput', names))
            variant.memory = _ask(variant, pipe, ('memory', None))
    finally:
        for _, process, pipe in started:
            pipe.close()
            process.join(10)
            process.kill()


def _ask(variant: Variant, pipe: Connection, order=None):
    """Send an order and return the answer."""
    try:
        if order:
            pipe.send(order)
        answer = pipe.recv()
    except (EOFError, OSError):
        answer = BenchmarkError('its process ended')
    if isinstance(answer, Exception):
        raise BenchmarkError(f'{variant.name}: {" ".join(str(answer).split())[:300]}')
    return answer


def _work(pipe: Connection, source, engine: str, threads: int, side: int, first: str) -> None:
    """Load a variant and follow the orders that come."""
    try:
        os.environ['OMP_NUM_THREADS'] = str(threads)
        start = time.perf_counter()
        make = _in_torch if engine == 'torch' else _exported
        inspect, stream, decoding, macs = make(source, engine, threads, side)
        inspect(first)
        pipe.send((time.perf_counter() - start, decoding() if decoding else None, macs))
        while True:
            order, names = pipe.recv()
            if order == 'latency':
                pipe.send([inspect(name) for name in names])
            elif order == 'throughput':
                start = time.perf_counter()
                stream(names)
                pipe.send(len(names) / (time.perf_counter() - start))
            else:
                pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)  # Linux counts in KiB
    except EOFError:
        return
    except Exception as error:  # whatever it is, the parent says it
        pipe.send(BenchmarkError(f'{type(error).__name__}: {error}'))


def _exported(source, engine, threads, side):
    """The runtime on an exported folder; nothing of PyTorch is imported in its process."""
    from projects.xray.deploy import Inspector

    inspector = Inspector(source, engine, threads=threads)

    def stream(names):
        for _ in Inspector(source, engine, threads=threads, streams=threads).stream(names):
            pass

    if engine != 'openvino':
        return lambda name: inspector(name).seconds, stream, None, None
    graph = Path(source) / inspector.exported.engines[engine]
    array = np.full((1, 1, *inspector.exported.input), inspector.exported.mean, np.float32)
    array += np.random.default_rng(0).normal(0, 20, array.shape).astype(np.float32)
    macs, decoding = profile(graph, array, threads)
    return lambda name: inspector(name).seconds, stream, decoding, macs


def profile(graph: Path, array: np.ndarray, threads: int):
    """Count a graph's convolutions, and give a function that times its parts.

    Returns:
        Multiply-accumulates of all convolutions, and a function that returns the share of the time that box
        decoding and NMS take.
    """
    import openvino

    from projects.xray.quantise import NETWORK

    core = openvino.Core()
    model = core.read_model(graph)
    macs = sum(
        int(np.prod(node.output(0).shape)) * int(np.prod(node.input(1).shape[1:]))
        for node in model.get_ops()
        if node.get_type_name() == 'Convolution'
    )

    def decoding():
        settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': threads, 'PERF_COUNT': True}
        request = core.compile_model(model, 'CPU', settings).create_infer_request()
        extent = np.array(array.shape[2:], np.float32)
        shares = []
        for _ in range(4):
            request.infer([array, extent])
            times = [(p.node_name, p.node_type, p.real_time.total_seconds()) for p in request.profiling_info]
            network = sum(t for name, kind, t in times if name.startswith(NETWORK) or kind == 'ROIAlign')
            shares.append(1 - network / sum(t for _, _, t in times))
        return float(np.median(shares[1:]))

    return macs, decoding


def _in_torch(source, engine, threads, side):
    """Mmdet with its own pipeline, or torchvision's Faster R-CNN ResNet-50, on files."""
    import torch

    from projects.xray.imaging import read
    from projects.xray.packing import prepare

    torch.set_num_threads(threads)
    if source:
        from projects.xray import export

        cfg = _read(source, side)
        run = export.mmdet_runner(cfg, export.untrained_detector(cfg))
    else:
        from torchvision.models.detection import fasterrcnn_resnet50_fpn

        model = fasterrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=3, min_size=side, max_size=side
        ).eval()

        def run(name):
            clocks = [time.perf_counter()]
            radiograph = read(name)
            clocks.append(time.perf_counter())
            pixels = prepare(radiograph, dict(type='full'), 'float32')
            image = torch.from_numpy(pixels)[None].expand(3, -1, -1) / 255
            clocks.append(time.perf_counter())
            with torch.no_grad():
                model([image])
            clocks.append(time.perf_counter())
            return dict(zip(('decode', 'window', 'network'), np.diff(clocks).tolist(), strict=True))

    def stream(names):
        for name in names:
            run(name)

    return run, stream, None, None


def matmul_rate(threads: int) -> float:
    """Return float32 multiply-accumulates a second of a large matrix product, the best of ten."""
    import torch

    torch.set_num_threads(threads)
    side = 2048
    a, best = torch.rand(side, side), np.inf
    for _ in range(10):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return side**3 / best


def table(variants: Sequence[Variant], rate: float) -> str:
    """Return the results as Markdown."""
    stock = next(v for v in variants if v.name == STOCK).milliseconds(50)
    header = (
        'variant',
        'ms p50',
        'p95',
        'vs stock',
        'images/s',
        'load s',
        'peak GB',
        'decode ms',
        'window ms',
        'not network',
        'GMAC',
        'of matmul rate',
    )
    lines = [f'| {" | ".join(header)} |', '|---|' + '---:|' * (len(header) - 1)]
    for v in variants:
        stages = {k: 1e3 * float(np.median([turn[k] for turn in v.turns])) for k in ('decode', 'window')}
        network = float(np.median([turn['network'] for turn in v.turns]))
        cells = (
            v.name,
            f'{v.milliseconds(50):.0f}',
            f'{v.milliseconds(95):.0f}',
            f'{stock / v.milliseconds(50):.1f}×',
            f'{v.rate:.2f}',
            f'{v.load:.1f}',
            f'{v.memory / 1e9:.2f}',
            f'{stages["decode"]:.1f}',
            f'{stages["window"]:.1f}',
            '–' if v.decoding is None else f'{v.outside():.1%}',
            '–' if v.macs is None else f'{v.macs / 1e9:.0f}',
            '–' if v.macs is None else f'{v.macs / network / rate:.0%}',
        )
        lines.append(f'| {" | ".join(cells)} |')
    said = 'GMAC: of the convolutions. "Not network": files, window, box decoding, NMS.'
    return '\n'.join([*lines, f'{said} Matrix products in float32 reach {rate / 1e9:.0f} GMAC/s here.'])
