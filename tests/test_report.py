"""tools/report.py: the table of tested runs, and what it refuses."""

import json

import pytest

from projects.xray.report.results import format_table, load_results
from tools.report import main

DETECTION = {'xray/AP': 0.21, 'xray/AP50': 0.5123, 'xray/AP50_critical': 0.6, 'xray/AP50_minor': float('nan')}


def write_run(root, name, metrics, **changes):
    run = root / name
    run.mkdir()
    result = dict(
        config=f'configs/{name}.py',
        checkpoint='epoch_1.pth',
        metrics=metrics,
        commit='0123456789abcdef',
        dirty=False,
        seed=0,
        hardware='2 cores',
        date='2024-04-01T10:00:00',
    )
    result.update(changes)
    (run / 'test.json').write_text(json.dumps({k: v for k, v in result.items() if v != 'absent'}))
    return str(run)


def test_tables_by_task_with_provenance(tmp_path, capsys):
    runs = [
        write_run(tmp_path, 'detector', DETECTION),
        write_run(tmp_path, 'probe', {'xray/mAP': 0.75, 'xray/balanced_accuracy': 0.5}, dirty=True),
    ]
    assert main(runs + ['--out', str(tmp_path / 'out')]) == 0
    printed = capsys.readouterr().out
    assert printed.index('Detection') < printed.index('Linear probe')
    detector = next(line for line in printed.splitlines() if line.startswith('detector'))
    assert detector.split() == ['detector', '0.512', '0.600', '–', '0.210']
    assert 'commit 0123456789ab, 0123456789ab+ · seed 0 · 2 cores · 2024-04-01' in printed
    kept = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert [r['run'] for r in kept] == ['detector', 'probe']
    assert '| detector | 0.512 |' in (tmp_path / 'out' / 'results.md').read_text()


@pytest.mark.parametrize(
    'broken, reason',
    [
        (dict(commit='absent'), 'lacks commit'),
        (dict(metrics={}), 'no measures'),
        (dict(metrics={'xray/AP50': float('inf')}), 'not finite: AP50'),
    ],
)
def test_a_bad_run_is_named_and_the_rest_stays(tmp_path, capsys, broken, reason):
    good = write_run(tmp_path, 'good', DETECTION)
    bad = write_run(tmp_path, 'bad', **{'metrics': DETECTION, **broken})
    assert main([good, bad]) == 1
    captured = capsys.readouterr()
    assert 'left out' in captured.err and 'bad' in captured.err and reason in captured.err
    assert any(line.startswith('good') for line in captured.out.splitlines())


def test_missing_and_half_written_files(tmp_path):
    half = tmp_path / 'half'
    half.mkdir()
    (half / 'test.json').write_text('{"config": "configs/a.py", "metr')
    results, refused = load_results([tmp_path / 'absent', half])
    assert results == []
    assert 'absent/test.json: not found; run tools/test.py' in refused[0]
    assert 'half/test.json: not readable as JSON' in refused[1]
    assert main([str(half)]) == 1


def test_unknown_measures_are_refused(tmp_path, capsys):
    assert main([write_run(tmp_path, 'odd', {'other': 1.0})]) == 1
    assert 'odd: expected a measure named AP50 or mAP' in capsys.readouterr().err


def test_columns_line_up():
    plain = format_table(['run', 'AP50'], [['short', '0.1'], ['a longer name', '0.123']]).splitlines()
    assert len({len(line) for line in plain}) == 1
    markdown = format_table(['run', 'AP50'], [['short', '0.1']], markdown=True).splitlines()
    assert len({line.count('|') for line in markdown}) == 1
