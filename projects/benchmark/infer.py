"""Benchmark of detectors on one radiograph after another: mmdet and torchvision in PyTorch, our exports.

Each variant runs in a separate process, so that load time and peak memory can be told apart. The variants
take turns, so that other load on the machine affects all of them. If no folders are given, detectors with
random weights of the right shapes are exported first, from one seed: all ResNet-50 variants have the same
backbone. The time after the network depends on the number of boxes, so the table lists that number.
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

from projects.errors import one_line

from .detectors import count_in_torch, load_detector
from .errors import BenchmarkError
from .graphs import profile
from .memory import peak_memory
from .variants import (
    IN_PYTORCH,
    PATIENCE,
    STAGES,
    STOCK,
    Variant,
    run_in_subprocess,
)

GOALS = {'r50-int8': 7, 'student-int8': 25}
"""Goals of the untrained exports: speed as a multiple of mmdet's."""
MOST_OUTSIDE = 0.15
"""Largest share of the time that stages other than the network may take."""
LEAST_STREAMED = 30  # radiographs, in throughput mode


def measure(variants: Sequence[Variant], images: Sequence[Path], turns: int, threads: int, side: int) -> None:
    """Run the variants in turn, and write the measurements into them.

    Args:
        variants: The detectors to run.
        images: Radiographs; every variant sees them in the same order.
        turns: How often each variant inspects all of them.
        threads: CPU threads of each.
        side: Input size in px of the two detectors in PyTorch.

    Raises:
        BenchmarkError: A variant did not run.
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
            # PyTorch has no streams: its rate comes from its turns.
            variant.rate = _ask(variant, pipe, ('throughput', streamed)) or 1 / np.mean(variant.totals())
    finally:
        for _, process, pipe in started:
            pipe.close()
            process.join(10)
            process.kill()


def time_kept_load(variant: Variant, threads: int) -> float:
    """Load an exported folder twice, in separate processes, and return the seconds of the second load.

    The function loads a copy, so that no compiled graph is kept beside the folder itself.

    Raises:
        BenchmarkError: The second load did not find the graph that the first one kept.
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
    """Subtract box decoding and NMS, a known share of the network's seconds, from them."""
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
    """Load a variant and carry out the orders from the pipe."""
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
    except Exception as error:  # of any kind: the parent reports it
        pipe.send(BenchmarkError(f'{type(error).__name__}: {one_line(error, 300)}'))


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
