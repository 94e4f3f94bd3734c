"""Check the installation, and with configs their data, classes and weights, before any GPU hour.

Example:
    python tools/doctor.py
    python tools/doctor.py configs/faster_rcnn/faster-rcnn_r50-simsiam-pre_fpn_4xb4-2x_industrial.py
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import re
import shutil
import sys
import textwrap
import tomllib
import warnings
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

# Nothing but the standard library up here: a broken installation is to get a table, not a traceback.
REPO = Path(__file__).resolve().parents[1]
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

from projects import __version__  # noqa: E402  (the standard library alone; mmcv finds its operators by it)
from projects.errors import one_line  # noqa: E402

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
# Two checkpoints of a Swin-B detector with AdamW's state are 2.5 GB a run; a study has several runs.
DISK_GB = 10


class Row(NamedTuple):
    """One check: its name, what was found, and the remedy when that is not what was expected."""

    name: str
    found: str
    remedy: str = ''


def parse_args(argv):
    """Read the command line; exits 2 on wrong use."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog='example: python tools/doctor.py configs/small/*_synthetic.py',
    )
    parser.add_argument('configs', nargs='*', type=Path, metavar='CONFIG', help='config file to check')
    parser.add_argument(
        '--cfg-options', nargs='+', metavar='K=V', help='override config values, as the training will'
    )
    parser.add_argument('--version', action='version', version=f'mmxray {__version__}')
    args = parser.parse_args(argv)
    for config in args.configs:
        if not config.is_file():
            parser.error(f'{config}: no such config file; the experiments are in configs/*/*.py')
    return args


def main(argv=None) -> int:
    """Run the tool; returns 0 when all is well and 1 when a check failed."""
    args = parse_args(argv)
    tables = {'environment': check_environment()}
    for config in args.configs:
        tables[str(config)] = check_config(config, args.cfg_options)
    for title, rows in tables.items():
        print(f'{title}\n{format_rows(rows)}\n')
    rows = [row for rows in tables.values() for row in rows]
    failed = sum(bool(row.remedy) for row in rows)
    print(f'{failed} of {len(rows)} checks failed' if failed else f'all {len(rows)} checks passed')
    return 1 if failed else 0


def format_rows(rows: list[Row]) -> str:
    """Return the rows as aligned lines of at most 100 columns; a remedy keeps its one line to be copied."""
    lines = []
    for row in rows:
        head = f'  {"FAILED" if row.remedy else "ok":<7} {row.name:<9} '
        # A path or a command is not broken in two.
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
    """Check that this is the project's interpreter, of a version the pins support."""
    found = f'{platform.python_version()}, {sys.executable}'
    if sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)):
        return Row('python', f'{found}; expected 3.11, 3.12 or 3.13', 'make setup PYTHON=/path/to/python3.12')
    return Row('python', found)


def check_packages(project: Path) -> Row:
    """Compare the installed versions with pyproject.toml; what only tests and studies need may be absent."""
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
        # A build tag such as +cu128 is no other version.
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
    """Run NMS and RoIAlign as detectors do, forward and backward, on every device; say whose they are."""
    try:
        import torch
        from mmcv.ops import get_compiler_version, nms, roi_align

        devices = ['cpu', *(f'cuda:{i}' for i in range(torch.cuda.device_count()))]
        compiler = get_compiler_version()
    except Exception as error:  # whatever a broken binary raises
        return Row('mmcv ops', f'not importable: {_one_line(error)}', REINSTALL)
    for device in devices:
        boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29]], device=device)
        # Of a map whose pixels hold their column, a bin holds the column of its centre.
        columns = torch.arange(8.0, device=device).repeat(8, 1)[None, None].requires_grad_()
        region = torch.tensor([[0.0, 2, 2, 6, 6]], device=device)
        try:
            kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5)[1].tolist()
            pooled = roi_align(columns, region, 2)
            pooled.sum().backward()
        except Exception as error:
            return Row('mmcv ops', f'NMS or RoIAlign does not run on {device}: {_one_line(error)}', REINSTALL)
        found = kept, pooled.flatten().tolist(), columns.grad.sum().item()
        wanted = [0, 2], [2.5, 4.5, 2.5, 4.5], 4.0
        if found != wanted:
            return Row(
                'mmcv ops', f'boxes, regions, gradient {found} on {device}; expected {wanted}', REINSTALL
            )
    whose = compiler if compiler.startswith('torchvision') else f'mmcv, compiled by {compiler}'
    return Row('mmcv ops', f'NMS and RoIAlign of {whose} run forward and backward on {", ".join(devices)}')


