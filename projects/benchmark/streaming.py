"""Benchmark of a pretraining from a slow object store: time spent waiting for data, number of requests.

The store is moto's S3 server in a separate process, behind a proxy that delays each request.
"""

import contextlib
import logging
import multiprocessing
import os
import shutil
import socket
import socketserver
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from projects.errors import MMXrayError

CONFIG = 'configs/cpu/densecl_lite0-in1k-pre_1xb32-coslr-10e_castings-b-160px.py'
"""The CPU recipe of a pretraining."""
_VERBS = (b'GET ', b'PUT ', b'HEAD', b'POST', b'DELE')
_DRAWN = 24  # different radiographs; the others are copies with other names


class StreamingError(MMXrayError, RuntimeError):
    """The store cannot be served here; one line with the remedy."""


class _Proxy(socketserver.BaseRequestHandler):
    """Forwards one connection; delays and counts each request."""

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as there:
            threading.Thread(target=self._pump, args=(there, self.request), daemon=True).start()
            self._pump(self.request, there, self.server)

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket, server: Any = None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                if server and data.startswith(_VERBS):
                    with server.count.get_lock():
                        server.count.value += 1
                    time.sleep(server.latency)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def _serve(latency: float, count: Any, answer: Any) -> None:
    from moto.server import ThreadedMotoServer

    logging.getLogger('werkzeug').setLevel(logging.WARNING)  # else a line for each request
    moto = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
    moto.start()
    server = socketserver.ThreadingTCPServer(('127.0.0.1', 0), _Proxy)
    server.daemon_threads, server.latency, server.count = True, latency, count
    server.target = moto.get_host_and_port()
    answer.put(server.server_address[1])
    server.serve_forever()


@contextlib.contextmanager
def slow_store(latency: float) -> Iterator[Any]:
    """Serve S3 on localhost with delayed requests, and set the environment variables that point to it.

    Yields:
        The shared count of requests.

    Raises:
        StreamingError: The S3 server is not installed.
    """
    try:
        import moto.server  # noqa: F401
    except ImportError:
        raise StreamingError(
            'moto: not installed, expected an S3 server for this measurement; run: make setup'
        ) from None
    context = multiprocessing.get_context('spawn')
    count, answer = context.Value('q', 0), context.Queue()
    process = context.Process(target=_serve, args=(latency, count, answer), daemon=True)
    before = dict(os.environ)
    process.start()
    try:
        port = answer.get(timeout=300)
        os.environ.update(
            AWS_ENDPOINT_URL=f'http://127.0.0.1:{port}',
            AWS_ACCESS_KEY_ID='nobody',
            AWS_SECRET_ACCESS_KEY='nothing',
            AWS_DEFAULT_REGION='us-east-1',
        )
        yield count
    finally:
        process.kill()
        process.join()
        os.environ.clear()
        os.environ.update(before)


def measure_streaming(
    config_path: str, images: int, size: int, latency: float, steps: int
) -> dict[str, float]:
    """Pretrain from a packed store on the slow server, and read single files from the same server.

    Run this function in a separate process.

    Args:
        config_path: Config of a pretraining.
        images: Radiographs in the store.
        size: Their side in px.
        latency: Delay of each request in seconds.
        steps: Measured steps, after as many unmeasured ones as the loaders have batches ready.

    Returns:
        'images', 'latency_ms', 'rate' (images/s), 'data_time' (share of the time spent waiting for data),
        'requests_packed' and 'requests_files' (each per image and epoch).

    Raises:
        StreamingError: See `slow_store`; or there are fewer images than a batch has.
    """
    import fsspec

    from projects.radiograph import remote
    from projects.radiograph.pack_remote import pack_to_url
    from projects.radiograph.recipe import Recipe
    from projects.runs import running

    batch = running.read_experiment(config_path).train_dataloader.batch_size
    if images < batch:
        raise StreamingError(
            f'{images} radiographs streamed: expected at least the {batch} of a batch; give --streamed more'
        )
    with tempfile.TemporaryDirectory(prefix='benchmark-') as folder, slow_store(latency) as count:
        os.environ['MMXRAY_CACHE'] = f'{folder}/cache'
        source = Path(folder) / 'images'
        _write(source, images, size)
        fsspec.filesystem('s3').mkdir('archive')
        pack_to_url(source, 's3://archive/packed', Recipe(size))
        names = sorted(path.name for path in source.iterdir())[: min(images, 64)]
        for name in names:
            remote.upload(source / name, f's3://archive/files/{name}')
        before = count.value
        for name in names:
            remote.read_radiograph(f's3://archive/files/{name}')
        files = (count.value - before) / len(names)
        shutil.rmtree(f'{folder}/cache')
        before = count.value
        row = _train(config_path, 's3://archive', size, steps)
        epochs = row.pop('images_read') / images
        return dict(
            images=images,
            latency_ms=1000 * latency,
            **row,
            requests_packed=(count.value - before) / (images * max(epochs, 1.0)),
            requests_files=files,
        )


def _write(source: Path, images: int, size: int) -> None:
    from .loader import write_radiographs

    with tempfile.TemporaryDirectory(prefix='benchmark-') as folder:
        write_radiographs(Path(folder), min(images, _DRAWN), size)
        drawn = sorted((Path(folder) / 'images').iterdir())
        source.mkdir(parents=True)
        for number in range(images):
            shutil.copy(drawn[number % len(drawn)], source / f'{number:06d}.png')


def _train(config_path: str, root: str, size: int, steps: int) -> dict[str, float]:
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner

    from projects.runs import running
    from projects.xray import compat

    from . import loader, train
    from .published import inner_dataset

    config = running.read_experiment(config_path)
    compat.adapt_to_cpu(config)
    data = inner_dataset(config.train_dataloader)
    pipeline = [dict(step, size=size) if step['type'] == 'LoadXray' else step for step in data.pipeline]
    data.update(data_root=root, ann_file='', data_prefix=dict(img_path='packed'), pipeline=pipeline)
    settings = dict(config.train_dataloader, sampler=dict(type='XrayBlockSampler'))
    with DefaultScope.overwrite_default_scope(config.default_scope):
        batches = Runner.build_dataloader(settings)
    model, optim = train.build(config, Path(config_path), loader.PACKED, same_images=True)
    ready = max(1, config.train_dataloader.num_workers * train.PREFETCHED)
    endless = _endless(batches)
    for _ in range(ready):
        train.train_step(model, optim, next(endless))
    step, _, waiting = train.turn(model, optim, endless, steps)
    batch = config.train_dataloader.batch_size
    return dict(rate=batch / step, data_time=waiting, images_read=(2 * ready + steps) * batch)


def _endless(batches: Any) -> Iterator[Any]:
    epoch = 0
    while True:
        if hasattr(batches.sampler, 'set_epoch'):
            batches.sampler.set_epoch(epoch)
        yield from batches
        epoch += 1


def streaming_table(row: dict[str, float]) -> str:
    """Return one measurement as text."""
    return (
        f'pretraining from S3, {row["latency_ms"]:.0f} ms a request, {row["images"]:,} packed radiographs: '
        f'{row["rate"]:.1f} images/s, data_time {row["data_time"]:.1%}\n'
        f'requests per image and epoch: packed {row["requests_packed"]:.4f}, files '
        f'{row["requests_files"]:.2f} (1/{row["requests_files"] / max(row["requests_packed"], 1e-9):.0f})'
    )
