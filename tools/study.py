"""Run a study: every run that its file asks for, side by side, on this machine or on a cluster.

Examples:
    python tools/study.py configs/study/synthetic.yaml --dry-run
    python tools/study.py configs/study/synthetic.yaml
    python tools/study.py configs/study/paper.yaml --profile configs/study/slurm
    python tools/study.py configs/study/*.yaml --readme
"""

import argparse
import contextlib
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects import __version__  # noqa: E402
from projects.errors import MMXrayError  # noqa: E402
from projects.radiograph.files import write_json  # noqa: E402
from projects.report.predictions import FILES, PredictionsError, read_predictions  # noqa: E402
from projects.report.runs import read_curves  # noqa: E402
from projects.study import plan as study_plan  # noqa: E402
from projects.study import results, schedule
from projects.study import subset as study_subset
from projects.xray import digests  # noqa: E402

REPO = Path(__file__).resolve().parents[1]
TOOLS = REPO / 'tools'
SNAKEFILE = REPO / 'projects' / 'study' / 'study.smk'


def parse_args(argv=None):
    """Parse the command line; what is not known here goes to Snakemake."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='Further options go to Snakemake. A failed run is marked, and the rest goes on.',
    )
    parser.add_argument(
        'studies', nargs='+', metavar='STUDY', help='study file, such as configs/study/NAME.yaml'
    )
    parser.add_argument('--dry-run', action='store_true', help='show what would run, and about how long')
    parser.add_argument(
        '--jobs', type=int, help='runs side by side; default: GPUs, else cores, of this machine'
    )
    parser.add_argument('--profile', help="a profile of Snakemake's, such as configs/study/slurm")
    parser.add_argument(
        '--readme',
        nargs='?',
        const='docs/results.md',
        metavar='F',
        help='write the recorded results between the marks of F (default: docs/results.md) instead',
    )
    # How Snakemake calls back: one step, and the GPUs that the plan has for it.
    parser.add_argument('--job', help=argparse.SUPPRESS)
    parser.add_argument('--gpus', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--version', action='version', version=f'mmxray {__version__}')
    args, args.further = parser.parse_known_args(argv)
    if args.further and (args.dry_run or args.readme or args.job):
        parser.error(f'unknown option {args.further[0]}')
    if args.gpus is not None and not args.job:
        parser.error('unknown option --gpus; write gpus: into the study')
    if len(args.studies) > 1 and not args.readme:
        parser.error('one study at a time; several only with --readme')
    return args


def main(argv=None):
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    try:
        if args.readme:
            return results.write_readme(Path(args.readme), [Path(file) for file in args.studies])
        study = study_plan.read_study(args.studies[0])
        if args.job:
            if args.gpus is not None:
                schedule.fit_gpus(study, args.gpus)
            return do(study, study.job(args.job))
        # A cluster has what the study says, or its scheduler refuses.
        fitted = None if args.profile else schedule.fit_gpus(study, len(gpus_here()))
        if fitted:
            print(fitted)
        if args.dry_run:
            return show(study, args.jobs or len(devices()))
        return run(study, args)
    except (study_plan.StudyError, results.RecordError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


# ------------------------------------------------------------------------------------------------- showing


def show(study, side_by_side):
    """Print what will run and about how long."""
    print(f'{study.name}: {study.about}')
    known, unknown, stated = {}, 0, []
    for job in study.jobs:
        done = study_plan.is_done(study, job)
        failed = (study.root / job.folder / 'failed.json').is_file()
        seconds = None if done else schedule.seconds_of(study, job)
        words = 'failed, runs again' if failed else 'runs'
        if done:
            words = 'failed, left out' if failed and job.trial else 'done'
        about = '' if done else 'not timed here' if seconds is None else clock(seconds)
        lr = (
            ''
            if job.lr_factor == 1
            else ' lr chosen on val'
            if job.lr_factor is None
            else f' lr x{job.lr_factor:g}'
        )
        epochs = f'{job.epochs} epochs{lr}' if job.kind == 'train' else ''
        print(f'{words:<19}{job.kind:<6}{job.folder}  {epochs}  {about}'.rstrip())
        if not done:
            hours = schedule.stated_hours(study, job) if seconds is None else None
            stated += [hours] if hours else []
            known[job.name] = seconds or 0
            unknown += seconds is None and hours is None
    times = ['time unknown' if unknown else 'all are done']
    timed = len(known) - unknown - len(stated)
    if timed:
        gpus = len(gpus_here())
        wall = clock(schedule.wall_seconds(study, known, side_by_side, gpus))
        times = [f'about {clock(sum(known.values()))} one by one', f'{wall} with {side_by_side} side by side']
        times += [f'and {unknown} of unknown time'] if unknown else []
    print(f'{len(known)} of {len(study.jobs)} steps to run: {", ".join(times)}')
    if stated:
        gpus = study.settings['gpus']
        print(
            f'as {study.file} states: {len(stated)} trainings of about {clock(3600 * sum(stated))} one by one'
            + (f' on {gpus} GPUs, {round(gpus * sum(stated))} GPU hours' if gpus else '')
        )
    for config, file in study.left_out.items():
        print(f'left out: {config}: needs {file}, which is not there')
    return 0


def clock(seconds):
    """Write a time as hours and minutes."""
    minutes = round(seconds / 60)
    return f'{minutes // 60}:{minutes % 60:02d} h' if minutes >= 60 else f'{max(minutes, 1)} min'


# ------------------------------------------------------------------------------------------------- running


def devices():
    """Return the GPUs of this machine by number; without any, its cores as Nones."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    gpus = visible.split(',') if visible else []
    if visible is None:
        gpus = sorted(path.name.removeprefix('nvidia') for path in Path('/dev').glob('nvidia[0-9]*'))
    return gpus or [None] * len(os.sched_getaffinity(0))


