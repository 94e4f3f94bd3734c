"""Studies: the runs that a study file asks for, and the needs of each run.

A study file (YAML) names arms by their configs; seeds, shares of the labels and learning rates multiply them:

    about: one line
    seeds: [0, 1, 2]
    fractions: [10, 100]     # percent of the training labels, nested subsets
    subset: frame            # drawn by `part`, or by `frame` within each series
    updates: same            # few labels: as many updates as with all labels; `epochs`: as many epochs
    lr_factors: [0.5, 1, 2]  # of the config's rate; val chooses one per arm and share, with the first seed
    pretrain_seeds: [0]      # the i-th of an arm's seeds starts from the i-th of these, in turns
    gpus: 0                  # per training; more than 1 starts as many ranks. A test takes one
    hours: {simsiam_*: 1.0}  # per training of the unchanged config on `gpus`; --dry-run uses them
    arms:
      - config: configs/small/NAME.py
        seeds: [0]           # an arm's own; likewise pretrain_seeds, fractions, lr_factors (one is fixed)
        epochs_factor: 3     # longer training
        pretrain_epochs_factor: 5  # longer pretraining
        needs_file: data/weights/NAME.pth  # the arm is left out, and named, while this file is missing

The position of a seed in its arm's list, not the seed itself, decides from which pretraining a run starts.
With pretrain_seeds [0, 1], an arm with seeds [0, 1, 2] starts from pretrainings 0, 1, 0.

Runs write to `work_dirs/study/<name>/<stem>/seed<k>-frac<f>/`. So do the pretrainings that arms name by their
checkpoints; all arms share them. This module does not import the training libraries.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from projects.config.configs import ConfigError, load_config
from projects.errors import MMXrayError
from projects.radiograph.safe_parse import FormatError, parse_yaml

ROOT = Path('work_dirs', 'study')


DEFAULTS = dict(
    about='',
    seeds=[0],
    fractions=[100],
    subset='part',
    updates='same',
    lr_factors=[1],
    pretrain_seeds=[0],
    gpus=0,
    hours={},
)


OF_AN_ARM = (
    'seeds',
    'pretrain_seeds',
    'fractions',
    'lr_factors',
    'epochs_factor',
    'pretrain_epochs_factor',
    'needs_file',
)


LONGEST, STEEPEST, MOST_HOURS = 1000, 1e30, 1e6  # factors of epochs and learning rate; hours of a run


SMALLEST_BY_FRAME = 10  # percent of a series: a smaller share may hold no frame


class StudyError(MMXrayError, ValueError):
    """A study cannot be run as written; one line with the remedy."""


@dataclass
class Job:
    """One step of a study.

    Attributes:
        name: Unique name of letters, digits and underscores.
        kind: 'train' or 'test'.
        folder: Folder of the run, relative to the study's.
        config: Config file.
        needs: Names of the jobs that come first.
        options: `key=value` overrides, except those that earlier jobs decide.
        seed: Seed of the training.
        fraction: Percent of the labels.
        epochs: Epochs of the training.
        epochs_factor: Factor of the arm.
        pretrain_epochs_factor: Factor of the arm.
        lr_factor: Factor of the config's learning rate; None if the trials decide.
        trials: Folders of the learning-rate trials that decide, by factor.
        pretraining: Folder of the run whose weights this run starts from; None without pretraining.
        gpus: GPUs of a training, from the study; fewer if `fit_gpus` found fewer.
        trial: Whether the job only tries a learning rate: a trial that fails is left out of the choice.
    """

    name: str
    kind: str
    folder: str
    config: str
    needs: list[str]
    options: list[str]
    seed: int
    fraction: int
    epochs: int
    epochs_factor: float = 1
    pretrain_epochs_factor: float = 1
    lr_factor: float | None = 1
    trials: dict[str, str] = field(default_factory=dict)
    pretraining: str | None = None
    gpus: int = 0
    trial: bool = False

    @property
    def marker(self) -> str:
        """File that marks the job as done, relative to the study's folder."""
        return f'{self.folder}/{self.kind}ed'


