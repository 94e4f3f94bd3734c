"""Folds: runs that each test a part of a data set, measured together as one test of the whole set."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from projects.config import names
from projects.measures.matching import match_all
from projects.measures.ranking import froc
from projects.report.predictions import FILES, Predictions, mean_ap, read_predictions

from .plan import StudyError


def pool_folds(root: Path, runs: Mapping[str, dict], recorded: Mapping[str, dict]) -> dict[str, dict]:
    """Measure the folds of each arm as one test, if all folds are tested.

    Boxes of all folds are ranked together by their scores, so that a fold counts by its boxes and images. A
    mean over folds would give a film with eleven boxes the weight of a film with 193.

    Args:
        root: Work dir of the study.
        runs: Records of its runs by folder, such as `faster-rcnn_…_welds-0/seed0-frac100`.
        recorded: Earlier result of this function; it is kept if the predictions are on another machine.

    Returns:
        Records like those of runs, by folder without the fold: the facts that the folds share, `folds` (date
        of each fold's test by its folder) and `metrics` (AP50, recall of the first class at half a false
        alarm per image).

    Raises:
        StudyError: The folds were not tested on one data set.
    """
    arms: dict[tuple[str, str], dict[str, dict]] = {}
    for folder, run in runs.items():
        stem, _, rest = folder.partition('/')
        whole, data = names.without_fold(stem)
        if data and run['status'] == 'tested':
            arms.setdefault((f'{whole}/{rest}', data), {})[folder] = run
    pooled = {}
    for (arm, data), folds in arms.items():
        if len(folds) < names.FOLDS[data]:
            continue
        dates = {folder: run.get('date') for folder, run in folds.items()}
        if all((root / folder / FILES['test']).is_file() for folder in folds):
            metrics = measure([read_predictions(root / folder) for folder in folds])
        elif recorded.get(arm, {}).get('folds') == dates:
            metrics = recorded[arm]['metrics']
        else:
            continue
        pooled[arm] = _shared(arm, list(folds.values())) | dict(folds=dates, metrics=metrics)
    return pooled


def measure(folds: list[Predictions]) -> dict[str, float | None]:
    """Measure the predictions of folds as those of one test.

    Args:
        folds: Predictions of detectors with the same classes; no image is in two folds.

    Raises:
        StudyError: The classes differ, or an image is in two folds.
    """
    if len({tuple(fold.classes) for fold in folds}) > 1:
        raise StudyError(
            f'{folds[0].ann_file}: folds of different classes; test them with one set of classes'
        )
    tested = [name for fold in folds for name in fold.names()]
    twice = sorted({name for name in tested if tested.count(name) > 1})
    if twice:
        raise StudyError(
            f'{folds[0].ann_file}: {twice[0]} is tested in two folds; convert the data set again'
        )
    inspected = [image for fold in folds for image in fold.inspected]
    first = folds[0].classes[0]
    return {
        'xray/AP50': mean_ap(folds)(np.arange(len(inspected))),
        f'xray/recall_{first}_at_0.5': froc(match_all(inspected), rates=(0.5,)).recall_at[0.5],
    }


def _shared(arm: str, folds: list[dict]) -> dict:
    """Return one record that replaces the records of an arm's folds."""
    first = folds[0]
    common = {key: first[key] for key in first if all(fold.get(key) == first[key] for fold in folds)}
    common['config'] = str(Path(first['config']).with_name(f'{arm.partition("/")[0]}.py'))
    for key in ('labels_sha256', 'pretrained_on', 'tested_on'):
        merged = {file: digest for fold in folds for file, digest in (fold.get(key) or {}).items()}
        common |= {key: merged} if merged else {}
    digests = {fold['config']: fold['config_sha256'] for fold in folds if 'config_sha256' in fold}
    return common | dict(config_sha256=digests)