def gpus_here():
    """Return the GPUs of this machine by number."""
    return [device for device in devices() if device is not None]


def run(study, args):
    """Hand the plan to Snakemake; returns the exit code.

    Raises:
        StudyError: The study is running already, or a run is of another config.
    """
    gpus = gpus_here()
    waiting = [job for job in study.jobs if not study_plan.is_done(study, job)]  # refuses before any starts
    study.root.mkdir(parents=True, exist_ok=True)
    with (study.root / '.running').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
        except OSError:
            raise study_plan.StudyError(f'{study.root}: this study is running already; wait for it') from None
        for job in waiting:
            # Our own records say what is done: Snakemake would pass over a step whose marker is still there.
            (study.root / job.marker).unlink(missing_ok=True)
        plan = study.root / 'plan.json'
        plan.write_text(json.dumps([entry(study, job) for job in study.jobs], indent=1))
        jobs = args.jobs or len(devices())
        command = [sys.executable, '-m', 'snakemake', '--snakefile', str(SNAKEFILE)]
        command += ['--directory', str(study.root), '--config', f'plan={plan.resolve()}']
        command += ['--keep-going', '--rerun-incomplete', '--rerun-triggers', 'mtime', '--nolock']
        command += ['--quiet', 'all']  # each step tells of itself, in terms of the study
        if args.profile:
            command += ['--profile', args.profile, *(['--jobs', str(args.jobs)] if args.jobs else [])]
        else:
            command += ['--cores', str(jobs), *(['--resources', f'gpu={len(gpus)}'] if gpus else [])]
        code = subprocess.run([*command, *args.further], check=False).returncode
    recorded = results.record(study)
    failed = say_what_failed(study, recorded)
    print(f'recorded in {study.results_file}')
    print(f'page: python tools/report.py {study.root}/*/seed* --out {study.root}/report')
    return 1 if code or failed else 0


def say_what_failed(study, recorded):
    """Print which runs failed and which were therefore not run; returns whether any but a trial did."""
    any_failed = False
    for folder in dict.fromkeys(job.folder for job in study.jobs):
        said = recorded.get(folder, {})
        if said.get('status') == 'failed':
            left_out = ' (left out of the choice of a learning rate)' if said.get('left_out') else ''
            log = study.root / folder / 'log.txt'
            print(f'failed{left_out}: {folder}: {said["reason"]}; log in {log}', file=sys.stderr)
        elif said.get('status') == 'not run':
            print(f'not run: {folder}: {said["reason"]}', file=sys.stderr)
        else:
            continue
        any_failed |= not said.get('left_out')
    return any_failed


def entry(study, job):
    """Return what Snakemake needs to know of a job."""
    seconds = schedule.seconds_of(study, job)
    callback = [sys.executable, str(TOOLS / 'study.py'), str(study.file), '--job', job.name]
    callback += ['--gpus', str(job.gpus)]
    return dict(
        name=job.name,
        needs=[study.job(name).marker for name in job.needs],
        marker=job.marker,
        priority=len(study.jobs) - study.jobs.index(job),  # in the order of the file
        gpu=schedule.gpus_of(job, len(gpus_here())),
        # Twice the estimate; a day where there is none.
        minutes=24 * 60 if seconds is None else max(30, round(2 * seconds / 60)),
        command=f'cd {shlex.quote(str(Path.cwd()))} && {shlex.join(callback)}',
    )


