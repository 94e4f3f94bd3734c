"""Provenance of a run: commit, hardware, and the SHA-256 of its labels at each start."""

import ast
import datetime
import json
import os
import platform
import subprocess
from pathlib import Path

import mmengine.dist
import mmengine.runner
import torch
from mmengine.config import Config

from projects import REPO
from projects.radiograph.files import write_json

from .digests import digest_labels

# Excludes the results that a study writes after each run, which are no change of the code.
CODE = ('.', ':(exclude)configs/study/*.results.json')


def provenance(config: str | Path | None = None) -> dict:
    """Return the commit of the code and the hardware.

    Args:
        config: The config that is run; a config outside of the commit counts as a change.

    Returns:
        `commit` (of the repository, or 'unknown'), `dirty` (whether tracked files except results of studies
        differ from the commit, or the config or a base of it is not tracked; None if unknown) and `hardware`.
    """

    def git(*args):
        done = subprocess.run(['git', '-C', REPO, *args], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    status = git('status', '--porcelain', '--untracked-files=no', '--', *CODE)
    files = sorted(map(str, config_files(Path(config)))) if config else []
    foreign = bool(files) and git('ls-files', '--error-unmatch', '--', *files) is None
    return dict(
        commit=git('rev-parse', 'HEAD') or 'unknown',
        dirty=None if status is None else bool(status) or foreign,
        hardware=_hardware(),
    )


def config_files(path: Path) -> set[Path]:
    """Return the files of a config and its bases, except bases of pinned packages (`pkg::path`)."""
    path = path.resolve()
    found = {path}
    for node in ast.parse(path.read_text()).body if path.suffix == '.py' else ():
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '_base_':
            bases = ast.literal_eval(node.value)
            for base in [bases] if isinstance(bases, str) else bases:
                if '::' not in base:
                    found |= config_files(path.parent / base)
    return found


def note_start(cfg: Config, facts: dict, seed: int, resumed: bool) -> list[str]:
    """Record a start of a training in `starts.json`, since a resumed run may span commits and machines.

    Args:
        cfg: Config with its work dir; the SHA-256 of its training annotations is recorded.
        facts: Result of `provenance`.
        seed: Seed of the training.
        resumed: Whether the training resumes the run in the folder; otherwise earlier starts are dropped.

    Returns:
        A line for each file of labels that has changed since an earlier start of the run.
    """
    file = Path(cfg.work_dir, 'starts.json')
    starts = []
    if resumed:
        try:
            starts = json.loads(file.read_text())['starts']
        except (FileNotFoundError, json.JSONDecodeError):  # a run without records, or a truncated file
            starts = [dict(commit='unknown', hardware='unknown')]
    gpus = mmengine.dist.get_world_size() if torch.cuda.is_available() else 0
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    labels = digest_labels(cfg, 'train_dataloader')
    noted = [start['labels_sha256'] for start in starts if 'labels_sha256' in start]
    others = sorted(
        {name for before in noted for name in {*before, *labels} if before.get(name) != labels.get(name)}
    )
    starts.append(facts | dict(gpus=gpus, seed=seed, date=date, labels_sha256=labels))
    write_json(file, dict(starts=starts))
    return [
        f'{name}: another than when this run began, so its training data are not known and nothing can be '
        'proven; restore the file, or train again without --resume'
        for name in others
    ]


def _hardware() -> str:
    if torch.cuda.is_available():
        return f'{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}'
    model = platform.machine()
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.is_file():
        names = [line.split(':', 1)[1].strip() for line in cpuinfo.open() if line.startswith('model name')]
        model = names[0] if names else model
    return f'{len(os.sched_getaffinity(0))} x {model} (CPU)'
