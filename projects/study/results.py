"""The results of a study, run by run: `<study>.results.json` beside its file, and its tables in documents."""

import fcntl
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from projects.config import names
from projects.errors import MMXrayError
from projects.measures.comparison import summarise_seeds
from projects.radiograph.files import write_whole
from projects.report.results import format_table, name_commit, trained_and_tested
from projects.report.runs import name_arm
from projects.runs.digests import read_json, read_starts

from .folds import pool_folds
from .plan import Study
from .state import fingerprint

BEGIN, END = '<!-- results of studies: begin -->', '<!-- results of studies: end -->'
FACTS = (
    'config',
    'seed',
    'fraction',
    'epochs',
    'epochs_factor',
    'pretrain_epochs_factor',
    'lr_factor',
    'lr_on_val',
    'lr_failed',
    'pretraining',
    'left_out',
    'train_images',
    'subset_sha256',
    'labels_sha256',
    'pretrained_on',
    'tested_on',
    'fingerprint',
    'config_sha256',
    'seconds',
    'test_seconds',
)
# Fields whose difference separates two runs of one arm and share, and their names in a row.
PARTED = dict(
    config_sha256='config',
    pretrained_on='pretrained on',
    labels_sha256='trained on',
    subset_sha256='share',
    tested_on='tested on',
)
TESTED = ('metrics', 'val_metrics', 'commit', 'dirty', 'hardware', 'versions', 'date')
COLUMNS = {
    'AP50': 'AP50',
    'AP50_critical': 'AP50 critical',
    'AP50_minor': 'AP50 minor',
    'AP': 'AP',
    'recall_critical_at_0.5': 'critical recall at 0.5 FA/image',
    'recall_defect_at_0.5': 'recall at 0.5 FA/image',
    'AP50_without_C0055': 'AP50 without C0055',
    'mAP': 'mAP',
    'accuracy': 'accuracy',
    'balanced_accuracy': 'balanced accuracy',
}
POOLED = 'A row of all folds ranks the boxes of their tests together; it is not a mean over the folds.'
CHANGED = '+ after a commit: the code had changes, so that the commit alone does not repeat the run.'
SPREAD = (
    '± is the standard deviation over the seeds of the fine-tuning that a row lists. `pretrainings` counts '
    'the own pretrainings from which its runs start; with 1, the ± does not include the effect of another '
    'pretraining. A share of the labels is one draw, the same for all arms and seeds.'
)


class RecordError(MMXrayError, ValueError):
    """Records cannot be read, or a document lacks the marks around the tables; one line with the remedy."""


def record(study: Study) -> dict[str, dict]:
    """Record every tested, failed or blocked run of a study.

    Records from another machine stay, unless their config or their pretraining's config was edited since.

    Returns:
        The records by run.
    """
    file = study.results_file
    study.root.mkdir(parents=True, exist_ok=True)
    with (study.root / '.recording').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # runs finish side by side
        recorded = read_json(file).get('runs', {})
        now = {job.folder: fingerprint(study, job) for job in study.jobs if job.kind == 'train'}
        runs = {
            folder: entry
            for folder, entry in recorded.items()
            # Drop 'not run': a run that waited for a failed run may be able to run now.
            if entry['status'] != 'not run' and _is_of(entry, now.get(folder))
        }
        culprits = {}  # failed job or job that waits for it -> folder of the failed run
        for job in study.jobs:
            folder = study.root / job.folder
            facts, tested = read_json(folder / 'run.json'), read_json(folder / 'test.json')
            failed = read_json(folder / 'failed.json')
            entry = {key: facts[key] for key in FACTS if facts.get(key) is not None}
            # The labels are among the facts.
            starts = [
                {key: value for key, value in start.items() if key != 'labels_sha256'}
                for start in read_starts(folder)
            ]
            entry |= dict(starts=starts) if starts else {}
            culprit = next((culprits[name] for name in job.needs if name in culprits), None)
            if failed:
                runs[job.folder] = dict(
                    status='failed', step=failed['step'], reason=failed['reason'], **entry
                )
                if not facts.get('left_out'):
                    culprits[job.name] = job.folder
            elif job.kind == 'test' and tested and facts.get('tested'):
                measured = {key: tested[key] for key in TESTED if key in tested}
                runs[job.folder] = dict(status='tested', **entry, **measured)
            elif culprit:
                culprits[job.name] = culprit
                if not _is_tested(runs.get(job.folder)):
                    which = dict(config=job.config, seed=job.seed, fraction=job.fraction)
                    runs[job.folder] = dict(
                        status='not run', reason=f'needs {culprit}, which failed', **which
                    )
            elif job.kind == 'train' and facts.get('trained') and not _is_tested(runs.get(job.folder)):
                runs[job.folder] = dict(status='trained', **entry)
        runs = dict(sorted(runs.items()))
        pooled = pool_folds(study.root, runs, read_json(file).get('pooled', {}))
        whole = dict(study=study.name, about=study.about, runs=runs)
        text = json.dumps(whole | (dict(pooled=pooled) if pooled else {}), indent=1)
        # The file is committed: it must not contain paths of this machine.
        write_whole(file, text.replace(f'{Path.cwd()}/', '') + '\n')
    return runs


def _is_of(entry: dict, expected: str | None) -> bool:
    """Whether a record has the expected fingerprint; True if either is unknown."""
    return expected is None or entry.get('fingerprint', expected) == expected


def _is_tested(entry: dict | None) -> bool:
    return entry is not None and entry['status'] == 'tested'


