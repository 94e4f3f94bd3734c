"""Runs as the report sees them: what was tested, on what, and how it learnt."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.config import Config

from projects.measures.images import MeasureError, check_comparable
from projects.measures.ranking import average_precision_at
from projects.xray import names
from projects.xray.configs import ConfigError, leaves, load_config
from projects.xray.digests import annotation_file, digest, read_starts

from .predictions import FILES, Predictions, PredictionsError, read_predictions
from .results import load_results


@dataclass
class Curves:
    """What a run logged: lists of (step or epoch, value) by name, and what is wrong with its logs."""

    train: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    val: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass
class Run:
    """One tested run.

    Attributes:
        folder: Its work dir.
        result: The content of `test.json`, metric names without prefix.
        predictions: Of the test images.
        val: Of the val images; None when they were not predicted.
        stem: Of the config.
        dataset: Named by the stem, else the annotation file.
        backbone: Named by the stem; else ''.
        recipe: Batch, schedule and, of a probe, input size, as the stem names them; else ''.
        init: What the backbone started from, with the teacher of a distilled one; else the stem.
        seed: Of the training; None when unknown.
        fraction: Percent of the training labels.
        facts: What a study recorded of the run (`run.json`); empty outside of one.
        config: Resolved; None when the run keeps none.
        curves: Logged while training.
        pretraining: Folder of the run whose weights it started from, when there is one.
        weights: Of a pretraining of our own that it started from; None without one, '' when not known.
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

    @property
    def name(self) -> str:
        """Short and unique within a study."""
        return self.folder.name if self.folder.name == self.stem else f'{self.stem}/{self.folder.name}'

    @property
    def arm(self) -> str:
        """What the run stands for: where its weights start, and how it differs from its peers."""
        return name_arm(self.init, self.facts)

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Task, data set, backbone and recipe: runs of one group compare."""
        return self.predictions.task, self.dataset, self.backbone, self.recipe

    @property
    def tested_on(self) -> tuple[str, str]:
        """Task and test set, whatever its name: of the runs on it one model is proven."""
        return self.predictions.task, self.predictions.sha256


def name_arm(init: str, facts: Mapping) -> str:
    """Name an arm by where its weights start and how its training differs from the config's."""
    longer, pretrained = facts.get('epochs_factor', 1), facts.get('pretrain_epochs_factor', 1)
    said = [init]
    said += [f'{longer:g}× epochs'] if longer != 1 else []
    said += [f'pretrained {pretrained:g}× as long'] if pretrained != 1 else []
    return ', '.join(said)


