"""The steps of `make own`, from configs to a report and an exported folder; a restart continues them."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from projects.config.names import parse
from projects.line.runtime import folder as line_folder
from projects.report.runs import read_curves
from projects.runs.digests import read_json
from projects.study.plan import ROOT, read_study

from .facts import SPLITS, ExperimentError
from .fragments import Experiment

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@dataclass
class Step:
    """A step of `make own`.

    Attributes:
        title: A few words about the step.
        example: The command as a user types it, with the baseline's run as long as the best run is not known.
        command: The tool and its arguments, known once the earlier steps are done.
        done: Whether the step has run on the present files.
    """

    title: str
    example: str
    command: Callable[[], list[str]]
    done: Callable[[], bool] = lambda: False


def steps(experiment: Experiment, root: Path) -> list[Step]:
    """Return the steps in their order.

    Args:
        experiment: The experiment.
        root: Root of its data.
    """
    study = ROOT / experiment.study.stem
    baseline = experiment.path(experiment.detectors[0])
    first = study / baseline.stem / 'seed0-frac100' / f'epoch_{parse(baseline.stem).epochs}.pth'
    checked = Path('work_dirs') / baseline.stem / 'dataset.json'
    exported, report = study / 'exported', study / 'report'
    tested = line_folder.tested_beside(exported) / 'test.json'

    def best() -> Path:
        return best_run(experiment)

    def is_exported() -> bool:
        checkpoint = last_checkpoint(best())
        if exported.is_dir() and exported.stat().st_mtime < checkpoint.stat().st_mtime:
            shutil.rmtree(exported)  # older than the newly trained weights
        return exported.is_dir()

    def runs() -> list[str]:
        return sorted(str(path) for path in study.glob('*/seed*'))

    annotations = [root / f'{split}.json' for split in SPLITS]
    return [
        Step(
            'check the data set',
            f'python tools/check_dataset.py {baseline}',
            lambda: ['check_dataset', str(baseline)],
            lambda: (
                _newer(checked, [*annotations, *experiment.folder.rglob('*.py')]) and not _errors(checked)
            ),
        ),
        Step(
            'pretrain, fine-tune, test: the study',
            f'python tools/study.py {experiment.study}',
            lambda: ['study', str(experiment.study)],
        ),
        Step(
            'export the better one on val',
            f'python tools/export.py {baseline} {first} {exported}',
            lambda: [
                'export',
                str(_config_of(experiment, best())),
                str(last_checkpoint(best())),
                str(exported),
            ],
            is_exported,
        ),
        Step(
            'test what runs on the line',
            f'python tools/test.py {exported} {root}/test.json',
            lambda: ['test', str(exported), str(root / 'test.json')],
            lambda: _newer(tested, [exported, root / 'test.json']),
        ),
        Step(
            'report',
            f'python tools/report.py {study}/*/seed* --exported {exported} --out {report}',
            lambda: ['report', *runs(), '--exported', str(exported), '--out', str(report)],
        ),
    ]


def run(experiment: Experiment, root: Path) -> int:
    """Run the unfinished steps; returns the exit code of the step that failed, or 0."""
    todo = steps(experiment, root)
    for number, step in enumerate(todo, 1):
        if step.done():
            print(f'[{number}/{len(todo)}] {step.title}: done before', flush=True)
            continue
        command = step.command()
        print(f'[{number}/{len(todo)}] {step.title}: {shown(command)}', flush=True)
        code = start(command)
        if code:
            print(
                f'error: {step.title}: ended with {code}, see its lines above; repeat the command to go on',
                file=sys.stderr,
            )
            return code
    study = ROOT / experiment.study.stem
    print(f'report: {study / "report/index.html"}\nfor the line: {study / "exported"}')
    print(f'inspect: make inspect MODEL={study / "exported"}')
    return 0


def start(command: Sequence[str]) -> int:
    """Run a tool with its arguments in a separate process; returns its exit code."""
    call = [sys.executable, str(TOOLS / f'{command[0]}.py'), *command[1:]]
    return subprocess.run(call, check=False).returncode


def shown(command: Sequence[str]) -> str:
    """Return a command as a user would type it, with a study's runs as a pattern."""
    arguments = list(command[1:])
    if command[0] == 'report':
        study = Path(arguments[0]).parents[1]
        rest = [a for a in arguments if not Path(a).name.startswith('seed')]
        return f'python tools/report.py {study}/*/seed* {shlex.join(rest)}'
    return f'python tools/{command[0]}.py {shlex.join(arguments)}'


def best_run(experiment: Experiment) -> Path:
    """Return the study's run with the best last AP50 on val.

    Raises:
        ExperimentError: No run is tested.
    """
    study = read_study(experiment.study)
    values = {}
    for job in study.jobs:
        folder = study.root / job.folder
        if job.kind == 'test' and read_json(folder / 'run.json').get('tested'):
            curve = read_curves(folder).val.get('AP50') or [(0, 0.0)]
            values[folder] = curve[-1][1]
    if not values:
        raise ExperimentError(f'{study.root}: expected a tested run; run the study {experiment.study} first')
    return max(values, key=lambda folder: values[folder])


def last_checkpoint(run: Path) -> Path:
    """Return the checkpoint at the end of a run's training."""
    return run / f'epoch_{read_json(run / "run.json").get("epochs")}.pth'


def _config_of(experiment: Experiment, run: Path) -> Path:
    return experiment.path(run.parent.name)


def _newer(file: Path, sources: Sequence[Path]) -> bool:
    if not file.is_file():
        return False
    return all(s.stat().st_mtime <= file.stat().st_mtime for s in sources if s.exists())


def _errors(file: Path) -> bool:
    return any(finding['level'] == 'error' for finding in read_json(file).get('findings', []))
