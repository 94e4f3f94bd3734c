"""One step of a study: train a run, or test it."""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from projects import REPO
from projects.errors import MMXrayError
from projects.radiograph.files import write_json
from projects.report.predictions import FILES, PredictionsError, read_predictions
from projects.report.runs import read_curves
from projects.runs import digests
from projects.xray.errors import DatasetError
from projects.xray.parquet import SUFFIX, open_labels, read_whole

from .devices import devices, gpus_here
from .listing import clock
from .plan import (
    ROOT,
    Job,
    Study,
    StudyError,
    choose_lr,
    job_name,
    start_of,
)
from .results import record
from .schedule import gpus_of, seconds_of
from .state import digest_needs, fingerprint, is_done
from .subset import draw_subset

TOOLS = REPO / 'tools'


class StepError(MMXrayError, RuntimeError):
    """A step failed; one line with the reason.

    Args:
        message: The line; for a failed tool, its last line.
        code: Exit code of the tool; None if no tool ran.
    """

    def __init__(self, message: str, code: int | None = None):
        super().__init__(message)
        self.code = code


def do(study: Study, job: Job) -> int:
    """Train or test, and mark a failure with its reason; returns the exit code."""
    folder = study.root / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    marker = study.root / job.marker
    if is_done(study, job):  # done, but killed before its marker was written
        marker.touch()
        return 0
    failed = folder / 'failed.json'
    failed.unlink(missing_ok=True)
    number = f'[{study.jobs.index(job) + 1} of {len(study.jobs)}]'
    seconds = seconds_of(study, job)
    about = f'; about {clock(seconds)}' if seconds else ''
    print(f'{number} {job.kind} {job.folder}{about}; log in {folder}/log.txt', flush=True)
    start = time.monotonic()
    try:
        (train if job.kind == 'train' else test)(study, job, folder)
    except StepError as error:
        write_json(
            failed, dict(step=job.kind, reason=str(error), time=time.strftime('%FT%TZ', time.gmtime()))
        )
        print(f'failed: {job.folder}: {error}', file=sys.stderr)
        record(study)
        if not digests.read_json(folder / 'run.json').get('left_out'):
            return 1
        # A failed trial is a result, too: the other trials choose the learning rate.
    else:
        print(f'{number} done in {clock(time.monotonic() - start)}{reached(job, folder)}', flush=True)
    marker.touch()
    if job.kind == 'test':
        record(study)
    return 0


def reached(job: Job, folder: Path) -> str:
    """Return the AP50 or mAP of a test, in words for its last printed line; '' without one."""
    metrics = digests.read_json(folder / 'test.json').get('metrics', {}) if job.kind == 'test' else {}
    for name in ('AP50', 'mAP'):
        if (value := metrics.get(f'xray/{name}')) is not None:
            return f': test {name} {value:.3f}'
    return ''


def train(study: Study, job: Job, folder: Path) -> None:
    """Train a run, or adopt the files of an identical trial."""
    facts, adopted = facts_of(study, job)
    before = digests.read_json(folder / 'run.json')
    if before and before.get('needs') != facts['needs']:
        print(f'{folder}: its pretraining or its trials were trained again since; starts from the beginning')
        shutil.rmtree(folder)  # --resume would continue with the old weights
    resumed = any(folder.glob('*.pth'))
    write_json(folder / 'run.json', facts)
    start = time.monotonic()
    if adopted:
        facts |= adopt(study.root / adopted, folder)
    else:
        arguments = [job.config, '--work-dir', str(folder), '--resume', '--cfg-options', *facts['options']]
        try:
            facts['command'] = call('train', arguments, job, folder)
        except StepError as error:
            # 1: the training failed, such as by a loss that is not finite. A kill says nothing of the rate.
            if job.trial and error.code == 1:
                write_json(folder / 'run.json', facts | dict(left_out=True))
            raise
        # The time of a resumed run is unknown.
        facts['seconds'] = None if resumed else round(time.monotonic() - start, 1)
        checkpoint = last_checkpoint(folder)
        facts['checkpoint_sha256'] = digests.digest(Path(checkpoint))
    write_json(folder / 'run.json', facts | dict(trained=True))


