"""Benchmark of the memory that an archive's labels and index take in a training, without pixels."""

import gc
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from projects.radiograph.files import write_json
from projects.radiograph.recipe import Recipe
from projects.radiograph.store import FORMAT, HEAD, LINES, find_store
from projects.xray.parquet import ANNOTATION, GROUP, SCHEMA, write_batches

BOXES = 2
"""Annotations per image."""
FEW = 1000
"""Number of records of the reference measurement."""
STRIDE = 16
"""A loader takes every 16th record; a memory page holds more than 16, so each page is touched."""


def write_records(path: Path, count: int) -> int:
    """Write the labels of drawn images, two boxes with a polygon each; returns the size in bytes."""

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, count, GROUP):
            number = np.arange(start, min(start + GROUP, count))
            flaws = np.repeat(number, BOXES)
            ids = BOXES * flaws + np.tile(np.arange(BOXES), len(number))
            corner = np.stack([ids % 900 + 0.5, ids % 800 + 0.25], 1)
            boxes = np.concatenate([corner, np.full((len(ids), 2), 24.5)], 1)
            outline = [f'[[{x},{y},{x + 24},{y},{x + 24},{y + 24},{x},{y + 24}]]' for x, y in corner.tolist()]
            columns = dict(
                position=pa.array(ids),
                id=pa.array(ids + 1),
                category_id=pa.array(1 + ids % 2),
                bbox=pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 4),
                area=pa.array(np.full(len(ids), 576.0)),
                iscrowd=pa.array(np.zeros(len(ids), np.int8)),
                ignore=pa.nulls(len(ids), pa.int8()),
                segmentation=pa.array(outline),
                extra=pa.nulls(len(ids), pa.string()),
            )
            struct = pa.StructArray.from_arrays(
                [columns[f.name] for f in ANNOTATION], fields=list(ANNOTATION)
            )
            offsets = pa.array(np.arange(0, len(ids) + 1, BOXES, np.int32))
            rows = dict(
                id=pa.array(number + 1),
                file_name=pa.array(
                    [f'line-{k % 7}/2026/P{k // 4:07d}_view{k % 4}.png' for k in number.tolist()]
                ),
                width=pa.array(np.full(len(number), 1024, np.int32)),
                height=pa.array(np.full(len(number), 1024, np.int32)),
                part=pa.array([f'P{k // 4:07d}' for k in number.tolist()]),
                series=pa.nulls(len(number), pa.string()),
                extra=pa.nulls(len(number), pa.string()),
                annotations=pa.ListArray.from_arrays(offsets, struct),
            )
            yield pa.RecordBatch.from_arrays([rows[name] for name in SCHEMA.names], schema=SCHEMA)

    categories = [dict(id=1, name='critical'), dict(id=2, name='minor')]
    write_batches(path, dict(categories=categories), batches())
    return path.stat().st_size


def measure(kinds: Sequence[str], count: int, workers: int) -> dict[str, list[dict[str, float]]]:
    """Return, by kind of `MEASURES`, the memory of `FEW` records and of `count` records."""
    return {kind: [MEASURES[kind](number, workers) for number in (FEW, count)] for kind in kinds}


def measure_records(count: int, workers: int) -> dict[str, float]:
    """Measure the memory of a detector's data set and metric, with loaders that touch every page.

    The data set's folder is a URL; no image is fetched.

    Returns:
        'images', 'file_mb' and 'pss_mb', the sum of the PSS of this process and of the loaders.
    """
    from projects.xray.datasets import XrayDefects
    from projects.xray.metrics import XrayDefectMetric

    with tempfile.TemporaryDirectory(prefix='benchmark-') as folder:
        before, os.environ['MMXRAY_CACHE'] = os.environ.get('MMXRAY_CACHE'), folder
        file = Path(folder) / 'train.parquet'
        size = write_records(file, count)
        classes = ('critical', 'minor')
        dataset = XrayDefects(
            ann_file=str(file), data_prefix=dict(img='http://none/'), metainfo=dict(classes=classes)
        )
        metric = XrayDefectMetric(str(file))
        metric.dataset_meta = dict(classes=classes)
        pss = _over_loaders(dataset.get_data_info, len(dataset), workers)
        os.environ.pop('MMXRAY_CACHE') if before is None else os.environ.update(MMXRAY_CACHE=before)
    return dict(images=count, file_mb=size / 1e6, pss_mb=pss / 1e6)


