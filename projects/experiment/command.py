"""Setting up an experiment: locating its data, writing its files, printing its summary and next steps."""

import json
import os
import re
import shutil
from pathlib import Path

import torch

from projects.config.configs import ConfigError, load_config
from projects.config.names import own_images
from projects.study import schedule
from projects.study.plan import Job, read_study
from projects.study.schedule import clock
from projects.xray.classes import SEVERITY_MAPS

from . import follow
from .choice import Choice, choose
from .cost import Cost, measure
from .facts import ExperimentError, read_facts
from .fragments import Experiment, compose

OWN = Path('configs', 'own')
START = 15.0  # seconds until a process has imported the libraries and read its data


def set_up(data: Path, severity: str, scale: str | None = None, name: str | None = None) -> Experiment:
    """Write the configs of an experiment, or find existing ones; prints the choices and their reasons.

    Args:
        data: Folder written by tools/convert_dataset.py.
        severity: Severity map, a file or a name.
        scale: See `choice.SCALES`; None chooses it from the number of GPUs of this machine.
        name: Name of the data set; None uses the folder's name.

    Raises:
        ExperimentError: The data cannot be used, or another experiment has this name.
        DatasetError: The annotations or the severity map cannot be used.
        NameGrammarError: Config names cannot contain the name.
    """
    if not Path('configs', '_base_').is_dir():
        raise ExperimentError(
            'configs/_base_: expected in this folder; run the tool at the top of the checkout'
        )
    name = name or re.sub(r'[^a-z0-9]+', '-', data.resolve().name.lower()).strip('-')
    own_images(name)
    folder = OWN / name
    if folder.exists():
        experiment = _find(folder, data)
        print(f'{folder}: exists already, kept as it is; delete it to write it again')
        return experiment
    facts = read_facts(data, severity)
    gpus = torch.cuda.device_count()
    scale = scale or ('four-gpu' if gpus >= 4 else 'one-gpu' if gpus else 'cpu')
    memory = float(torch.cuda.get_device_properties(0).total_memory) if gpus else None
    choice = choose(facts, scale, memory)
    facts.root = _root_for_configs(data, name)
    copied, named = _severity_for_configs(severity, folder)
    experiment = compose(name, folder, facts, named, choice)
    plan = choice.pretraining
    if plan and plan.listed:
        records = read_names(data / 'train.json')
        (data / plan.listed).write_text('\n'.join(records) + '\n', encoding='utf-8')
    _write(experiment, copied)
    _say(experiment, choice)
    return experiment


def read_names(annotations: Path) -> list[str]:
    """Names of the images of a COCO file."""
    return [record['file_name'] for record in json.loads(annotations.read_text(encoding='utf-8'))['images']]


def _root_for_configs(data: Path, name: str) -> Path:
    """The data root relative to this folder, for configs; a folder elsewhere is linked into data/."""
    here = Path.cwd().resolve()
    absolute = data.resolve() if '..' in data.parts else data.absolute()
    if absolute.is_relative_to(here):
        return absolute.relative_to(here)
    link = Path('data', name)
    if link.exists() or link.is_symlink():
        if link.resolve() != data.resolve():
            raise ExperimentError(
                f'{link}: exists and is not {data}, expected a free name for a link; choose another --name'
            )
    else:
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(data.resolve())
        print(f'{link}: links to {data}, since configs hold no absolute path')
    return link


def _severity_for_configs(severity: str, folder: Path) -> tuple[Path | None, str]:
    """The file to copy beside the configs, if any, and the map's name in the configs."""
    if severity in SEVERITY_MAPS:
        return None, severity
    given, here = Path(severity), Path.cwd().resolve()
    absolute = given.resolve() if '..' in given.parts else given.absolute()
    if absolute.is_relative_to(here):
        return None, absolute.relative_to(here).as_posix()
    return absolute, (folder / f'severity{absolute.suffix}').as_posix()


