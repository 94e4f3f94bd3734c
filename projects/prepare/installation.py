"""Checks whether this machine can run the project: Python, packages, operators, devices and disk.

A broken installation gives a table, not a traceback: the top of this file imports only the standard library.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import sys
import textwrap
import tomllib
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from projects import REPO
from projects.errors import one_line

VENV = REPO / '.venv'
REINSTALL = 'rm -f .venv/.ready && make setup'
if (VENV / 'bin/python').exists() and Path(sys.prefix).resolve() != VENV.resolve():
    REINSTALL = f'{VENV / "bin/python"} tools/doctor.py'
OPENCVS = (
    'opencv-python',
    'opencv-python-headless',
    'opencv-contrib-python',
    'opencv-contrib-python-headless',
)
# Two checkpoints of a Swin-B detector with AdamW's state take 2.5 GB per run; a study has several runs.
DISK_GB = 10


class Row(NamedTuple):
    """One check: its name, its result, and a remedy if it failed."""

    name: str
    found: str
    remedy: str = ''


def format_rows(rows: list[Row]) -> str:
    """Return the rows as aligned lines of at most 100 columns; a remedy stays on one line, for copying."""
    lines = []
    for row in rows:
        head = f'  {"FAILED" if row.remedy else "ok":<7} {row.name:<9} '
        # Paths and commands are not split.
        lines += textwrap.wrap(
            row.found,
            100,
            initial_indent=head,
            subsequent_indent=' ' * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        )
        if row.remedy:
            lines.append(f'{"":10}remedy: {row.remedy}')
    return '\n'.join(lines)


def check_environment() -> list[Row]:
    """Check Python, packages, operators, devices and disk."""
    return [
        check_python(),
        check_packages(REPO / 'pyproject.toml'),
        check_opencv(),
        check_ops(),
        check_devices(),
        check_disk(Path.cwd()),
    ]


def check_python() -> Row:
    """Check that the interpreter is the project's, with a supported version."""
    found = f'{platform.python_version()}, {sys.executable}'
    if sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)):
        return Row('python', f'{found}; expected 3.11, 3.12 or 3.13', 'make setup PYTHON=/path/to/python3.12')
    return Row('python', found)


def check_packages(project: Path) -> Row:
    """Compare the installed versions with pyproject.toml; packages for tests and studies may be absent."""
    stated = tomllib.loads(project.read_text(encoding='utf-8'))
    runtime = [*stated['project']['dependencies'], *stated['project']['optional-dependencies']['train']]
    others = [pin for group in stated['dependency-groups'].values() for pin in group]
    wrong, absent = [], []
    for requirement in runtime + others:
        name, _, pin = requirement.partition('==')
        name = name.partition('[')[0]
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            if requirement in others:
                absent.append(name)
                continue
            version = 'missing'
        # A build tag such as +cu128 does not change the version.
        if version.partition('+')[0] != pin:
            wrong.append(f'{name} {version} (pinned {pin})')
    if wrong:
        return Row('packages', f'not as {project.name} pins them: {", ".join(wrong)}', REINSTALL)
    found = f'all {len(runtime + others) - len(absent)} as {project.name} pins them'
    return Row('packages', found + (f'; without {", ".join(absent)}' if absent else ''))


def check_opencv() -> Row:
    """Check that exactly one OpenCV is installed: several overwrite each other's files."""
    found = []
    for name in OPENCVS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f'{name} {metadata.version(name)}')
    if len(found) == 1 and 'headless' in found[0]:
        return Row('opencv', found[0])
    return Row('opencv', f'{" and ".join(found) or "none"}; expected opencv-python-headless alone', REINSTALL)


def check_ops() -> Row:
    """Run NMS and RoIAlign on every device, forward and backward, as in a detector; name their origin."""
    try:
        import torch
        from mmcv.ops import get_compiler_version, nms, roi_align

        devices = ['cpu', *(f'cuda:{i}' for i in range(torch.cuda.device_count()))]
        compiler = get_compiler_version()
    except Exception as error:  # whatever a broken binary raises
        return Row('mmcv ops', f'not importable: {reason_of(error)}', REINSTALL)
    for device in devices:
        boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29]], device=device)
        # The pixels of the map hold their column, so a bin holds the column of its centre.
        columns = torch.arange(8.0, device=device).repeat(8, 1)[None, None].requires_grad_()
        region = torch.tensor([[0.0, 2, 2, 6, 6]], device=device)
        try:
            kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5)[1].tolist()
            pooled = roi_align(columns, region, 2)
            pooled.sum().backward()
        except Exception as error:
            return Row('mmcv ops', f'NMS or RoIAlign does not run on {device}: {reason_of(error)}', REINSTALL)
        found = kept, pooled.flatten().tolist(), columns.grad.sum().item()
        wanted = [0, 2], [2.5, 4.5, 2.5, 4.5], 4.0
        if found != wanted:
            return Row(
                'mmcv ops', f'boxes, regions, gradient {found} on {device}; expected {wanted}', REINSTALL
            )
    whose = compiler if compiler.startswith('torchvision') else f'mmcv, compiled by {compiler}'
    return Row('mmcv ops', f'NMS and RoIAlign of {whose} run forward and backward on {", ".join(devices)}')


def check_devices() -> Row:
    """List the processors; a GPU that torch cannot use fails the check."""
    cores = len(os.sched_getaffinity(0))
    memory_gb = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9
    host = f'{cores} CPU cores, {memory_gb:.0f} GB memory'
    try:
        import torch
    except Exception as error:
        return Row('devices', f'{host}; torch is not importable: {reason_of(error)}', REINSTALL)
    gpus = []
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    # An empty CUDA_VISIBLE_DEVICES is a choice, not a fault.
    elif Path('/dev/nvidia0').exists() and os.environ.get('CUDA_VISIBLE_DEVICES') != '':
        return Row(
            'devices',
            f'{host}; a GPU that torch cannot use',
            f'install an NVIDIA driver for CUDA {torch.version.cuda} (nvidia-smi shows the one in use)',
        )
    found = ', '.join(f'{gpu.name} {gpu.total_memory / 1e9:.0f} GB' for gpu in gpus)
    return Row('devices', f'{host}, {found or "no GPU: training runs on the CPU"}')


def check_disk(folder: Path) -> Row:
    """Check the space left for work_dirs."""
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < DISK_GB:
        return Row(
            'disk',
            f'{free_gb:.1f} GB free in {folder}; expected {DISK_GB} GB for checkpoints',
            'delete old runs, or link work_dirs to a larger disk: ln -s /larger/disk work_dirs',
        )
    return Row('disk', f'{free_gb:.0f} GB free for work_dirs')


def reason_of(error: Exception) -> str:
    """Return an error as one line, without the class name that mmengine's registry puts in front."""
    text = one_line(error, 1000)
    return re.sub(r'^class `(\w+)` in \S+: ', '', text)