def measure_index(count: int, workers: int) -> dict[str, float]:
    """Measure the memory of a packed store's index in a pretraining, as `measure_records` does for labels."""
    from projects.xray.datasets import XrayImages

    with tempfile.TemporaryDirectory(prefix='benchmark-') as folder:
        size = write_index(Path(folder), count)
        dataset = XrayImages(data_prefix=dict(img_path=folder), pipeline=[])
        store, _ = find_store(folder)
        pss = _over_loaders(lambda k: (dataset.get_data_info(k), store[k]), len(dataset), workers)
    return dict(images=count, file_mb=size / 1e6, pss_mb=pss / 1e6)


MEASURES = dict(index=measure_index, records=measure_records)


def write_index(folder: Path, count: int) -> int:
    """Write the index of a store with made-up names and no shards; returns its size in bytes."""
    lines = np.zeros(count, LINES)
    with (folder / 'names.bin').open('wb') as names:
        for k in range(count):
            name, part = f'line-{k * 7 // count}/2026/P{k // 4:07d}_view{k % 4}.png', f'P{k // 4:07d}'
            lines[k]['text'], lines[k]['name_bytes'], lines[k]['part_bytes'] = (
                names.tell(),
                len(name),
                len(part),
            )
            names.write((name + part).encode())
        text = names.tell()
    number = np.arange(count)
    for key in ('height', 'width', 'source_height', 'source_width'):
        lines[key] = 512
    lines['shard'], lines['offset'] = number // 4096, number % 4096 * 512 * 512
    lines.tofile(folder / 'index.bin')
    head = dict(format=FORMAT, source=str(folder), group=None, recipe=asdict(Recipe(512)), finished=True)
    sizes = {'index.bin': lines.nbytes, 'names.bin': text}
    write_json(folder / HEAD, head | dict(files='', left_out={}) | sizes)
    return lines.nbytes + text


def _over_loaders(take: Callable[[int], Any], count: int, workers: int) -> int:
    """Let forked loaders touch every page of `count` records; returns the sum of PSS in bytes."""
    gc.collect()
    context = multiprocessing.get_context('fork')
    done, end = context.Semaphore(0), context.Event()

    def load(first: int) -> None:
        for k in range(first * STRIDE, count, workers * STRIDE):
            take(k)
        done.release()
        end.wait()

    loaders = [context.Process(target=load, args=(first,)) for first in range(workers)]
    for loader in loaders:
        loader.start()
    try:
        for _ in loaders:
            if not done.acquire(timeout=3600):
                raise RuntimeError('a loader did not finish')
        return sum(_pss(pid) for pid in (os.getpid(), *(loader.pid for loader in loaders)))
    finally:
        end.set()
        for loader in loaders:
            loader.join()


def _pss(pid: int) -> int:
    """Memory of a process in bytes; shared pages are divided by the number of processes that share them."""
    lines = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith('Pss:'))


def records_table(what: str, few: dict[str, float], many: dict[str, float], workers: int) -> str:
    """Return a table of the memory that the additional records take in a training."""
    title = f'{what} over {workers} loaders: images'
    rows = [f'{title:>52}   file MB   sum of PSS MB']
    rows += [f'{row["images"]:52,} {row["file_mb"]:11.1f} {row["pss_mb"]:15.0f}' for row in (few, many)]
    more = many['images'] - few['images']
    return '\n'.join([*rows, f'{more:,} images added {many["pss_mb"] - few["pss_mb"]:.0f} MB'])