@dataclass
class Study:
    """A study file with its jobs, in an order in which they could run one by one.

    Configs and digests are cached: a study of six hundred steps names twenty configs. `left_out` holds the
    arms whose `needs_file` is missing: config -> file.
    """

    name: str
    file: Path
    about: str
    settings: dict
    jobs: list[Job] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    configs: dict[str, Mapping] = field(default_factory=dict)
    digests: dict[tuple[str, bool], str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """Folder of the study's runs."""
        return ROOT / self.name

    @property
    def results_file(self) -> Path:
        """File that records the study's results."""
        return self.file.with_suffix('.results.json')

    def config(self, path: str) -> Mapping:
        """Return a resolved config; raises StudyError if it cannot be read."""
        if path not in self.configs:
            try:
                self.configs[path] = load_config(path)
            except ConfigError as error:
                raise StudyError(f'{self.file}: {error}') from None
        return self.configs[path]

    def job(self, name: str) -> Job:
        """Return a job by name."""
        found = [job for job in self.jobs if job.name == name]
        if not found:
            raise StudyError(f'{self.file}: has no job {name}; see --dry-run')
        return found[0]


def read_study(file: str | Path) -> Study:
    """Read a study file and plan its jobs.

    Raises:
        StudyError: The file is missing, has an unknown key or an invalid value, or names a missing config; an
            arm starts from a checkpoint that no config writes, or is a distillation; or two arms are equal.
    """
    file = Path(file)
    try:
        content = parse_yaml(file.read_bytes())
    except FileNotFoundError:
        raise StudyError(f'{file}: no such study, expected a file such as configs/study/NAME.yaml') from None
    except OSError as error:
        raise StudyError(f'{file}: {error.strerror}; name a file such as configs/study/NAME.yaml') from None
    except FormatError as error:
        raise StudyError(f'{file}: expected {error}; correct it') from None
    if not isinstance(content, dict) or not isinstance(content.get('arms'), list) or not content['arms']:
        raise StudyError(f'{file}: expected a list of `arms`, each with a `config`; see configs/study/')
    unknown = sorted(set(map(str, content)) - set(DEFAULTS) - {'arms'})
    if unknown:
        raise StudyError(f'{file}: unknown key {unknown[0]!r}, expected one of {sorted(DEFAULTS)}')
    settings = DEFAULTS | {key: value for key, value in content.items() if key != 'arms'}
    study = Study(file.stem, file, str(settings['about']), settings)
    jobs = {}
    for arm in content['arms']:
        _plan_arm(study, arm, jobs)
    study.jobs = list(jobs.values())
    return study


def _check_config(file, path, config):
    """Refuse a config that cannot be an arm, since its runs would fail after they have trained."""
    missing = [key for key in ('model', 'train_cfg', 'test_dataloader') if not config.get(key)]
    if missing:
        raise StudyError(
            f'{file}: {path}: has no {missing[0]}, expected a detector or a probe, which is trained and '
            'tested; a pretraining belongs to the arm that starts from it'
        )


def _plan_arm(study, arm, jobs):
    file = study.file
    if not (
        isinstance(arm, dict) and isinstance(arm.get('config'), str) and set(arm) <= {'config', *OF_AN_ARM}
    ):
        raise StudyError(f'{file}: arm {arm!r}: expected `config` and optionally {", ".join(OF_AN_ARM)}')
    own = study.settings | dict(epochs_factor=1, pretrain_epochs_factor=1) | arm
    _check(file, own)
    needed = own.get('needs_file')
    if not isinstance(needed, str | None):
        raise StudyError(f'{file}: needs_file {needed!r}: expected the path of a file')
    if needed and not Path(needed).is_file():
        study.left_out[arm['config']] = str(needed)
        return
    config = study.config(arm['config'])
    _check_config(file, arm['config'], config)
    stem = Path(arm['config']).stem
    factor = own['epochs_factor']
    longer = own['pretrain_epochs_factor']
    suffix = ('' if factor == 1 else f'-x{factor:g}') + ('' if longer == 1 else f'-pretrained-x{longer:g}')
    fixed = own['lr_factors'][0] if len(own['lr_factors']) == 1 else None
    suffix += '' if fixed in (None, 1) else f'-lr{fixed:g}'
    source = _pretraining_config(study, arm['config'])
    idle = [key for key in ('pretrain_epochs_factor', 'pretrain_seeds') if key in arm]
    if idle and source is None:
        raise StudyError(
            f'{file}: {arm["config"]} starts from no pretraining of this study; leave out its {idle[0]}'
        )
    for fraction in own['fractions']:
        # With a tenth of the labels, the same number of updates needs ten times the epochs.
        stretch = factor * (100 / fraction if own['updates'] == 'same' else 1)
        common = dict(
            config=arm['config'],
            fraction=fraction,
            epochs=scaled(config['train_cfg']['max_epochs'], stretch),
            epochs_factor=factor,
            pretrain_epochs_factor=longer,
            gpus=own['gpus'],
        )
        options = stretched(config, stretch)
        first = own['seeds'][0]
        trials = {}
        if fixed is None:
            for lr_factor in own['lr_factors']:
                folder = f'{stem}/lr/frac{fraction}{suffix}-lr{lr_factor:g}'
                needs, pretraining = _plan_pretraining(study, source, first, own, jobs)
                job = Job(
                    name=job_name(folder, 'train'),
                    kind='train',
                    folder=folder,
                    needs=needs,
                    options=[*options, *_lr_option(config, lr_factor)],
                    seed=first,
                    lr_factor=lr_factor,
                    pretraining=pretraining,
                    trial=True,
                    **common,
                )
                _add(file, jobs, job)
                trials[f'{lr_factor:g}'] = folder
        for seed in own['seeds']:
            folder = f'{stem}/seed{seed}-frac{fraction}{suffix}'
            needs, pretraining = _plan_pretraining(study, source, seed, own, jobs)
            train = Job(
                name=job_name(folder, 'train'),
                kind='train',
                folder=folder,
                needs=[*needs, *(job_name(trial, 'train') for trial in trials.values())],
                options=options + ([] if fixed in (None, 1) else _lr_option(config, fixed)),
                seed=seed,
                lr_factor=fixed,
                trials=trials,
                pretraining=pretraining,
                **common,
            )
            _add(file, jobs, train)
            test = dict(vars(train), name=job_name(folder, 'test'), kind='test', needs=[train.name])
            _add(file, jobs, Job(**test))


def _plan_pretraining(study, source, seed, own, jobs) -> tuple[list[str], str | None]:
    """Plan the pretraining from which a seed of an arm starts, once for all arms."""
    if source is None:
        return [], None
    seeds = own['pretrain_seeds']
    chosen = seeds[own['seeds'].index(seed) % len(seeds)]
    factor = own['pretrain_epochs_factor']
    folder = f'{Path(source).stem}/seed{chosen}-frac100' + ('' if factor == 1 else f'-x{factor:g}')
    name = job_name(folder, 'train')
    further = _pretraining_config(study, source)
    needs, pretraining = _plan_pretraining(study, further, seed, own | dict(pretrain_epochs_factor=1), jobs)
    config = study.config(source)
    job = Job(
        name=name,
        kind='train',
        folder=folder,
        config=source,
        needs=needs,
        options=stretched(config, factor),
        seed=chosen,
        fraction=100,
        epochs=scaled(config['train_cfg']['max_epochs'], factor),
        epochs_factor=factor,
        pretraining=pretraining,
        gpus=study.settings['gpus'],
    )
    _add(study.file, jobs, job)
    return [name], folder


def _add(file, jobs, job):
    """Add a job; a training may be an arm and also the start of another run."""
    if job.name in jobs and (job.kind == 'test' or jobs[job.name] != job):
        raise StudyError(f'{file}: {job.folder} is asked for twice; leave one of the arms out')
    jobs[job.name] = job


def job_name(folder: str, kind: str) -> str:
    """Name the job of a kind in a folder."""
    return re.sub(r'\W', '_', f'{kind}_{folder}')


def _check(file, own):
    for key in ('seeds', 'fractions', 'lr_factors', 'pretrain_seeds'):
        values = own[key]
        number = (int, float) if key == 'lr_factors' else int
        good = isinstance(values, list) and values
        good = good and all(isinstance(v, number) and not isinstance(v, bool) for v in values)
        if not good or len(set(values)) < len(values):
            raise StudyError(f'{file}: {key} {values!r}: expected a list of different numbers')
        if key.endswith('seeds') and min(values) < 0:
            raise StudyError(f'{file}: {key} {values!r}: expected numbers from zero')
    if not all(0 < factor <= STEEPEST for factor in own['lr_factors']):
        raise StudyError(
            f'{file}: lr_factors {own["lr_factors"]!r}: expected numbers above zero, up to {STEEPEST:g}'
        )
    for key in ('epochs_factor', 'pretrain_epochs_factor'):
        if not (_is_number(own[key]) and 0 < own[key] <= LONGEST):
            raise StudyError(f'{file}: {key} {own[key]!r}: expected a number above zero, up to {LONGEST}')
    if type(own['gpus']) is not int or own['gpus'] < 0:
        raise StudyError(f'{file}: gpus {own["gpus"]!r}: expected a number of GPUs, 0 for none')
    hours = own['hours']
    if not isinstance(hours, dict) or not all(
        isinstance(config, str) and _is_number(value) and 0 < value <= MOST_HOURS
        for config, value in hours.items()
    ):
        raise StudyError(
            f'{file}: hours {hours!r}: expected numbers above zero by config, such as simsiam_*: 1'
        )
    if own['subset'] not in ('part', 'frame') or own['updates'] not in ('same', 'epochs'):
        raise StudyError(f'{file}: expected subset: part or frame, and updates: same or epochs')
    least = SMALLEST_BY_FRAME if own['subset'] == 'frame' else 1
    if not all(least <= fraction <= 100 for fraction in own['fractions']):
        raise StudyError(
            f'{file}: fractions {own["fractions"]}: expected {least} to 100 percent with subset '
            f'{own["subset"]}'
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def start_of(config: Mapping) -> tuple[str, str]:
    """Return the key of a config that names its start checkpoint, and this checkpoint; '' without one.

    A whole detector (`load_from`) overrides the start of its backbone. A distilled student starts from its
    teacher.
    """
    if 'teacher_ckpt' in config['model']:
        return 'model.teacher_ckpt', str(config['model']['teacher_ckpt'])
    if config.get('load_from'):
        return 'load_from', str(config['load_from'])
    init = config['model']['backbone'].get('init_cfg') or {}
    checkpoint = str(init.get('checkpoint', '')) if isinstance(init, Mapping) else ''
    return 'model.backbone.init_cfg.checkpoint', checkpoint


def _pretraining_config(study: Study, path: str) -> str | None:
    """Return the config beside the arm's whose run the arm starts from, named by `work_dirs/<stem>/…`."""
    model = study.config(path)['model']
    if 'backbone' not in model and 'teacher_ckpt' not in model:
        raise StudyError(
            f'{study.file}: {path}: expected a model with a backbone or a teacher, not {model.get("type")}; '
            'leave the arm out and give the config to tools/train.py'
        )
    _, checkpoint = start_of(study.config(path))
    if not checkpoint.startswith('work_dirs/'):
        return None
    stem = Path(checkpoint).parent.name
    found = sorted(Path(path).resolve().parents[1].glob(f'*/{stem}.py'))
    if not found:
        raise StudyError(
            f'{study.file}: {path} starts from {checkpoint}, but no config {stem}.py is beside it; add it, '
            'or correct the checkpoint'
        )
    near = found[0]
    return str(near.relative_to(Path.cwd()) if near.is_relative_to(Path.cwd()) else near)


def _lr_option(config, factor) -> list[str]:
    return [f'optim_wrapper.optimizer.lr={config["optim_wrapper"]["optimizer"]["lr"] * factor:.12g}']


def scaled(epochs: float, factor: float) -> int:
    """Scale a number of epochs; at least one."""
    return max(1, round(epochs * factor))


def stretched(config: Mapping, factor: float) -> list[str]:
    """Return the overrides that train a config for `factor` times its epochs, with a stretched schedule.

    Warm-up by iteration stays; the numbers of validations and checkpoints stay the same.
    """
    if factor == 1:
        return []
    options = [f'train_cfg.max_epochs={scaled(config["train_cfg"]["max_epochs"], factor)}']
    if config['train_cfg'].get('val_interval', 1) and config.get('val_dataloader'):
        interval = scaled(config['train_cfg'].get('val_interval', 1), factor)
        options.append(f'train_cfg.val_interval={interval}')
    checkpoint = (config.get('default_hooks') or {}).get('checkpoint')
    if checkpoint:
        options.append(f'default_hooks.checkpoint.interval={scaled(checkpoint.get("interval", 1), factor)}')
    for index, scheduler in enumerate(config.get('param_scheduler') or []):
        if not scheduler.get('by_epoch', True):
            continue
        for key in ('begin', 'end', 'T_max'):
            if scheduler.get(key):
                options.append(f'param_scheduler.{index}.{key}={scaled(scheduler[key], factor)}')
        if scheduler.get('milestones'):
            stones = [scaled(stone, factor) for stone in scheduler['milestones']]
            options.append(f'param_scheduler.{index}.milestones={stones}')
    return options


def choose_lr(curves: Mapping[str, Sequence[float]]) -> str:
    """Choose the learning-rate factor with the best final value on val; of equal ones, the nearest to 1.

    Args:
        curves: Factor -> values on val.

    Raises:
        StudyError: A trial has no value.
    """
    empty = [factor for factor, values in curves.items() if not values]
    if empty:
        raise StudyError(f'the trial with lr factor {empty[0]} has no value on val; see its log.txt')
    return max(curves, key=lambda factor: (curves[factor][-1], -abs(math.log(float(factor)))))