def facts_of(study: Study, job: Job) -> tuple[dict[str, Any], str | None]:
    """Determine the training of a run, once its needs are done.

    Returns:
        The facts of the run, with the `options` of tools/train.py, and the folder of an identical trial, if
        there is one.

    Raises:
        StepError: No trial succeeded, or the labels or the pretraining's checkpoint cannot be used.
    """
    options = [f'randomness.seed={job.seed}', *job.options]
    facts = dict(lr_factor=job.lr_factor)
    adopted = None
    if job.trials:
        chosen, facts = choose(study, job)
        trial = study.job(job_name(job.trials[chosen], 'train'))
        options += [option for option in trial.options if option.startswith('optim_wrapper.')]
        adopted = trial.folder if trial.seed == job.seed else None
    if job.fraction < 100:
        subset, images = labels(study, job)
        options.append(f'{digests.key_of_data(study.config(job.config))}.ann_file={subset.resolve()}')
        facts |= dict(train_images=images, subset_sha256=digests.digest(subset))
    else:
        datasets = digests.data_sets(study.config(job.config), 'train_dataloader')
        files = [
            file for file in map(digests.annotation_file, datasets) if file.suffix in ('.json', '.parquet')
        ]
        images = sum(map(count_images, files))
        facts |= dict(train_images=images or None)
    needs = digest_needs(study, job)
    if job.pretraining:
        pretrained_on = digests.read_json(study.root / job.pretraining / 'run.json').get('labels_sha256')
        facts |= dict(pretrained_on=pretrained_on)
        start = last_checkpoint(study.root / job.pretraining)
        if digests.digest(Path(start)) != needs[job.pretraining]:
            raise StepError(
                f'{start}: is not the file that its run wrote; delete {Path(start).parent} to train it again'
            )
        key, _ = start_of(study.config(job.config))
        options.append(f'{key}={start}')
    # A learning rate chosen on val also depends on the labels of val.
    loaders = ['train_dataloader', *(['val_dataloader'] if job.trial or job.trials else [])]
    facts |= dict(
        study=study.name,
        config=job.config,
        seed=job.seed,
        fraction=job.fraction,
        epochs=job.epochs,
        epochs_factor=job.epochs_factor,
        pretrain_epochs_factor=job.pretrain_epochs_factor,
        pretraining=job.pretraining,
        fingerprint=fingerprint(study, job),
        config_sha256=fingerprint(study, job, seeds=False),
        labels_sha256=digests.digest_labels(study.config(job.config), *loaders),
        needs=needs,
        options=options,
        trained=False,
    )
    return facts, adopted


def choose(study: Study, job: Job) -> tuple[str, dict[str, Any]]:
    """Choose the learning rate among the trials that did not fail; returns its factor and facts to record.

    Raises:
        StepError: All trials failed, or a trial has no value on val.
    """
    trials = {
        factor: digests.read_json(study.root / trial / 'run.json') for factor, trial in job.trials.items()
    }
    failed = [factor for factor in job.trials if trials[factor].get('left_out')]
    if len(failed) == len(job.trials):
        folder = study.root / job.trials[failed[0]]
        reason = digests.read_json(folder / 'failed.json').get('reason')
        raise StepError(f'all trials of a learning rate failed, {folder} with: {reason}')
    curves = {f: values_on_val(study.root / trial) for f, trial in job.trials.items() if f not in failed}
    try:
        chosen = choose_lr(curves)
    except StudyError as error:
        raise StepError(str(error)) from None
    on_val = {factor: values[-1] for factor, values in curves.items()}
    return chosen, dict(lr_factor=float(chosen), lr_on_val=on_val, lr_failed=failed or None)


def test(study: Study, job: Job, folder: Path) -> None:
    """Test a run on val and test, with the options of its training."""
    facts = digests.read_json(folder / 'run.json')
    start = time.monotonic()
    arguments = [job.config, last_checkpoint(folder), '--work-dir', str(folder), '--val']
    tested_on = digests.digest_labels(study.config(job.config), 'val_dataloader', 'test_dataloader')
    call('test', [*arguments, '--cfg-options', *facts['options']], job, folder)
    check_predictions(folder)
    facts |= dict(tested=True, tested_on=tested_on, test_seconds=round(time.monotonic() - start, 1))
    write_json(folder / 'run.json', facts)


def check_predictions(folder: Path) -> None:
    """Refuse predictions that the report would leave out, so that no table averages them.

    Raises:
        StepError: Predictions of val or test cannot be measured.
    """
    for split, file in FILES.items():
        if (folder / file).is_file():
            try:
                read_predictions(folder, split)
            except PredictionsError as error:
                raise StepError(str(error)) from None


