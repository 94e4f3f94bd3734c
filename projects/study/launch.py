"""Hand a study's plan to Snakemake and print the runs that failed."""

import fcntl
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .devices import devices, gpus_here
from .listing import print_left_out
from .plan import Job, Study, StudyError
from .results import record
from .schedule import gpus_of, seconds_of
from .state import is_done

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'study.py'
SNAKEFILE = Path(__file__).with_name('study.smk')


def run(study: Study, jobs: int | None, profile: str | None, further: Sequence[str]) -> int:
    """Hand the plan to Snakemake; returns the exit code.

    Args:
        study: The study.
        jobs: Number of runs side by side; None for as many as this machine has GPUs, else cores.
        profile: Snakemake profile that says where the runs go.
        further: Further options of Snakemake.

    Raises:
        StudyError: The study is running already, or a run has another config.
    """
    gpus = gpus_here()
    waiting = [job for job in study.jobs if not is_done(study, job)]  # raises before any run starts
    study.root.mkdir(parents=True, exist_ok=True)
    with (study.root / '.running').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the lock ends with the process
        except OSError:
            raise StudyError(f'{study.root}: this study is running already; wait for it') from None
        for job in waiting:
            # The study's own records decide which steps are done; Snakemake would skip a step with a marker.
            (study.root / job.marker).unlink(missing_ok=True)
        if profile:
            where = ['--profile', profile, *(['--jobs', str(jobs)] if jobs else [])]
        else:
            where = ['--cores', str(jobs or len(devices()))]
            where += ['--resources', f'gpu={len(gpus)}'] if gpus else []
        code = carry_out([entry(study, job) for job in study.jobs], study.root, [*where, *further])
    recorded = record(study)
    failed = print_failures(study, recorded)
    print_left_out(study)
    print(f'recorded in {study.results_file}')
    print(f'page: python tools/report.py {study.root}/*/seed* --out {study.root}/report')
    return 1 if code or failed else 0


def carry_out(plan: Sequence[dict[str, Any]], folder: Path, options: Sequence[str]) -> int:
    """Hand jobs to Snakemake; returns its exit code.

    Args:
        plan: Jobs from `entry`.
        folder: Folder in which Snakemake runs; the markers of the jobs are relative to it.
        options: Options of Snakemake: where the jobs run, and how many.
    """
    file = folder / 'plan.json'
    file.write_text(json.dumps(plan, indent=1))
    command = [sys.executable, '-m', 'snakemake', '--snakefile', str(SNAKEFILE)]
    command += ['--directory', str(folder), '--config', f'plan={file.resolve()}']
    command += ['--keep-going', '--rerun-incomplete', '--rerun-triggers', 'mtime', '--nolock']
    if '--dry-run' not in options:
        command += ['--quiet', 'all']  # each step prints its own progress
    return subprocess.run([*command, *options], check=False, env=environment()).returncode


def environment() -> dict[str, str]:
    """Return the environment of Snakemake, in which commands of a profile find this Python and the tools."""
    return os.environ | dict(PATH=f'{Path(sys.executable).parent}:{TOOL.parent}:{os.environ.get("PATH", "")}')


def print_failures(study: Study, recorded: dict[str, Any]) -> bool:
    """Print the runs that failed or could not start; returns whether any did, except trials of a rate."""
    any_failed = False
    for folder in dict.fromkeys(job.folder for job in study.jobs):
        result = recorded.get(folder, {})
        if result.get('status') == 'failed':
            left_out = ' (left out of the choice of a learning rate)' if result.get('left_out') else ''
            log = study.root / folder / 'log.txt'
            print(f'failed{left_out}: {folder}: {result["reason"]}; log in {log}', file=sys.stderr)
        elif result.get('status') == 'not run':
            print(f'not run: {folder}: {result["reason"]}', file=sys.stderr)
        else:
            continue
        any_failed |= not result.get('left_out')
    return any_failed


def entry(study: Study, job: Job) -> dict[str, Any]:
    """Return Snakemake's entry for a job."""
    seconds = seconds_of(study, job)
    callback = [sys.executable, str(TOOL), str(study.file), '--job', job.name]
    callback += ['--gpus', str(job.gpus)]
    return dict(
        name=job.name,
        needs=[study.job(name).marker for name in job.needs],
        marker=job.marker,
        priority=len(study.jobs) - study.jobs.index(job),  # in the order of the file
        gpu=gpus_of(job, len(gpus_here())),
        # Twice the estimate; a day without an estimate.
        minutes=24 * 60 if seconds is None else max(30, round(2 * seconds / 60)),
        command=f'cd {shlex.quote(str(Path.cwd()))} && {shlex.join(callback)}',
    )
