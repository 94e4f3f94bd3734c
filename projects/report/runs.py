"""Runs of a report: the tested model, its test data and its training."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.config import Config

from projects.config import names
from projects.config.configs import ConfigError, load_config
from projects.measures.images import MeasureError, check_comparable
from projects.measures.ranking import average_precision_at
from projects.runs.digests import image_folders, noted_labels, trained_on

from .predictions import FILES, Predictions, PredictionsError, read_predictions
from .results import load_results


@dataclass
class Curves:
    """The logged values of a run: lists of (step or epoch, value) by name, and the problems of its logs."""

    train: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    val: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass
class LineFolder:
    """The facts of an exported folder, which is judged at its own threshold.

    Attributes:
        name: Name of the folder.
        engine: The tested engine.
        precision: 'fp32' or 'int8'.
        threshold: Score at or above which the line rejects.
        threshold_reason: How the threshold was chosen.
        rejects_minor: Whether a minor defect rejects a part.
        cost_in_words: Cost of the threshold on val, in words.
        origin: Config, checkpoint, data of train and val with their SHA-256, AP50 on val.
        files: SHA-256 of each file of its graph.
        digest: SHA-256 that identifies the folder, including its threshold and gray-level band.
    """

    name: str
    engine: str
    precision: str
    threshold: float
    threshold_reason: str
    rejects_minor: bool
    cost_in_words: str
    origin: dict
    files: dict[str, str]
    digest: str


@dataclass
class Run:
    """One tested run.

    Attributes:
        folder: Work dir of the run.
        result: The content of `test.json`, metric names without prefix.
        predictions: Predictions of the test images.
        val: Predictions of the val images; None if there are none.
        stem: Stem of the config's name.
        dataset: Data set named by the stem, else the annotation file.
        backbone: Backbone named by the stem, else ''.
        recipe: Batch, schedule and, for a probe, input size, as named by the stem; else ''.
        init: Start of the backbone, and the teacher of a distilled one, as named by the stem; else the stem.
        seed: Seed of the training; None if unknown.
        fraction: Percent of the training labels.
        facts: The study's record of the run (`run.json`); empty outside a study.
        config: Resolved config; None if the run keeps none.
        curves: Values logged during training.
        pretraining: Folder of the run whose weights this run started from, if there is one.
        weights: Key of the own pretraining that this run started from; None without one, '' if unknown.
        exported: The tested folder; None for a checkpoint.
    """

    folder: Path
    result: dict
    predictions: Predictions
    val: Predictions | None
    stem: str
    dataset: str
    backbone: str
    recipe: str
    init: str
    seed: int | None
    fraction: int
    facts: dict
    config: Config | None
    curves: Curves
    pretraining: Path | None
    weights: str | None
    exported: LineFolder | None = None

    @property
    def name(self) -> str:
        """Short name, unique within a study."""
        if self.exported:
            return f'{self.exported.name} (exported)'
        return self.folder.name if self.folder.name == self.stem else f'{self.stem}/{self.folder.name}'

    @property
    def arm(self) -> str:
        """Name of the run's arm: the start of its weights, and how its training differs from the config's."""
        return name_arm(self.init, self.facts)

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Task, data set, backbone and recipe: runs of one group compare."""
        return self.predictions.task, self.dataset, self.backbone, self.recipe

    @property
    def val_sha256(self) -> str | None:
        """SHA-256 of the annotations of val; None without val."""
        if self.exported:
            return next(iter(self.val_files().values()), None)
        return self.val and self.val.sha256

    def val_files(self) -> dict[str, str | None]:
        """Return the annotation files of val that an export recorded, with their SHA-256."""
        return self.exported.origin.get('data', {}).get('val', {}) if self.exported else {}

    def image_folder(self, file: str) -> str:
        """Return the image folder of an annotation file of train or val; by default the one beside it."""
        noted = self.exported.origin.get('images', {}) if self.exported else {}
        if self.config and not self.exported:
            noted = image_folders(self.config, 'train_dataloader', 'val_dataloader')
        return noted.get(file) or str(Path(file).parent / 'images')

    def train_files(self) -> tuple[dict[str, str | None], bool]:
        """Return the annotation files of training with their SHA-256, and whether any SHA-256 is recorded."""
        if self.exported:
            return self.exported.origin.get('data', {}).get('train', {}), True
        files = trained_on(self.config or {}, self.folder)
        return files, noted_labels(self.folder, self.facts) is not None