def call(tool: str, arguments: Sequence[str], job: Job, folder: Path) -> str:
    """Run one of the project's tools with its output in log.txt; returns the command.

    Raises:
        StepError: The tool failed; the message is its last line.
    """
    env = os.environ | ({} if devices()[0] else {'OMP_NUM_THREADS': '1'})
    gpus = gpus_of(job, 1)
    if gpus > 1:
        config, *rest = arguments
        command = [str(TOOLS / f'dist_{tool}.sh'), config, str(gpus), *rest]
    else:
        command = [sys.executable, '-u', str(TOOLS / f'{tool}.py'), *arguments]
    shown = shlex.join(['python' if part == sys.executable else part for part in command])
    shown = shown.replace(f'{REPO}/', '').replace(f'{Path.cwd()}/', '')
    with claimed(gpus) as claim, (folder / 'log.txt').open('a') as log:
        print(f'$ {shown}', file=log, flush=True)
        start = log.tell()
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=env | claim, check=False)
    if done.returncode:
        with (folder / 'log.txt').open(errors='replace') as log:
            log.seek(start)
            lines = [line for line in log.read().splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith('error')]
        reason = (errors or lines or [f'exit code {done.returncode}, without a word'])[-1][:500]
        raise StepError(reason, done.returncode)
    return shown


@contextlib.contextmanager
def claimed(count: int) -> Iterator[dict[str, str]]:
    """Claim GPUs of this machine for the time of a step; on a cluster, the scheduler assigns them."""
    gpus = gpus_here()
    if not gpus or 'SLURM_JOB_ID' in os.environ:
        yield {}
        return
    if count > len(gpus):
        raise StepError(f'needs {count} GPUs, this machine has {len(gpus)}; set gpus: {len(gpus)}')
    folder = ROOT / '.gpus'
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.ExitStack() as files:
            held = []
            for gpu in gpus:
                file = files.enter_context((folder / gpu).open('w'))
                with contextlib.suppress(OSError):  # another step has it
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    held.append(gpu)
                if len(held) == count:
                    yield {'CUDA_VISIBLE_DEVICES': ','.join(held)}
                    return
        time.sleep(5)  # hold all or none, so that two steps never wait for each other


def read_annotations(source: Path) -> dict:
    """Return the whole content of a COCO file, in JSON or Parquet."""
    return read_whole(source, str(source)) if source.suffix == SUFFIX else json.loads(source.read_text())


def count_images(source: Path) -> int:
    """Return the number of images in an annotation file; 0 if it is missing or incomplete."""
    try:
        if source.suffix not in ('.json', SUFFIX):
            return 0
        if source.suffix == SUFFIX:
            return open_labels(source, str(source))[0].metadata.num_rows
        return len(digests.read_json(source).get('images', []))
    except DatasetError:
        return 0


def labels(study: Study, job: Job) -> tuple[Path, int]:
    """Write the share of the labels for a run's training; returns the file and its number of images."""
    data = digests.data_sets(study.config(job.config), 'train_dataloader')
    dataset, *others = [one for one in data if one.get('type') != digests.UNLABELLED]
    if others:
        raise StepError(
            f'{job.config}: trains on {1 + len(others)} data sets, expected one to draw a share of the '
            'labels from; join their annotations, or ask for fractions: [100]'
        )
    source = digests.annotation_file(dataset)
    try:
        coco = read_annotations(source)
    except (OSError, json.JSONDecodeError, DatasetError) as error:
        raise StepError(f'{source}: no readable annotation file ({error})') from None
    try:
        subset = draw_subset(coco, job.fraction, study.settings['subset'])
    except StudyError as error:
        raise StepError(f'{source}: {error}') from None
    file = study.root / 'labels' / f'{digests.digest(source)[:12]}-frac{job.fraction}.json'
    write_json(file, subset, indent=None)
    return file, len(subset['images'])


def values_on_val(folder: Path) -> list[float]:
    """Return the values of a trial on val, one per validation."""
    curves = read_curves(folder).val
    return [value for _, value in curves.get('AP50') or curves.get('mAP') or []]


def last_checkpoint(folder: Path) -> str:
    """Return the last checkpoint of a completely trained run."""
    epochs = digests.read_json(folder / 'run.json').get('epochs')
    checkpoint = folder / f'epoch_{epochs}.pth'
    if not checkpoint.is_file():
        raise StepError(
            f'{checkpoint}: not there, although the run is trained; delete {folder} to train it again'
        )
    return str(checkpoint.resolve())


def adopt(trial: Path, folder: Path) -> dict[str, Any]:
    """Link the files of an identical trial into a run's folder; returns the facts of its training."""
    for source in trial.rglob('*'):
        target = folder / source.relative_to(trial)
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif source.name not in ('run.json', 'trained', 'failed.json'):
            target.unlink(missing_ok=True)
            os.link(source, target)
    facts = digests.read_json(trial / 'run.json')
    return {key: facts.get(key) for key in ('command', 'seconds', 'checkpoint_sha256')}
