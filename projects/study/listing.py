"""The list of a study's steps, with estimated times."""

from .devices import gpus_here
from .plan import Study
from .schedule import clock, seconds_of, stated_hours, wall_seconds
from .state import is_done


def show(study: Study, side_by_side: int) -> None:
    """Print the steps of a study, and their estimated time with `side_by_side` runs at once."""
    print(f'{study.name}: {study.about}')
    known, unknown, stated = {}, 0, []
    for job in study.jobs:
        done = is_done(study, job)
        failed = (study.root / job.folder / 'failed.json').is_file()
        seconds = None if done else seconds_of(study, job)
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
            hours = stated_hours(study, job) if seconds is None else None
            stated += [hours] if hours else []
            known[job.name] = seconds or 0
            unknown += seconds is None and hours is None
    times = ['time unknown' if unknown else 'all are done']
    timed = len(known) - unknown - len(stated)
    if timed:
        gpus = len(gpus_here())
        wall = clock(wall_seconds(study, known, side_by_side, gpus))
        times = [f'about {clock(sum(known.values()))} one by one', f'{wall} with {side_by_side} side by side']
        times += [f'and {unknown} of unknown time'] if unknown else []
    if study.jobs:
        print(f'{len(known)} of {len(study.jobs)} steps to run: {", ".join(times)}')
    else:
        print('no step to run: each arm waits for its file')
    if stated:
        gpus = study.settings['gpus']
        print(
            f'as {study.file} states: {len(stated)} trainings of about {clock(3600 * sum(stated))} one by one'
            + (f' on {gpus} GPUs, {round(gpus * sum(stated))} GPU hours' if gpus else '')
        )
    print_left_out(study)


def print_left_out(study: Study) -> None:
    """Print the arms that wait for a file."""
    for config, file in study.left_out.items():
        print(f'left out: {config}: needs {file}, which is not there')