def _write(experiment: Experiment, severity: Path | None) -> None:
    """Write all files, or none."""
    folder = experiment.folder
    draft = folder.with_name(f'.{folder.name}.{os.getpid()}')
    try:
        for name, text in experiment.files.items():
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding='utf-8')
        if severity:
            shutil.copyfile(severity, draft / f'severity{severity.suffix}')
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _find(folder: Path, data: Path) -> Experiment:
    """The experiment in a folder, from its present files.

    Raises:
        ExperimentError: The experiment uses other data, or is incomplete.
    """
    fragment, study = folder / '_base_' / f'xray_{folder.name}.py', folder / f'{folder.name}.yaml'
    try:
        root = Path(load_config(fragment).xray_own.root)
    except (ConfigError, AttributeError) as error:
        raise ExperimentError(
            f'{fragment}: expected the fragment of an experiment ({error}); delete {folder} to write it '
            'again, or choose another --name'
        ) from None
    if root.resolve() != data.resolve():
        raise ExperimentError(f'{folder}: is an experiment on {root}, not on {data}; choose another --name')
    stems = sorted(path.stem for path in folder.glob('*.py'))
    arms = [Path(job.config).stem for job in read_study(study).jobs if job.kind == 'test']
    detectors = [*dict.fromkeys(arms), *(s for s in stems if s.startswith('faster-rcnn') and s not in arms)]
    return Experiment(
        folder, {}, [s for s in stems if s not in detectors], detectors, list(dict.fromkeys(arms))
    )


def _say(experiment: Experiment, choice: Choice) -> None:
    print(f'{experiment.folder}: {len(experiment.files)} files for scale {choice.scale}')
    for subject, reason in choice.reasons.items():
        print(f'  {subject}: {reason}')
    for warning in choice.warnings:
        print(f'warning: {warning}')
    print(f'to edit: {experiment.folder}/_base_/xray_{experiment.folder.name}.py, and nothing else')


# -------------------------------------------------------------------------------------------------- cost


def say_next(experiment: Experiment, severity: str, timed: bool = True) -> None:
    """Print the next commands, with their cost on this machine."""
    study = read_study(experiment.study)
    written_for = max(job.gpus for job in study.jobs)
    gpus = torch.cuda.device_count()
    costs: dict[str, Cost] = {}
    if timed and gpus >= min(written_for, 1):
        trained = dict.fromkeys(job.config for job in study.jobs if job.kind == 'train')
        for path in _different(list(trained)):
            costs[path] = measure(Path(path))
    root = load_config(experiment.folder / '_base_' / f'xray_{experiment.folder.name}.py').xray_own.root
    about = _about_study(study, costs, gpus)
    times = ['', about, '', '', '']
    print('next, one by one:')
    for number, (step, time) in enumerate(zip(follow.steps(experiment, Path(root)), times, strict=True), 1):
        print(f'  {number}. {step.title}{time}\n     {step.example}')
    for path, cost in costs.items():
        print(f'  {_line(path, cost)}')
    if written_for and not gpus:
        print('  no GPU here: nothing was timed; the same commands run on the CPU, for days')
    arguments = f'DATA={root} SEVERITY={severity} NAME={experiment.folder.name}'
    print(f'all steps, also to continue after a kill: make own {arguments}')


def _different(paths: list[str]) -> list[str]:
    """One config of each kind, since all arms of a kind cost the same."""
    kinds: dict[str, str] = {}
    for path in paths:
        kinds.setdefault(Path(path).stem.split('_')[0], path)
    return list(kinds.values())


def _cost_of(job: Job, costs: dict[str, Cost]) -> Cost | None:
    kind = Path(job.config).stem.split('_')[0]
    return next((cost for path, cost in costs.items() if Path(path).stem.split('_')[0] == kind), None)


def _about_study(study, costs: dict[str, Cost], gpus: int) -> str:
    if not costs:
        return ''
    seconds = {}
    for job in study.jobs:
        cost = _cost_of(job, costs)
        if cost is None:
            return ''
        # A training validates three times, each time on about a third of the radiographs of a test.
        own = cost.train_seconds + cost.test_seconds if job.kind == 'train' else cost.test_seconds
        seconds[job.name] = START + own
    places = gpus or len(os.sched_getaffinity(0))
    return f': about {clock(schedule.wall_seconds(study, seconds, places, gpus))}'


def _line(path: str, cost: Cost) -> str:
    longer = cost.train_seconds / cost.epochs * 10
    return (
        f'{cost.stem.split("_")[0]}: {cost.iterations} iterations of {cost.step:.2f} s, about '
        f'{clock(cost.train_seconds)}, {cost.memory / 1e9:.1f} GB; 10 epochs more: {clock(longer)}; three '
        f'times as long (epochs_factor: 3 in the study): {clock(3 * cost.train_seconds)}'
        + (f'; a test of {cost.tested} radiographs: {clock(cost.test_seconds)}' if cost.tested else '')
    )