def do(study, job):
    """Do one step: train or test; a failure is marked with its reason."""
    folder = study.root / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    marker = study.root / job.marker
    if study_plan.is_done(study, job):  # done, but killed before Snakemake knew
        marker.touch()
        return 0
    failed = folder / 'failed.json'
    failed.unlink(missing_ok=True)
    number = f'[{study.jobs.index(job) + 1} of {len(study.jobs)}]'
    seconds = schedule.seconds_of(study, job)
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
        results.record(study)
        if not digests.read_json(folder / 'run.json').get('left_out'):
            return 1
        # A rate at which nothing is learnt is an answer: the other trials decide.
    else:
        print(f'{number} done in {clock(time.monotonic() - start)}{reached(job, folder)}', flush=True)
    marker.touch()
    if job.kind == 'test':
        results.record(study)
    return 0


def reached(job, folder):
    """Return the AP50 or mAP that a test found, as words for the line about its end."""
    metrics = digests.read_json(folder / 'test.json').get('metrics', {}) if job.kind == 'test' else {}
    for name in ('AP50', 'mAP'):
        if (value := metrics.get(f'xray/{name}')) is not None:
            return f': test {name} {value:.3f}'
    return ''


class StepError(MMXrayError, RuntimeError):
    """A step that failed, with one line that says why.

    Args:
        message: The line; a tool's last one.
        code: Exit code of the tool; None when none ran.
    """

    def __init__(self, message, code=None):
        super().__init__(message)
        self.code = code


def train(study, job, folder):
    """Train a run, or take over the trial that is the same run."""
    facts, adopted = facts_of(study, job)
    before = digests.read_json(folder / 'run.json')
    if before and before.get('needs') != facts['needs']:
        print(f'{folder}: its pretraining or its trials were trained again since; starts from the beginning')
        shutil.rmtree(folder)  # --resume would go on with the old weights
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
            # 1: the training failed, as with a loss that is not finite; a kill says nothing of the rate.
            if job.trial and error.code == 1:
                write_json(folder / 'run.json', facts | dict(left_out=True))
            raise
        # Of a run that was killed in the middle nobody knows how long it took.
        facts['seconds'] = None if resumed else round(time.monotonic() - start, 1)
        checkpoint = last_checkpoint(folder)
        facts['checkpoint_sha256'] = digests.digest(Path(checkpoint))
    write_json(folder / 'run.json', facts | dict(trained=True))


def facts_of(study, job):
    """Settle how a run is trained, now that what it needs is done.

    Returns:
        tuple[dict, str | None]: Its facts, with the `options` of tools/train.py, and the folder of the
        trial that is this very run, if one is.

    Raises:
        StepError: No trial succeeded, or the labels or the pretraining's checkpoint are not as they should.
    """
    options = [f'randomness.seed={job.seed}', *job.options]
    facts = dict(lr_factor=job.lr_factor)
    adopted = None
    if job.trials:
        chosen, facts = choose(study, job)
        trial = study.job(study_plan.job_name(job.trials[chosen], 'train'))
        options += [option for option in trial.options if option.startswith('optim_wrapper.')]
        adopted = trial.folder if trial.seed == job.seed else None
    if job.fraction < 100:
        subset, images = labels(study, job)
        options.append(f'{digests.key_of_data(study.config(job.config))}.ann_file={subset.resolve()}')
        facts |= dict(train_images=images, subset_sha256=digests.digest(subset))
    else:
        datasets = digests.data_sets(study.config(job.config), 'train_dataloader')
        files = [file for file in map(digests.annotation_file, datasets) if file.suffix == '.json']
        images = sum(len(digests.read_json(file).get('images', [])) for file in files)
        facts |= dict(train_images=images or None)
    needs = study_plan.digest_needs(study, job)
    if job.pretraining:
        pretrained_on = digests.read_json(study.root / job.pretraining / 'run.json').get('labels_sha256')
        facts |= dict(pretrained_on=pretrained_on)
        start = last_checkpoint(study.root / job.pretraining)
        if digests.digest(Path(start)) != needs[job.pretraining]:
            raise StepError(
                f'{start}: is not the file that its run wrote; delete {Path(start).parent} to train it again'
            )
        key, _ = study_plan.start_of(study.config(job.config))
        options.append(f'{key}={start}')
    # A rate that is chosen on val depends on its labels as well.
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
        fingerprint=study_plan.fingerprint(study, job),
        config_sha256=study_plan.fingerprint(study, job, seeds=False),
        labels_sha256=digests.digest_labels(study.config(job.config), *loaders),
        needs=needs,
        options=options,
        trained=False,
    )
    return facts, adopted


