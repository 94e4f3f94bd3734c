"""Run a study: every run that its file asks for, side by side, on this machine or on a cluster.

Examples:
    python tools/study.py configs/study/synthetic.yaml --dry-run
    python tools/study.py configs/study/synthetic.yaml
    python tools/study.py configs/study/paper.yaml --profile configs/study/slurm
    python tools/study.py configs/study/*.yaml --readme README.md
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.xray import study as studies  # noqa: E402
from projects.xray.report import study_results as results  # noqa: E402
from projects.xray.report.runs import read_curves  # noqa: E402

REPO = Path(__file__).resolve().parents[1]
TOOLS = REPO / 'tools'
SNAKEFILE = REPO / 'projects' / 'xray' / 'study.smk'


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
        '--readme', metavar='F', help='write the recorded results between the marks of F instead'
    )
    parser.add_argument('--job', help=argparse.SUPPRESS)  # one step: how Snakemake calls back
    args, args.further = parser.parse_known_args(argv)
    if args.further and (args.dry_run or args.readme or args.job):
        parser.error(f'unknown option {args.further[0]}')
    if len(args.studies) > 1 and not args.readme:
        parser.error('one study at a time; several only with --readme')
    return args


def main(argv=None):
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    try:
        if args.readme:
            return results.write_readme(Path(args.readme), [Path(file) for file in args.studies])
        study = studies.read_study(args.studies[0])
        if args.job:
            return do(study, study.job(args.job))
        if args.dry_run:
            return show(study, args.jobs or len(devices()))
        return run(study, args)
    except (studies.StudyError, results.RecordError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


# ------------------------------------------------------------------------------------------------- showing


def show(study, side_by_side):
    """Print what will run and about how long."""
    print(f'{study.name}: {study.about}')
    total, unknown, waiting = 0.0, 0, 0
    for job in study.jobs:
        done = studies.is_done(study, job)
        failed = (study.root / job.folder / 'failed.json').is_file()
        seconds = None if done else studies.seconds_of(study, job)
        words = 'done' if done else 'failed, runs again' if failed else 'runs'
        about = '' if done else 'time unknown' if seconds is None else clock(seconds)
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
            waiting, unknown, total = waiting + 1, unknown + (seconds is None), total + (seconds or 0)
    rest = f', and {unknown} of unknown time' if unknown else ''
    print(
        f'{waiting} of {len(study.jobs)} steps to run: about {clock(total)} one by one{rest}; '
        f'{side_by_side} side by side on this machine'
    )
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


def run(study, args):
    """Hand the plan to Snakemake; returns its exit code."""
    for job in study.jobs:
        studies.is_done(study, job)  # refuses runs of another config before any starts
    study.root.mkdir(parents=True, exist_ok=True)
    with (study.root / '.running').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
        except OSError:
            raise studies.StudyError(f'{study.root}: this study is running already; wait for it') from None
        plan = study.root / 'plan.json'
        plan.write_text(json.dumps([entry(study, job) for job in study.jobs], indent=1))
        jobs = args.jobs or len(devices())
        command = [sys.executable, '-m', 'snakemake', '--snakefile', str(SNAKEFILE)]
        command += ['--directory', str(study.root), '--config', f'plan={plan.resolve()}']
        command += ['--keep-going', '--rerun-incomplete', '--rerun-triggers', 'mtime', '--nolock']
        command += ['--quiet', 'progress', 'rules']
        gpus = [device for device in devices() if device is not None]
        if args.profile:
            command += ['--profile', args.profile, *(['--jobs', str(args.jobs)] if args.jobs else [])]
        else:
            command += ['--cores', str(jobs), *(['--resources', f'gpus={len(gpus)}'] if gpus else [])]
        code = subprocess.run([*command, *args.further], check=False).returncode
    results.record(study)
    failed = [job.folder for job in study.jobs if (study.root / job.folder / 'failed.json').is_file()]
    for folder in failed:
        said = studies.read_json(study.root / folder / 'failed.json')
        print(
            f'failed: {folder}: {said.get("reason")}; log in {study.root / folder}/log.txt', file=sys.stderr
        )
    print(f'recorded in {results.record_file(study)}')
    print(f'page: python tools/report.py {study.root}/*/seed* --out {study.root}/report')
    return 1 if code or failed else 0


def entry(study, job):
    """Return what Snakemake needs to know of a job."""
    seconds = studies.seconds_of(study, job)
    callback = [sys.executable, str(TOOLS / 'study.py'), str(study.file), '--job', job.name]
    gpus = job.gpus or int(any(device is not None for device in devices()))
    return dict(
        name=job.name,
        needs=[study.job(name).marker for name in job.needs],
        marker=job.marker,
        priority=len(study.jobs) - study.jobs.index(job),  # in the order of the file
        gpus=gpus if job.kind == 'train' else min(gpus, 1),
        # Twice the estimate; a day where there is none.
        minutes=24 * 60 if seconds is None else max(30, round(2 * seconds / 60)),
        command=f'cd {shlex.quote(str(Path.cwd()))} && {shlex.join(callback)}',
    )


def do(study, job):
    """Do one step: train or test; a failure is marked with its reason."""
    folder = study.root / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    failed = folder / 'failed.json'
    failed.unlink(missing_ok=True)
    marker = study.root / job.marker
    if studies.is_done(study, job):  # done, but killed before Snakemake knew
        marker.touch()
        return 0
    try:
        (train if job.kind == 'train' else test)(study, job, folder)
    except StepError as error:
        write_json(
            failed, dict(step=job.kind, reason=str(error), time=time.strftime('%FT%TZ', time.gmtime()))
        )
        print(f'failed: {job.folder}: {error}', file=sys.stderr)
        results.record(study)
        return 1
    marker.touch()
    if job.kind == 'test':
        results.record(study)
    return 0


class StepError(RuntimeError):
    """A tool that failed, with its last line."""


def train(study, job, folder):
    """Train a run, or take over the trial that is the same run."""
    options = [f'randomness.seed={job.seed}', *job.options]
    factor, on_val = job.lr_factor, None
    if job.trials:
        curves = {f: values_on_val(study.root / trial) for f, trial in job.trials.items()}
        try:
            chosen = studies.choose_lr(curves)
        except studies.StudyError as error:
            raise StepError(str(error)) from None
        factor, on_val = float(chosen), {f: values[-1] for f, values in curves.items()}
        trial = study.job(studies.job_name(job.trials[chosen], 'train'))
        options += [option for option in trial.options if option.startswith('optim_wrapper.')]
    subset, images = None, None
    if job.fraction < 100:
        subset, images = labels(study, job)
        options.append(f'train_dataloader.dataset.ann_file={subset.resolve()}')
    if job.pretraining:
        options.append(f'model.backbone.init_cfg.checkpoint={last_checkpoint(study.root / job.pretraining)}')
    facts = dict(
        study=study.name,
        config=job.config,
        seed=job.seed,
        fraction=job.fraction,
        epochs=job.epochs,
        epochs_factor=job.epochs_factor,
        lr_factor=factor,
        lr_on_val=on_val,
        pretraining=job.pretraining,
        train_images=images,
        subset_sha256=hashlib.sha256(subset.read_bytes()).hexdigest() if subset else None,
        fingerprint=studies.fingerprint(job),
        options=options,
        trained=False,
    )
    write_json(folder / 'run.json', facts)
    start = time.monotonic()
    if job.trials and trial.seed == job.seed:
        adopt(study.root / trial.folder, folder)
        facts['seconds'] = studies.read_json(study.root / trial.folder / 'run.json').get('seconds')
    else:
        facts['command'] = call(
            'train',
            [job.config, '--work-dir', str(folder), '--resume', '--cfg-options', *options],
            job,
            folder,
        )
        facts['seconds'] = round(time.monotonic() - start, 1)
    write_json(folder / 'run.json', facts | dict(trained=True))


def test(study, job, folder):
    """Test a run on val and test, with the options it was trained with."""
    facts = studies.read_json(folder / 'run.json')
    start = time.monotonic()
    arguments = [job.config, last_checkpoint(folder), '--work-dir', str(folder), '--val']
    call('test', [*arguments, '--cfg-options', *facts['options']], job, folder)
    facts |= dict(tested=True, test_seconds=round(time.monotonic() - start, 1))
    write_json(folder / 'run.json', facts)


def call(tool, arguments, job, folder):
    """Run one of the project's tools, its words in log.txt; returns the command.

    Raises:
        StepError: It failed; the message is its last line.
    """
    env = os.environ | ({} if devices()[0] else {'OMP_NUM_THREADS': '1'})
    with claimed(job.gpus or 1) as claim, (folder / 'log.txt').open('a') as log:
        if job.gpus > 1:
            launcher = [
                str(TOOLS / f'dist_{tool}.sh'),
                *arguments[: 1 if tool == 'train' else 2],
                str(job.gpus),
            ]
            command = [*launcher, *arguments[1 if tool == 'train' else 2 :]]
        else:
            command = [sys.executable, '-u', str(TOOLS / f'{tool}.py'), *arguments]
        shown = shlex.join(['python' if part == sys.executable else part for part in command])
        shown = shown.replace(f'{REPO}/', '').replace(f'{Path.cwd()}/', '')
        print(f'$ {shown}', file=log, flush=True)
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=env | claim, check=False)
    if done.returncode:
        lines = [
            line for line in (folder / 'log.txt').read_text(errors='replace').splitlines() if line.strip()
        ]
        errors = [line for line in lines if line.startswith('error')]
        raise StepError((errors or lines)[-1][:500])
    return shown


@contextlib.contextmanager
def claimed(count):
    """Claim GPUs of this machine for as long as a step runs; a cluster's scheduler does it itself."""
    gpus = [device for device in devices() if device is not None]
    if not gpus or 'SLURM_JOB_ID' in os.environ:
        yield {}
        return
    folder = studies.ROOT / '.gpus'
    folder.mkdir(parents=True, exist_ok=True)
    held = []
    while len(held) < count:
        for gpu in gpus:
            file = (folder / gpu).open('w')
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            held.append((gpu, file))
            if len(held) == count:
                break
        else:
            while held:  # all or none, or two steps wait for each other
                held.pop()[1].close()
            time.sleep(5)
    yield {'CUDA_VISIBLE_DEVICES': ','.join(gpu for gpu, _ in held)}
    for _, file in held:
        file.close()