def check_devices() -> Row:
    """Name the processors; a GPU that torch cannot use fails."""
    cores = len(os.sched_getaffinity(0))
    memory_gb = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9
    host = f'{cores} CPU cores, {memory_gb:.0f} GB memory'
    try:
        import torch
    except Exception as error:
        return Row('devices', f'{host}; torch is not importable: {_one_line(error)}', REINSTALL)
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


def check_config(path: Path, options: list[str] | None = None) -> list[Row]:
    """Check that a config with its `--cfg-options` reads, and its data, classes and weights."""
    try:
        with _quiet():
            from projects.xray import names, running

            cfg = running.read_experiment(str(path), options)
    except Exception as error:
        return [Row('config', f'{path} does not read: {_one_line(error)}', 'correct it, or make setup')]
    with _quiet():
        return [*check_data(cfg, names.gpus_of(path.stem) or 1), *check_classes(cfg), *check_weights(cfg)]


def check_data(cfg, ranks: int = 1) -> list[Row]:
    """Build each split's dataset, as training does, and name what its evaluator reads.

    Args:
        cfg: Config.
        ranks: GPUs for which it is written; each needs a batch of training images.
    """
    from mmengine.registry import DATASETS, DefaultScope

    from projects.xray.configs import leaves

    rows, absent, images = [], {}, 0
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        for data in leaves(loader['dataset']) if loader else ():
            root = str(data.get('data_root') or '')
            if '://' in root:
                # Building the dataset asks the server, and names what is not there.
                file = f'{root.rstrip("/")}/{data.get("ann_file") or ""}'
                fallback = 'check the URL, the credentials and the server'
            else:
                root = Path(root)
                file = root / (data.get('ann_file') or '')
                fallback = data_remedy(root, file)
                if not root.is_dir():
                    absent[root] = fallback
                    continue
                if not file.exists():
                    rows.append(Row(split, f'{file} does not exist', fallback))
                    continue
            evaluators = cfg.get(f'{split}_evaluator') or []
            for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
                if evaluator.get('ann_file') and type(file)(evaluator['ann_file']) != file:
                    found = f'the metric reads {evaluator["ann_file"]}, the dataset {file}'
                    rows.append(Row(split, found, f'give {split}_evaluator.ann_file the same file'))
            try:
                # Building switches to the library that the config is written for.
                with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
                    dataset = DATASETS.build(data)
                    count = len(dataset)
            except Exception as error:
                found, _, remedy = _one_line(error).rpartition('; ')
                rows.append(Row(split, found or remedy, remedy if found else fallback))
                continue
            images += count * (split == 'train')
            kinds = ', '.join(dataset.metainfo.get('classes') or ())
            rows.append(Row(split, f'{count} radiographs in {file}' + (f' ({kinds})' if kinds else '')))
    rows += check_batch(cfg.train_dataloader, images, ranks)
    return [Row('data', f'{root}: no such folder', remedy) for root, remedy in absent.items()] + rows