def choose(study, job):
    """Choose the learning rate among the trials that did not fail; returns its factor, and what to record.

    Raises:
        StepError: All failed, or one has no value on val.
    """
    said = {
        factor: digests.read_json(study.root / trial / 'run.json') for factor, trial in job.trials.items()
    }
    failed = [factor for factor in job.trials if said[factor].get('left_out')]
    if len(failed) == len(job.trials):
        folder = study.root / job.trials[failed[0]]
        reason = digests.read_json(folder / 'failed.json').get('reason')
        raise StepError(f'all trials of a learning rate failed, {folder} with: {reason}')
    curves = {f: values_on_val(study.root / trial) for f, trial in job.trials.items() if f not in failed}
    try:
        chosen = study_plan.choose_lr(curves)
    except study_plan.StudyError as error:
        raise StepError(str(error)) from None
    on_val = {factor: values[-1] for factor, values in curves.items()}
    return chosen, dict(lr_factor=float(chosen), lr_on_val=on_val, lr_failed=failed or None)


def test(study, job, folder):
    """Test a run on val and test, with the options it was trained with."""
    facts = digests.read_json(folder / 'run.json')
    start = time.monotonic()
    arguments = [job.config, last_checkpoint(folder), '--work-dir', str(folder), '--val']
    tested_on = digests.digest_labels(study.config(job.config), 'val_dataloader', 'test_dataloader')
    call('test', [*arguments, '--cfg-options', *facts['options']], job, folder)
    check_predictions(folder)
    facts |= dict(tested=True, tested_on=tested_on, test_seconds=round(time.monotonic() - start, 1))
    write_json(folder / 'run.json', facts)


def check_predictions(folder):
    """Refuse what the report leaves out: it is no value to average either.

    Raises:
        StepError: Predictions of val or test that no measure may be taken of.
    """
    for split, file in FILES.items():
        if (folder / file).is_file():
            try:
                read_predictions(folder, split)
            except PredictionsError as error:
                raise StepError(str(error)) from None


def call(tool, arguments, job, folder):
    """Run one of the project's tools, its words in log.txt; returns the command.

    Raises:
        StepError: It failed; the message is its last line.
    """
    env = os.environ | ({} if devices()[0] else {'OMP_NUM_THREADS': '1'})
    gpus = schedule.gpus_of(job, 1)
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
        said = (errors or lines or [f'exit code {done.returncode}, without a word'])[-1][:500]
        raise StepError(said, done.returncode)
    return shown


@contextlib.contextmanager
def claimed(count):
    """Claim GPUs of this machine for as long as a step runs; a cluster's scheduler does it itself."""
    gpus = gpus_here()
    if not gpus or 'SLURM_JOB_ID' in os.environ:
        yield {}
        return
    if count > len(gpus):
        raise StepError(f'needs {count} GPUs, this machine has {len(gpus)}; set gpus: {len(gpus)}')
    folder = study_plan.ROOT / '.gpus'
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
        time.sleep(5)  # all or none are held, or two steps would wait for each other


def labels(study, job):
    """Write the share of the labels that a run learns from, once; returns the file and its image count."""
    dataset, *others = digests.data_sets(study.config(job.config), 'train_dataloader')
    if others:
        raise StepError(
            f'{job.config}: trains on {1 + len(others)} data sets, expected one to draw a share of the '
            'labels from; join their annotations, or ask for fractions: [100]'
        )
    source = digests.annotation_file(dataset)
    try:
        coco = json.loads(source.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise StepError(f'{source}: no readable annotation file ({error})') from None
    try:
        subset = study_subset.draw_subset(coco, job.fraction, study.settings['subset'])
    except study_plan.StudyError as error:
        raise StepError(f'{source}: {error}') from None
    file = study.root / 'labels' / f'{digests.digest(source)[:12]}-frac{job.fraction}.json'
    write_json(file, subset, indent=None)
    return file, len(subset['images'])


def values_on_val(folder):
    """Return what a trial reached on val, validation by validation."""
    curves = read_curves(folder).val
    return [value for _, value in curves.get('AP50') or curves.get('mAP') or []]


def last_checkpoint(folder):
    """Return the last checkpoint of a run that was trained to its end."""
    epochs = digests.read_json(folder / 'run.json').get('epochs')
    checkpoint = folder / f'epoch_{epochs}.pth'
    if not checkpoint.is_file():
        raise StepError(
            f'{checkpoint}: not there, although the run is trained; delete {folder} to train it again'
        )
    return str(checkpoint.resolve())


def adopt(trial, folder):
    """Take over a trial's files: it is this very run, learnt once; returns what it says of its training."""
    for source in trial.rglob('*'):
        target = folder / source.relative_to(trial)
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif source.name not in ('run.json', 'trained', 'failed.json'):
            target.unlink(missing_ok=True)
            os.link(source, target)
    said = digests.read_json(trial / 'run.json')
    return {key: said.get(key) for key in ('command', 'seconds', 'checkpoint_sha256')}


if __name__ == '__main__':
    sys.exit(main())