def labels(study, job):
    """Write the share of the labels that a run learns from, once; returns the file and its image count."""
    dataset = studies.load_config(job.config)['train_dataloader']['dataset']
    source = Path(dataset.get('data_root') or '', dataset['ann_file'])
    try:
        coco = json.loads(source.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise StepError(f'{source}: no readable annotation file ({error})') from None
    try:
        subset = studies.draw_subset(coco, job.fraction, study.settings['subset'])
    except studies.StudyError as error:
        raise StepError(f'{source}: {error}') from None
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    file = study.root / 'labels' / f'{digest}-frac{job.fraction}.json'
    write_json(file, subset, indent=None)
    return file, len(subset['images'])


def values_on_val(folder):
    """Return what a trial reached on val, validation by validation."""
    curves = read_curves(folder).val
    return [value for _, value in curves.get('AP50') or curves.get('mAP') or []]


def last_checkpoint(folder):
    """Return the last checkpoint of a run that was trained to its end."""
    epochs = studies.read_json(folder / 'run.json').get('epochs')
    checkpoint = folder / f'epoch_{epochs}.pth'
    if not checkpoint.is_file():
        raise StepError(
            f'{checkpoint}: not there, although the run is trained; delete {folder} to train it again'
        )
    return str(checkpoint.resolve())


def adopt(trial, folder):
    """Take over a trial's files: it is this very run, learnt once."""
    for source in trial.rglob('*'):
        target = folder / source.relative_to(trial)
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif source.name not in ('run.json', 'trained', 'failed.json'):
            target.unlink(missing_ok=True)
            os.link(source, target)


def write_json(path, content, indent=1):
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f'{path.name}.{os.getpid()}')
    draft.write_text(json.dumps(content, indent=indent) + '\n')
    draft.replace(path)


if __name__ == '__main__':
    sys.exit(main())