def check_batch(loader, images: int, ranks: int) -> list[Row]:
    """Check that each rank has a batch, where what does not fill one is dropped."""
    from projects.xray.fit import compare_batch

    repeated = images * loader['dataset'].get('times', 1)
    batch = loader.get('batch_size') or 1
    if not images or not loader.get('drop_last') or -(-repeated // ranks) >= batch:
        return []
    return [Row('batch', *compare_batch(repeated, ranks, batch))]


def data_remedy(root: Path, file: Path) -> str:
    """Return the command that makes a data root with this annotation file."""
    if root.name == 'synthetic':
        return f'python tools/make_synthetic.py {root}'
    if root.name == 'gdxray':
        command = f'python tools/convert_dataset.py gdxray GDXRAY/Castings {root}'
        # Protocol A is Ferguson's split, which his repository lists (maxkferg/metal-defect-detection).
        lists = ' --train-list castings_train.txt --test-list castings_test.txt'
        return command + lists * (file.parent == root / 'a')
    return f'convert your data into {root} (python tools/convert_dataset.py --help), or link it there'


def check_classes(cfg) -> list[Row]:
    """Compare the classes of the datasets with the number of outputs of every head."""
    from projects.xray.configs import leaves
    from projects.xray.fit import class_heads, compare_classes

    splits = {}
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        for data in leaves(loader['dataset']) if loader else ():
            splits[split] = tuple((data.get('metainfo') or {}).get('classes') or ())
    classes = splits['train']
    rows = [
        Row('classes', f'{split} has {list(other)}, train has {list(classes)}', f'give {split} the same ones')
        for split, other in splits.items()
        if other != classes
    ]
    rows += [Row('classes', *problem) for problem in compare_classes(cfg.model, classes)]
    if not rows and class_heads(cfg.model) and classes:
        rows.append(Row('classes', f'{", ".join(classes)}; heads have {len(classes)} outputs'))
    return rows


def check_weights(cfg) -> list[Row]:
    """Look for every checkpoint the config starts from."""
    from projects.xray.fit import find_key

    names = [
        str(init['checkpoint']) for _, init in find_key(cfg.model, 'model', 'init_cfg') if _pretrained(init)
    ]
    if cfg.get('load_from'):
        names.append(str(cfg.load_from))
    return [check_checkpoint(name) for name in dict.fromkeys(names)]


def check_checkpoint(name: str) -> Row:
    """Check one checkpoint: a local path, a URL, or a torchvision:// or package:// name."""
    if name.startswith('torchvision://'):
        from mmengine.runner.checkpoint import get_torchvision_models

        model = name.removeprefix('torchvision://')
        url = get_torchvision_models().get(model)
        if url is None:
            return Row('weights', f'{name}: torchvision has no such weights', 'name others in init_cfg')
        return check_checkpoint(url)
    if name.startswith('package://'):
        from projects.xray.lite0 import CheckpointError, find_in_package

        try:
            return Row('weights', f'{name} is there ({find_in_package(name)[1]})')
        except CheckpointError as error:
            return Row('weights', str(error), 'run `make setup`')
    if name.startswith(('http://', 'https://')):
        import torch

        kept = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(name).path).name)
        return Row('weights', f'{kept} is there' if kept.exists() else f'{name} will be downloaded')
    path = Path(name)
    if path.is_file():
        return Row('weights', f'{path} is there ({path.stat().st_size / 1e6:.0f} MB)')
    makers = sorted(REPO.glob(f'configs/**/{path.parent.name}.py'))
    if not makers:
        found = f'{path} does not exist, and no config is named {path.parent.name}'
        return Row('weights', found, 'correct the checkpoint in init_cfg or load_from')
    return Row('weights', f'{path} does not exist', train_command(makers[0], path.parent))


def train_command(config: Path, work_dir: Path) -> str:
    """Return the command that trains a config on the GPUs its name says, resuming a run that was begun."""
    from projects.xray import handover

    command = handover.train_command(config)
    return command + (' --resume' if (work_dir / 'last_checkpoint').exists() else '')


def _pretrained(init) -> bool:
    return isinstance(init, dict) and init.get('type') == 'Pretrained'


def _one_line(error: Exception) -> str:
    text = one_line(error, 1000)
    # mmengine's registry puts the class that failed in front of the error it passes on.
    return re.sub(r'^class `(\w+)` in \S+: ', '', text)


@contextlib.contextmanager
def _quiet():
    """Keep the libraries' own logs and warnings out of the table."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


if __name__ == '__main__':
    sys.exit(main())
