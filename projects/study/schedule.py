"""Estimated times of a study's jobs, and their numbers of GPUs."""

import heapq
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from projects.runs.digests import annotation_file, data_sets, read_json

from .plan import Job, Study

# ------------------------------------------------------------------------------------------- how long


def seconds_of(study: Study, job: Job) -> float | None:
    """Estimate the time of a job from timed runs of its config.

    Runs of this machine come first, then runs in the study's results, from any machine.

    Returns:
        Seconds; None without a timed run.
    """
    stem = Path(job.config).stem
    here = [read_json(path) for path in study.root.glob(f'{stem}/**/run.json')]
    recorded = read_json(study.results_file).get('runs', {})
    elsewhere = [run for folder, run in recorded.items() if folder.split('/')[0] == stem]
    if job.kind == 'test':
        return _median(r.get('test_seconds') for r in here) or _median(
            r.get('test_seconds') for r in elsewhere
        )
    return _seconds_by_epoch(job, here) or _seconds_by_step(study, job) or _seconds_by_epoch(job, elsewhere)


def stated_hours(study: Study, job: Job) -> float | None:
    """Return the hours of a training that the study states, for its number of GPUs; None if not stated.

    The hours are in proportion to the epochs and the share of the labels.
    """
    stem = Path(job.config).stem
    found = [hours for pattern, hours in study.settings['hours'].items() if fnmatch(stem, pattern)]
    if job.kind != 'train' or not found:
        return None
    return found[0] * job.epochs * job.fraction / 100 / study.config(job.config)['train_cfg']['max_epochs']


def _seconds_by_epoch(job, records):
    timed = [r for r in records if r.get('seconds') and r['fraction'] == job.fraction]
    return _median(job.epochs * r['seconds'] / r['epochs'] for r in timed)


def _seconds_by_step(study, job):
    stem = Path(job.config).stem
    step = _seconds_per_iteration([Path('work_dirs') / stem, study.root / stem])
    images = _images(study, job)
    if step is None or images is None:
        return None
    batch = study.config(job.config)['train_dataloader']['batch_size'] * max(job.gpus, 1)
    return step * math.ceil(images / batch) * job.epochs


def _median(values):
    values = [value for value in values if value]
    return statistics.median(values) if values else None


def _seconds_per_iteration(folders: Sequence[Path]) -> float | None:
    times = []
    for folder in folders:
        for file in folder.glob('**/vis_data/scalars.json'):
            for line in file.read_text(errors='replace').splitlines():
                if '"iter"' in line and (found := re.search(r'"time": ([\d.]+)', line)):
                    times.append(float(found[1]))
    return _median(times)


def _images(study: Study, job: Job) -> int | None:
    """Count the images of an epoch from the files; None if they do not tell."""
    config = study.config(job.config)
    dataset, *others = data_sets(config, 'train_dataloader')
    if others:
        return None
    times = config['train_dataloader']['dataset'].get('times', 1)
    path = annotation_file(dataset)
    if path.suffix == '.json' and path.is_file():
        return times * math.ceil(len(json.loads(path.read_text())['images']) * job.fraction / 100)
    if path.suffix == '.txt' and path.is_file():
        return times * len(path.read_text().splitlines())
    prefix = dataset.get('data_prefix') or {}
    folder = Path(dataset.get('data_root') or '', str(prefix.get('img_path', '') if prefix else ''))
    if dataset.get('ann_file') or not folder.is_dir():
        return None
    return times * sum(1 for file in folder.rglob('*') if file.is_file()) or None


def fit_gpus(study: Study, available: int) -> str | None:
    """Limit the GPUs of each training to those available; returns a line that says so if one needs more."""
    most = max((job.gpus for job in study.jobs), default=0)
    if most <= available:
        return None
    for job in study.jobs:
        job.gpus = min(job.gpus, available)
    there = f'this machine has {available}' if available else 'this machine has none'
    return (
        f'{study.file}: written for {most} GPUs a training, {there}: each training compensates for the '
        'smaller batch, as its log.txt says, but synchronised batch norm sees fewer images'
    )


def gpus_of(job: Job, available: int) -> int:
    """Return the number of GPUs of a job: at most one for a test; at least one if any is available."""
    return max(job.gpus if job.kind == 'train' else min(job.gpus, 1), min(available, 1))


def wall_seconds(study: Study, seconds: Mapping[str, float], places: int, gpus: int = 0) -> float:
    """Return the time of jobs side by side, each started as early as possible, in the order of the study.

    Args:
        study: Study.
        seconds: Time of each job to run, by name; the other jobs are done.
        places: Number of cores or GPUs.
        gpus: GPUs of the machine; with GPUs, a job takes as many places as it takes GPUs, else one.
    """
    sizes = {job.name: min(places, max(1, gpus_of(job, gpus) if gpus else 1)) for job in study.jobs}
    waiting = [job for job in study.jobs if job.name in seconds]
    now, running = 0.0, []
    while waiting or running:
        pending = {job.name for job in waiting} | {name for _, name in running}
        for job in list(waiting):
            if sizes[job.name] <= places and not pending.intersection(job.needs):
                waiting.remove(job)
                places -= sizes[job.name]
                heapq.heappush(running, (now + seconds[job.name], job.name))
        now, name = heapq.heappop(running)
        places += sizes[name]
    return now


def clock(seconds: float) -> str:
    """Format a time as minutes, or as hours and minutes."""
    minutes = round(seconds / 60)
    return f'{minutes // 60}:{minutes % 60:02d} h' if minutes >= 60 else f'{max(minutes, 1)} min'