def table_of(records: dict) -> tuple[list[str], list[list[str]]]:
    """Return a table of a study's tested runs: a row per arm and share of the labels, mean ± std over seeds.

    Runs of an arm are not averaged if their config was edited in between, or if they were trained or tested
    on different data. Each fold of a data set is a row, and all folds together are another row.
    """
    arms = {}
    for run in (*records['runs'].values(), *records.get('pooled', {}).values()):
        if run['status'] != 'tested':
            continue
        stem = Path(run['config']).stem
        named = names.summary(stem)
        arm = name_arm(named['init'], run)
        share = 0 if names.is_pretraining(stem) else run['fraction']  # a pretraining needs no labels
        key = (named['dataset'], named['backbone'], named['recipe'], share, arm)
        arms.setdefault(key, []).append(run)
    arms = {
        (dataset, backbone, ', '.join(part for part in (recipe, words) if part), fraction, arm): runs
        for (dataset, backbone, recipe, fraction, arm), members in arms.items()
        for words, runs in _parted(members).items()
    }
    values = [
        {key.removeprefix('xray/'): value for key, value in run['metrics'].items()}
        for runs in arms.values()
        for run in runs
    ]
    columns = [column for column in COLUMNS if any(v.get(column) is not None for v in values)]
    header = ['data', 'backbone', 'recipe', 'labels', 'arm', 'seeds', 'pretrainings']
    header += [*(COLUMNS[column] for column in columns), 'commit']
    rows = []
    for (dataset, backbone, recipe, fraction, arm), runs in sorted(arms.items()):
        seeds = ', '.join(str(seed) for seed in sorted(run['seed'] for run in runs))
        starts = {run['pretraining'] for run in runs if run.get('pretraining')}
        members = [records['runs'][fold] for run in runs for fold in run.get('folds', {})] or runs
        commits = ', '.join(sorted({_commits(run) for run in members}))
        cells = [_spread([run['metrics'].get(f'xray/{column}') for run in runs]) for column in columns]
        shown = [dataset, backbone, recipe, f'{fraction} %', arm, seeds, str(len(starts) or '–')]
        rows.append([*shown, *cells, commits])
    return header, rows


def _parted(runs: Sequence[dict]) -> dict[str, list[dict]]:
    """Separate runs by config and data, with a name if there are several; unknown ones join a single one."""
    parts = {'': list(runs)}
    for key, word in PARTED.items():
        finer = {}
        for words, members in parts.items():
            digests = [_digest_of(run.get(key)) for run in members]
            several = len({digest for digest in digests if digest}) > 1
            for run, digest in zip(members, digests):
                note = f'{word} {(digest or "unknown")[:7]}' if several else ''
                finer.setdefault(', '.join(part for part in (words, note) if part), []).append(run)
        parts = finer
    return parts


def _digest_of(recorded: str | dict[str, str] | None) -> str | None:
    """Return one digest of a record: that of a single file, or one over several; None without a record."""
    if not recorded or isinstance(recorded, str):
        return recorded or None
    digests = sorted(recorded.values())
    return digests[0] if len(digests) == 1 else hashlib.sha256(' '.join(digests).encode()).hexdigest()


def _commits(run: dict) -> str:
    return trained_and_tested([name_commit(start, 7) for start in run.get('starts', [])], name_commit(run, 7))


def _spread(values: Sequence[float | None]) -> str:
    values = [value for value in values if value is not None]
    if not values:
        return '–'
    seeds = summarise_seeds(values)
    return f'{seeds.mean:.3f}' + ('' if seeds.std is None else f' ± {seeds.std:.3f}')


def write_readme(readme: Path, files: Sequence[Path]) -> int:
    """Write the tables of studies between the marks of a document.

    Raises:
        RecordError: The README lacks the marks, or no study has records.
    """
    text = readme.read_text() if readme.is_file() else ''
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise RecordError(f'{readme}: expected one line {BEGIN} and one {END} after it; write them')
    parts = []
    for file in files:
        records = read_json(file.with_suffix('.results.json'))
        if not records.get('runs'):
            continue
        header, rows = table_of(records)
        runs = [entry for run in records['runs'].values() for entry in (run, *run.get('starts', []))]
        hardware = sorted({entry['hardware'] for entry in runs if 'hardware' in entry})
        dates = sorted(run['date'][:10] for run in records['runs'].values() if 'date' in run)
        origin = f'`make study STUDY={file}`'
        if dates:
            origin += f'; {", ".join(hardware)}; {dates[0]} to {dates[-1]}'
        failed = [name for name, run in records['runs'].items() if run['status'] == 'failed']
        origin += f'; failed: {", ".join(failed)}' if failed else ''
        blocked = [
            f'{name} ({run["reason"]})' for name, run in records['runs'].items() if run['status'] == 'not run'
        ]
        origin += f'; not run: {", ".join(blocked)}' if blocked else ''
        table = 'No run has been tested yet.'
        if rows:
            pooled, changed = records.get('pooled'), any('+' in commits for *_, commits in rows)
            words = [SPREAD, *([POOLED] if pooled else []), *([CHANGED] if changed else [])]
            table = f'{format_table(header, rows, markdown=True)}\n\n{" ".join(words)}'
        parts.append(f'**{records["about"] or records["study"]}**\n\n{table}\n\n{origin}')
    if not parts:
        raise RecordError(
            f'{", ".join(map(str, files))}: no results.json beside any of them; run a study first'
        )
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    readme.write_text(text[:start] + '\n' + '\n\n'.join(parts) + '\n' + text[end:])
    print(f'written: {readme}')
    return 0
