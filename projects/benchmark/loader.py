"""Benchmark of input pipelines in images/s: the published one, ours from files, ours from a packed store.

One process runs them in turn, round after round, so that other load on the machine affects all of them. Each
pipeline reads the same generated radiographs from the page cache, batches and collates them as in training,
and uses one thread. Time is processor time, so other processes on the same core do not count.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from projects.radiograph.pack import pack
from projects.radiograph.read import read
from projects.radiograph.recipe import Recipe
from projects.report.results import format_table
from projects.runs import running
from projects.synthetic import plan
from projects.xray.classes import CASTINGS

from .published import inner_dataset, published_name, published_pipeline

STOCK, FILES, PACKED, DECODING = 'published', 'ours, files', 'ours, packed', 'decoding alone'


@dataclass
class Rates:
    """Images per second of processor time.

    Attributes:
        pipeline: STOCK, FILES, PACKED or DECODING.
        rounds: one value per round; in each round all pipelines run one after another.
    """

    pipeline: str
    rounds: list[float]

    @property
    def median(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """First and third quartile over the rounds."""
        low, _, high = np.percentile(self.rounds, [25, 50, 75])
        return float(low), float(high)

    def against(self, other: 'Rates') -> float:
        """Median over the rounds of the ratio to another pipeline."""
        return statistics.median(a / b for a, b in zip(self.rounds, other.rounds))


def write_radiographs(root: Path, images: int, size: int) -> None:
    """Generate radiographs and their annotations.

    Args:
        root: new folder; gets `images/` and `train.json`.
        images: how many; 8-bit gray PNG.
        size: width and height in px.
    """
    (root / 'images').mkdir(parents=True)
    names = sorted(CASTINGS)
    records, annotations = [], []
    for number, view in enumerate(plan.plan(images, seed=0)):
        radiograph = plan.draw(view, seed=0, size=size, bits=8)
        file = root / 'images' / f'{number:05d}.png'
        cv2.imwrite(str(file), radiograph.pixels)
        records.append(dict(id=number, file_name=file.name, width=size, height=size, part=str(view.part)))
        annotations += [
            dict(image_id=number, category_id=names.index(d.type), bbox=[float(v) for v in d.bbox], iscrowd=0)
            for d in radiograph.defects
        ]
    for number, annotation in enumerate(annotations):
        annotation.update(id=number, area=annotation['bbox'][2] * annotation['bbox'][3])
    categories = [dict(id=number, name=name) for number, name in enumerate(names)]
    coco = dict(info={}, images=records, annotations=annotations, categories=categories)
    (root / 'train.json').write_text(json.dumps(coco))


def datasets(path: Path, config: Config, root: Path, pack_size: int) -> dict[str, dict]:
    """Return the config's training set over the radiographs of `write_radiographs`, by pipeline.

    The published pipeline reads them with the data set class of the published recipe. Detectors get a store
    in native size, since boxes are in px of the file; the other configs get a store of `pack_size`.
    """
    ours = inner_dataset(config.train_dataloader)
    detector = config.default_scope == 'mmdet'
    ours.update(data_root=str(root), ann_file='' if ours.type == 'XrayImages' else 'train.json')
    if ours.get('severity', 'none') is None:  # every flaw type becomes the config's only class
        ours.severity = dict.fromkeys(CASTINGS, ours.metainfo.classes[0])
    prefix = 'img' if detector else 'img_path'
    stock = dict(pipeline=published_pipeline(published_name(path), config))
    if detector:
        stock.update(type='CocoDataset', data_root=str(root), ann_file='train.json')
        stock.update(data_prefix=dict(img='images'), metainfo=dict(classes=sorted(CASTINGS)))
    else:
        stock.update(type='CustomDataset', data_root=str(root / 'images'), with_label=False)

    load = next(step for step in ours.pipeline if step['type'] == 'LoadXray')
    size = 0 if detector else pack_size
    window = load.get('window', dict(type='full'))
    recipe = Recipe(size, 8 if load.get('dtype', 'uint8') == 'uint8' else 16, window)
    store = root / f'packed-{size}-{recipe.bits}'
    pack(root / 'images', store, recipe)
    packed = [dict(step, size=size) if step is load else step for step in ours.pipeline]
    return {
        STOCK: stock,
        FILES: dict(ours, data_prefix={prefix: 'images'}),
        PACKED: dict(ours, data_prefix={prefix: store.name}, pipeline=packed),
    }


def build_loader(dataset: dict, config: Config, **changes) -> torch.utils.data.DataLoader:
    """Build the config's training loader over another dataset, with some arguments changed."""
    with DefaultScope.overwrite_default_scope(config.default_scope):
        return Runner.build_dataloader(dict(config.train_dataloader, dataset=dataset, **changes))


def one_pass(loader) -> int:
    """Read all of a loader's batches; returns the number of images."""
    return sum(len(batch['data_samples']) for batch in loader)


def decode(files: list[Path]) -> int:
    """Decode radiographs and discard them: an upper limit of every pipeline that reads these files."""
    for file in files:
        read(file)
    return len(files)


def rate(run: Callable[[], int], seconds: float) -> float:
    """Return how many images `run` reads per processor second; it is repeated for at least `seconds`."""
    count, start = 0, time.process_time()
    while (elapsed := time.process_time() - start) < seconds or not count:
        count += run()
    return count / elapsed


def measure(path: str, root: Path, pack_size: int, rounds: int, seconds: float) -> list[Rates]:
    """Measure a config's input pipelines, all on one thread.

    Args:
        path: config of a pretraining, a probe or a detector.
        root: folder written by `write_radiographs`.
        pack_size: px of the shorter side in the packed store of pretrainings and probes.
        rounds: how often each pipeline runs.
        seconds: least processor time of each run.
    """
    config = running.read_experiment(path)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    files = sorted((root / 'images').iterdir())
    batch = min(config.train_dataloader.batch_size, len(files))
    runs = {}
    for name, dataset in datasets(Path(path), config, root, pack_size).items():
        loader = build_loader(
            dataset, config, batch_size=batch, num_workers=0, persistent_workers=False, pin_memory=False
        )
        runs[name] = lambda loader=loader: one_pass(loader)
    runs[DECODING] = lambda: decode(files)
    for run in runs.values():
        run()
    rates = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            rates[name].append(rate(run, seconds))
    return [Rates(name, values) for name, values in rates.items()]


def table(measured: dict[str, list[Rates]], device_rate: float | None, workers: int) -> str:
    """Return measurements as a Markdown table.

    Args:
        measured: config stem -> result of `measure`.
        device_rate: images/s that the device can train; None omits the column.
        workers: number of loader processes.
    """
    header = ['config', 'pipeline', 'images/s per process', 'quartiles', 'vs stock']
    if device_rate:
        header.append(f'of {device_rate:g}/s by {workers} workers')
    rows = []
    for stem, results in measured.items():
        stock = next(r for r in results if r.pipeline == STOCK)
        for result in results:
            low, high = result.spread
            ratio = f'{result.against(stock):.1f}×'
            row = [stem, result.pipeline, f'{result.median:.1f}', f'{low:.1f} to {high:.1f}', ratio]
            if device_rate:
                row.append(f'{workers * result.median / device_rate:.0%}')
            rows.append(row)
    return format_table(header, rows, markdown=True)