def name_arm(init: str, facts: Mapping) -> str:
    """Name an arm by the start of its weights and by how its training differs from the config's."""
    longer, pretrained = facts.get('epochs_factor', 1), facts.get('pretrain_epochs_factor', 1)
    rate = fixed_rate(facts)
    words = [init]
    words += [f'{longer:g}× epochs'] if longer != 1 else []
    words += [f'pretrained {pretrained:g}× as long'] if pretrained != 1 else []
    words += [f'{rate:g}× learning rate'] if rate != 1 else []
    return ', '.join(words)


def fixed_rate(facts: Mapping) -> float:
    """Return the learning rate as a multiple of the config's; 1 if val chose it, as each arm has its own."""
    return 1 if facts.get('lr_on_val') else facts.get('lr_factor') or 1


def read_runs(
    folders: Sequence[Path], exported: Sequence[tuple[Path, LineFolder]] = ()
) -> tuple[list[Run], list[str]]:
    """Read the runs that can be measured.

    A run is left out with a reason in these cases. It failed in a study or was not tested. Its predictions
    are missing or invalid, or do not give the AP50 (mAP) of its `test.json`. Nothing is annotated on its test
    images. A val image is a test image, or val has other classes. The run cannot be compared with the first
    run of its data set, as its classes, test images or truth differ. Or the run is given twice.

    Args:
        folders: Work dirs.
        exported: For each exported folder, the folder of its test and its facts.

    Returns:
        The runs, and a line for each run that was left out.
    """
    runs, left_out = [], []
    for folder, line in [*exported, *((folder, None) for folder in folders)]:
        failed = folder / 'failed.json'
        if failed.is_file():  # checked first, also for a pretraining: its arms could not start
            failure = json.loads(failed.read_text())
            arms = ', and nothing could start from it' if _is_pretraining(folder) else ''
            left_out.append(
                f'{folder}: failed in a study ({failure["step"]}: {failure["reason"]}){arms}; run the study '
                'again'
            )
            continue
        if _is_pretraining(folder):  # the runs that start from it bring its curves
            continue
        found, refused = load_results([folder])
        if refused:
            left_out += refused
            continue
        try:
            run = _read_run(folder if folder.is_dir() else folder.parent, found[0], line)
        except (PredictionsError, ConfigError) as error:
            left_out.append(str(error))
            continue
        reason = _other_export(run) or _contradiction(run) or _unfit_val(run) or _incomparable(run, runs)
        if reason:
            left_out.append(f'{run.folder}: {reason}')
        else:
            runs.append(run)
    return runs, left_out


def _is_pretraining(folder: Path) -> bool:
    stems = (folder.name, folder.parent.name)
    return any(map(names.is_pretraining, stems)) and not (folder / 'test.json').exists()


def _read_run(folder: Path, result: dict, line: LineFolder | None = None) -> Run:
    stem = Path(result['config']).stem
    named = names.summary(stem)
    predictions = read_predictions(folder)
    val = read_predictions(folder, 'val') if (folder / FILES['val']).is_file() else None
    facts_file = folder / 'run.json'
    facts = json.loads(facts_file.read_text()) if facts_file.is_file() else {}
    of_folder = names.run_of(folder.name)
    config = _config(folder, stem)
    checkpoint = _checkpoint(config, folder)
    source = Path(checkpoint).parent
    return Run(
        folder=folder,
        result=result,
        predictions=predictions,
        val=val,
        stem=stem,
        dataset=named['dataset'] or predictions.ann_file,
        backbone=named['backbone'],
        recipe=named['recipe'] + (f', exported, {line.engine} {line.precision}' if line else ''),
        init=named['init'],
        seed=result['seed'] if result['seed'] is not None else facts.get('seed'),
        fraction=of_folder[1] if of_folder else 100,
        facts=facts,
        config=config,
        curves=read_curves(folder),
        pretraining=source if checkpoint and '://' not in checkpoint and source.is_dir() else None,
        weights=_weights(named['init'], checkpoint, facts),
        exported=line,
    )