def read_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Read the runs that can be measured.

    A run is left out, with the reason, when it failed in a study or was not tested; when it has no
    predictions, bad ones, or ones that do not give the AP50 (mAP) of its `test.json`; when nothing is
    annotated on its test images; when a val image is a test image or val has other classes; when it cannot
    be compared with the first run of its data set: other classes, other test images, other truth; or when it
    is there twice.

    Args:
        folders: Work dirs.

    Returns:
        The runs, and a line for each one that was left out.
    """
    runs, left_out = [], []
    for folder in folders:
        failed = folder / 'failed.json'
        if failed.is_file():  # before all else: a failed pretraining takes its arms with it
            said = json.loads(failed.read_text())
            arms = ', and nothing could start from it' if _is_pretraining(folder) else ''
            left_out.append(
                f'{folder}: failed in a study ({said["step"]}: {said["reason"]}){arms}; run the study again'
            )
            continue
        if _is_pretraining(folder):  # its curves come with the runs that start from it
            continue
        found, refused = load_results([folder])
        if refused:
            left_out += refused
            continue
        try:
            run = _read_run(folder if folder.is_dir() else folder.parent, found[0])
        except (PredictionsError, ConfigError) as error:
            left_out.append(str(error))
            continue
        reason = _contradiction(run) or _unfit_val(run) or _incomparable(run, runs)
        if reason:
            left_out.append(f'{run.folder}: {reason}')
        else:
            runs.append(run)
    return runs, left_out


def _is_pretraining(folder: Path) -> bool:
    stems = (folder.name, folder.parent.name)
    return any(map(names.is_pretraining, stems)) and not (folder / 'test.json').exists()


def _read_run(folder: Path, result: dict) -> Run:
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
        recipe=named['recipe'],
        init=named['init'],
        seed=result['seed'] if result['seed'] is not None else facts.get('seed'),
        fraction=of_folder[1] if of_folder else 100,
        facts=facts,
        config=config,
        curves=read_curves(folder),
        pretraining=source if checkpoint and '://' not in checkpoint and source.is_dir() else None,
        weights=_weights(named['init'], checkpoint, facts),
    )


def _config(folder: Path, stem: str) -> Config | None:
    written = [folder / f'{stem}.py', *sorted(folder.glob('*/vis_data/config.py'))[::-1]]
    return next((load_config(path) for path in written if path.is_file()), None)


def _checkpoint(config: Config | None, folder: Path) -> str:
    """Return the file or URL that the detector, or its backbone, started from; '' without one."""
    whole = str((config or {}).get('load_from') or '')
    if whole and Path(whole).resolve().parent != folder.resolve():  # a resumed run names its own
        return whole
    model = (config or {}).get('model') or {}
    init = (model.get('backbone') or {}).get('init_cfg') or {}
    return str(init.get('checkpoint', '')) if isinstance(init, dict) else ''


def _weights(init: str, checkpoint: str, facts: Mapping) -> str | None:
    """Return what tells pretrainings of our own apart; see `Run.weights`."""
    start = init.split(names.BETWEEN)[0]
    if start in names.BASELINES:
        return None
    if names.is_own_pretraining(start):
        # By content: a path is another one on another machine, and a name is one of each study.
        own = facts.get('pretraining')
        return (facts.get('needs') or {}).get(own) or own or checkpoint or ''
    return checkpoint if checkpoint and '://' not in checkpoint else None  # a stem that names no start


def _contradiction(run: Run) -> str | None:
    """Say why the predictions do not give the numbers of `test.json`, or none at all."""
    said, metrics = run.predictions, run.result['metrics']
    headline = 'AP50' if said.task == 'detection' else 'mAP'
    everything = np.arange(len(said.parts()))
    again = {headline: said.mean_ap()(everything)}
    if again[headline] is None:
        return (
            'not one annotated box of any class on its test images, so that nothing can be measured; test on '
            'annotated images'
        )
    if said.task == 'detection':
        for label, name in enumerate(said.classes):
            again[f'AP50_{name}'] = average_precision_at(said.inspected, label)(everything)
    for name, value in again.items():
        stated = metrics.get(name)
        # "not <=", as a nan is neither below nor above anything
        if (stated is None) != (value is None) or (value is not None and not abs(stated - value) <= 1e-6):
            return (
                f'test.json says {name} {stated}, its predictions give {value}; they are of different tests: '
                'run tools/test.py again'
            )
    return None


def _unfit_val(run: Run) -> str | None:
    """Say why thresholds and models must not be fixed on what the run calls val."""
    if run.val is None:
        return None
    again = 'correct its val_dataloader and val_evaluator, and run tools/test.py --val again'
    if run.val.sha256 == run.predictions.sha256:
        return f'its val set {run.val.ann_file} is the test set, on which nothing may be fixed; {again}'
    if (run.val.task, run.val.classes) != (run.predictions.task, run.predictions.classes):
        return f'has the classes {run.val.classes} on val and {run.predictions.classes} on test; {again}'
    shared = sorted(set(run.val.names()) & set(run.predictions.names()))
    if shared:
        return (
            f'its val set {run.val.ann_file} has {len(shared)} images of the test set, such as {shared[0]}, '
            'on which nothing may be fixed; split again by part, give each image a name of its own, and run '
            'tools/test.py --val again'
        )
    return None


def unfit_for_proof(run: Run) -> str | None:
    """Say why escapes of these test parts prove nothing of other parts: training or val has seen them.

    Returns:
        The reason; '' where it cannot be told, as an annotation file of training is not here, is another than
        the run learnt from, or lacks parts; None where no part of test is in either.
    """
    tested = set(map(str, run.predictions.parts()))
    if run.val is not None and tested & set(map(str, run.val.parts())):
        return 'parts of test are in val'
    trained = set() if (files := train_files(run)) else {None}
    noted = _noted(run)
    for file, sha256 in files.items():
        trained |= _parts_in(file) if noted is None or _is_still(file, sha256) else {None}
    if tested & trained:
        return 'parts of test are in train'
    return '' if None in trained else None


def _is_still(file: str, sha256: str | None) -> bool:
    """Whether a file has the content that was recorded; not when it cannot be read."""
    try:
        return sha256 is not None and digest(Path(file)) == sha256
    except OSError:
        return False


def _parts_in(file: str) -> set[str | None]:
    """Return the parts of an annotation file, among them None where it lacks some or cannot be read."""
    try:
        images = json.loads(Path(file).read_text())['images']
        return {None if image.get('part') is None else str(image['part']) for image in images} or {None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {None}


def train_files(run: Run) -> dict[str, str | None]:
    """Return the annotation files that the config names for training, with the SHA-256 that was recorded.

    The file of today may be another. The SHA-256 is None where none was recorded.
    """
    loader = (run.config or {}).get('train_dataloader') or {}
    files = [str(annotation_file(d)) for d in leaves(loader.get('dataset') or {}) if d.get('ann_file')]
    labels = _noted(run) or {}
    return {file: run.facts.get('subset_sha256') or labels.get(file) for file in files}


def _noted(run: Run) -> dict[str, str] | None:
    """Return the SHA-256 of the annotations of training that a study or its starts noted, if anything is."""
    if run.facts:
        return run.facts.get('labels_sha256', {})
    starts = [start.get('labels_sha256', {}) for start in read_starts(run.folder)]
    if not any(starts):
        return None
    # What was resumed on another file, or begun before this was noted, learnt from who knows what.
    return {file: sha256 for file, sha256 in starts[0].items() if all(s.get(file) == sha256 for s in starts)}


def _incomparable(run: Run, others: Sequence[Run]) -> str | None:
    """Say why a run cannot stand beside the earlier ones of its data set."""
    key = (run.predictions.task, run.dataset)
    peers = [other for other in others if (other.predictions.task, other.dataset) == key]
    for other in peers[:1]:  # with which all later ones agree
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
            try:  # one file gives two truths through two severity maps
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
        if (run.stem, run.arm, run.fraction, run.seed) == (other.stem, other.arm, other.fraction, other.seed):
            return f'repeats {other.folder} (same config, labels and seed); leave one of them out'
    return None


def read_curves(folder: Path) -> Curves:
    """Read what a run logged, over all its starts: a later start overrides the steps it repeats.

    Args:
        folder: Work dir, with `<time>/vis_data/scalars.json`, one JSON object a line.

    Returns:
        The curves; a damaged or cut line is left out and named, a value that is not finite as well.
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
            if step == 0:  # what a test of this folder logged
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
