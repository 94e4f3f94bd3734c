"""Whether a run of a study is done: by its record, with the present config, labels and starts."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from projects.config.configs import flatten
from projects.runs.digests import digest, read_json

from .plan import Job, Study, StudyError


def fingerprint(study: Study, job: Job, seeds: bool = True) -> str:
    """Return the digest of a training: of its resolved config and overrides, and those of its needs.

    The digest ignores the order of keys, the imported modules and the fragments' own `xray_` variables: their
    effect is in the values that the run reads. Otherwise a new transform would end the comparison with all
    earlier runs.

    Args:
        study: Study.
        job: A training.
        seeds: Whether to include the seeds of the training and of its pretraining.
    """
    key = (job.name, seeds)
    if key not in study.digests:
        flat = sorted(
            (key, repr(value))
            for key, value in flatten(study.config(job.config)).items()
            if not key.startswith(('xray_', 'custom_imports'))
        )
        subset = study.settings['subset'] if job.fraction < 100 else None
        needs = [fingerprint(study, study.job(name), seeds) for name in job.needs]
        seed, pretraining = (job.seed, job.pretraining) if seeds else (None, None)
        facts = [flat, sorted(job.options), seed, job.fraction, subset, job.trials, pretraining, needs]
        study.digests[key] = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return study.digests[key]


def digest_needs(study: Study, job: Job) -> dict[str, str | None]:
    """Return the recorded SHA-256 of the last checkpoint of each run that a training needs.

    None stands for a run that is not trained, or a trial that failed.
    """
    folders = [study.job(name).folder for name in job.needs]
    return {
        folder: read_json(study.root / folder / 'run.json').get('checkpoint_sha256') for folder in folders
    }


def is_done(study: Study, job: Job) -> bool:
    """Whether a job is done by its own record, with the present inputs, and all its needs are done.

    A run must be trained again after its pretraining was trained again, and tested again after the test
    annotations have changed. A trial that failed counts as done.

    Raises:
        StudyError: The job was begun with another config, other settings or other labels.
    """
    folder = study.root / job.folder
    facts = read_json(folder / 'run.json')
    needed = all([is_done(study, study.job(name)) for name in job.needs])
    if job.kind == 'test':
        return bool(facts.get('tested')) and needed and not _changed(facts.get('tested_on', {}))
    same = facts.get('fingerprint') == fingerprint(study, job)
    changed = _changed(facts.get('labels_sha256', {}))
    begun = facts.get('trained') or any(folder.glob('*.pth'))
    if begun and not same:
        raise StudyError(
            f'{folder}: was run with another config or other settings than {study.file} has now; delete it '
            'to run it again, or give the study another name'
        )
    if begun and changed:
        raise StudyError(
            f'{folder}: learnt from another {changed[0]} than there is now; delete it to run it again, or '
            'put the file back'
        )
    done = facts.get('trained') or facts.get('left_out')
    return bool(done) and needed and same and not changed and facts.get('needs') == digest_needs(study, job)


def _changed(labels: Mapping[str, str]) -> list[str]:
    """Return the files whose content has changed; a missing file cannot be compared and does not count."""
    return [file for file, sha256 in labels.items() if digest(Path(file)) not in (None, sha256)]