def _other_export(run: Run) -> str | None:
    """Return why a test is not that of the exported folder: it is of another graph, or of no folder."""
    tested = run.result.get('exported')
    if bool(tested) != bool(run.exported):
        return (
            'is the test of an exported folder; name that folder by --exported'
            if tested
            else 'is not the test of an exported folder; run tools/test.py FOLDER DATA'
        )
    if run.exported and tested['files'] != run.exported.files:
        return f'{run.exported.name} has another graph than was tested; run tools/test.py FOLDER DATA again'
    if run.exported and tested.get('folder') != run.exported.digest:
        return (
            f'{run.exported.name} is another folder than was tested, in its threshold, its gray-level band '
            'or its origin; run tools/test.py FOLDER DATA again'
        )
    return None


def _config(folder: Path, stem: str) -> Config | None:
    written = [folder / f'{stem}.py', *sorted(folder.glob('*/vis_data/config.py'))[::-1]]
    return next((load_config(path) for path in written if path.is_file()), None)


def _checkpoint(config: Config | None, folder: Path) -> str:
    """Return the file or URL from which the detector or its backbone started; '' without one."""
    whole = str((config or {}).get('load_from') or '')
    if whole and Path(whole).resolve().parent != folder.resolve():  # a resumed run names its own checkpoint
        return whole
    model = (config or {}).get('model') or {}
    init = (model.get('backbone') or {}).get('init_cfg') or {}
    return str(init.get('checkpoint', '')) if isinstance(init, dict) else ''


def _weights(init: str, checkpoint: str, facts: Mapping) -> str | None:
    """Return the key that distinguishes own pretrainings; see `Run.weights`."""
    start = init.split(names.BETWEEN)[0]
    if start in names.BASELINES:
        return None
    if names.is_own_pretraining(start):
        # Prefer the content: a path differs between machines, and a name may occur in several studies.
        own = facts.get('pretraining')
        return (facts.get('needs') or {}).get(own) or own or checkpoint or ''
    return checkpoint if checkpoint and '://' not in checkpoint else None  # the stem names no start


def _contradiction(run: Run) -> str | None:
    """Return why the predictions do not give the numbers of `test.json`, or give no numbers."""
    predictions, metrics = run.predictions, run.result['metrics']
    headline = 'AP50' if predictions.task == 'detection' else 'mAP'
    everything = np.arange(len(predictions.parts()))
    again = {headline: predictions.mean_ap()(everything)}
    if again[headline] is None:
        return (
            'not one annotated box of any class on its test images, so that nothing can be measured; test on '
            'annotated images'
        )
    if predictions.task == 'detection':
        for label, name in enumerate(predictions.classes):
            again[f'AP50_{name}'] = average_precision_at(predictions.inspected, label)(everything)
    for name, value in again.items():
        stated = metrics.get(name)
        # "not <=", so that a nan is a contradiction, too
        if (stated is None) != (value is None) or (value is not None and not abs(stated - value) <= 1e-6):
            return (
                f'test.json says {name} {stated}, its predictions give {value}; they are of different tests: '
                'run tools/test.py again'
            )
    return None


