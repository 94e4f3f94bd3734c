"""Read the `test.json` of tested runs and format their measures as tables."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

Table = tuple[str, list[str], list[list[str]]]

# Columns in their order in a table; a run shows the columns that it has.
COLUMNS = {
    'Detection': ('AP50', 'AP50_critical', 'AP50_minor', 'AP', 'segm_AP50', 'segm_AP'),
    'Linear probe': ('mAP', 'AP_critical', 'AP_minor', 'accuracy', 'balanced_accuracy'),
}
WITHOUT = ('AP50_without_', 'AP_without_')  # prefixes of measures without some series
REQUIRED = ('config', 'checkpoint', 'metrics', 'commit', 'seed', 'hardware', 'date')


def load_results(runs: Sequence[Path]) -> tuple[list[dict], list[str]]:
    """Read `test.json` of each run folder.

    Args:
        runs: Work dirs, or `test.json` files themselves.

    Returns:
        The results, and one line for every run that was left out: its file is missing or damaged, lacks a
        field, or has a measure that is not finite.
    """
    results, refused = [], []
    for run in runs:
        file = run if run.suffix == '.json' else run / 'test.json'
        try:
            result = json.loads(file.read_text())
        except FileNotFoundError:
            refused.append(f'{file}: not found; run tools/test.py on this run first')
            continue
        except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            refused.append(f'{file}: not readable as JSON ({error}); run tools/test.py again')
            continue
        missing = [key for key in REQUIRED if not isinstance(result, dict) or key not in result]
        if missing:
            refused.append(f'{file}: lacks {", ".join(missing)}; run tools/test.py again')
            continue
        metrics = {key.removeprefix('xray/'): value for key, value in result['metrics'].items()}
        broken = [k for k, v in metrics.items() if isinstance(v, float) and math.isinf(v)]
        if not metrics or broken:
            refused.append(f'{file}: {"no measures" if not metrics else "not finite: " + ", ".join(broken)}')
            continue
        results.append({**result, 'metrics': metrics})
    return results, refused


def tables(results: Sequence[dict]) -> list[Table]:
    """Group results by task.

    Args:
        results: Results from `runs.read_runs`, which refuses a run without a measure of a task; each has its
            name in `run`.

    Returns:
        Title, header and rows of each table.
    """
    parts = []
    for task in COLUMNS:
        members = [result for result in results if COLUMNS[task][0] in result['metrics']]
        columns = [c for c in COLUMNS[task] if any(c in m['metrics'] for m in members)]
        columns += sorted({key for m in members for key in m['metrics'] if key.startswith(WITHOUT)})
        if members:
            rows = [[m['run'], *(_number(m['metrics'].get(c)) for c in columns)] for m in members]
            parts.append((task, ['run', *columns], rows))
    return parts


def _number(value: float | None) -> str:
    return '–' if value is None or math.isnan(value) else f'{value:.3f}'


def format_table(header: list[str], rows: list[list[str]], markdown: bool = False) -> str:
    """Format a table as aligned plain text or as Markdown."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    line = '| {} |' if markdown else '{}'
    glue = ' | ' if markdown else '  '

    def join(row):
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]
        return line.format(glue.join(cells))

    rule = ['-' * w if i == 0 else '-' * (w - 1) + ':' for i, w in enumerate(widths)]
    rule = '|' + '|'.join(f' {r} ' for r in rule) + '|' if markdown else '-' * len(join(header))
    return '\n'.join([join(header), rule, *(join(row) for row in rows)])


def name_commit(record: Mapping, digits: int = 12, changed: str = '+') -> str:
    """Name the commit of a test or of a training's start, with a mark if files differed from the commit."""
    return str(record['commit'])[:digits] + (changed if record.get('dirty') else '')


def trained_and_tested(trained: Sequence[str], tested: str) -> str:
    """Return commit or machine of a run's training, start by start, and of its test if it differs.

    Args:
        trained: Commit or machine of each start; [] if not recorded.
        tested: Commit or machine of the test; '' for a pretraining, which has no test.
    """
    names = ' then '.join(dict.fromkeys(trained))
    if not names or not tested:
        return names or tested
    return tested if names == tested else f'{names} (tested: {tested})'


def provenance(results: Sequence[Mapping]) -> str:
    """Return one line with commit, seed, machine and date of the results."""

    def spread(key):
        return ', '.join(sorted({str(result[key]) for result in results}))

    commits = ', '.join(sorted({name_commit(r) for r in results}))
    dates = sorted(str(r['date'])[:10] for r in results)
    days = dates[0] if dates[0] == dates[-1] else f'{dates[0]} to {dates[-1]}'
    return f'commit {commits} · seed {spread("seed")} · {spread("hardware")} · {days}'