def _unfit_val(run: Run) -> str | None:
    """Return why the run's val set must not fix a threshold or choose a model."""
    if run.val is None:
        return None
    again = 'correct its val_dataloader and val_evaluator, and run tools/test.py --val again'
    if run.val.sha256 == run.predictions.sha256:
        return f'its val set {run.val.ann_file} is the test set, on which nothing may be fixed; {again}'
    if (run.val.task, run.val.classes) != (run.predictions.task, run.predictions.classes):
        return f'has the classes {run.val.classes} on val and {run.predictions.classes} on test; {again}'
    if run.val.checkpoint != run.predictions.checkpoint:
        return (
            f'its predictions of val are of {run.val.checkpoint}, those of test of '
            f'{run.predictions.checkpoint}: a threshold would be of another model; run tools/test.py --val '
            'again'
        )
    shared = sorted(set(run.val.names()) & set(run.predictions.names()))
    if shared:
        return (
            f'its val set {run.val.ann_file} has {len(shared)} images of the test set, such as {shared[0]}, '
            'on which nothing may be fixed; split again by part, give each image a name of its own, and run '
            'tools/test.py --val again'
        )
    return None


def _incomparable(run: Run, others: Sequence[Run]) -> str | None:
    """Return why a run cannot be compared with earlier runs of its data set."""
    key = (run.predictions.task, run.dataset, run.exported is None)
    peers = [o for o in others if (o.predictions.task, o.dataset, o.exported is None) == key]
    for other in peers[:1]:  # all other peers agree with the first one
        mine, theirs = run.predictions, other.predictions
        if mine.classes != theirs.classes:
            return f'has the classes {mine.classes}, {other.name} has {theirs.classes}; test both alike'
        names = [set(p.names()) for p in (mine, theirs)]
        if names[0] != names[1]:
            differing = sorted(names[0] ^ names[1])
            return (
                f'was tested on other images than {other.name} ({len(differing)} differ, such as '
                f'{differing[0]}); test both on the same annotation file'
            )
        if mine.sha256 != theirs.sha256:
            return (
                f'was tested on another version of the annotations than {other.name} ({mine.sha256[:12]} '
                f'and {theirs.sha256[:12]}); test both again on the same file'
            )
        if mine.task == 'detection':
            try:  # two severity maps give two truths from one file
                check_comparable({str(other.folder): theirs.inspected, str(run.folder): mine.inspected})
            except MeasureError as error:
                return str(error)
        else:
            truths = [[(i['file_name'], i['label'], i.get('part')) for i in p.images] for p in (mine, theirs)]
            if truths[0] != truths[1]:
                differing = next(a or b for a, b in itertools.zip_longest(*truths) if a != b)
                return (
                    f'has another label, part or place of {differing[0]} than {other.name}; test both on the '
                    'same annotation file and severity map'
                )
    for other in peers:
        own, its = ((r.stem, r.arm, r.fraction, r.seed, r.exported and r.exported.name) for r in (run, other))
        if own == its:
            return f'repeats {other.folder} (same config, labels and seed); leave one of them out'
    return None


def read_curves(folder: Path) -> Curves:
    """Read the logged values of a run over all its starts; a later start overrides the steps that it repeats.

    Args:
        folder: Work dir, with `<time>/vis_data/scalars.json`, one JSON object per line.

    Returns:
        The curves. Damaged or incomplete lines and values that are not finite are left out; `problems` names
        the lines, and losses that are not finite.
    """
    curves = Curves()
    train, val = {}, {}
    for file in sorted(folder.glob('*/vis_data/scalars.json')):
        for number, line in enumerate(file.read_text(errors='replace').splitlines(), 1):
            try:
                values = json.loads(line)
                step = int(values['step'])
            except (json.JSONDecodeError, KeyError, TypeError, ValueError):
                curves.problems.append(f'{file}: line {number} is cut short or damaged, and left out')
                continue
            if step == 0:  # logged by a test of this folder
                continue
            table = train if 'iter' in values else val
            for name, value in values.items():
                if not isinstance(value, int | float) or name in ('step', 'iter'):
                    continue
                if math.isfinite(value):
                    table.setdefault(name.removeprefix('xray/'), {})[step] = float(value)
                elif 'loss' in name:
                    curves.problems.append(f'{file}: {name} is not finite at step {step}')
    curves.train = {name: sorted(points.items()) for name, points in train.items()}
    curves.val = {name: sorted(points.items()) for name, points in val.items()}
    return curves
