"""tools/report.py: tables, the verdict with its interval, and what is refused with its reason."""

import csv
import json
import shutil

import pytest
from drawn_runs import STEM, arm_token, draw_run, draw_study, draw_truth

from projects.xray.report.evidence import Settings, gather, verdict
from projects.xray.report.paper import table_3
from projects.xray.report.predictions import PredictionsError, read_predictions
from projects.xray.report.results import format_table, load_results
from projects.xray.report.runs import parse_stem, read_curves, read_runs
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


# ------------------------------------------------------------------------------- the tables of the terminal


def test_tables_by_task_with_provenance(tmp_path, capsys):
    runs = [
        write_run(tmp_path, 'detector', DETECTION),
        write_run(tmp_path, 'probe', {'xray/mAP': 0.75, 'xray/balanced_accuracy': 0.5}, dirty=True),
    ]
    assert main(runs) == 0
    printed = capsys.readouterr().out
    assert printed.index('Detection') < printed.index('Linear probe')
    detector = next(line for line in printed.splitlines() if line.startswith('detector'))
    assert detector.split() == ['detector', '0.512', '0.600', '–', '0.210']
    assert 'commit 0123456789ab, 0123456789ab+ · seed 0 · 2 cores · 2024-04-01' in printed


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


@pytest.mark.parametrize(
    'option', [['--max-escape', '1'], ['--pixel-pitch', '0'], ['--gallery', '-1'], ['--latency', 'x.md']]
)
def test_wrong_use_exits_2(option, capsys):
    with pytest.raises(SystemExit) as caught:
        main(['run', *option])
    assert caught.value.code == 2
    assert option[0] in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- the whole report


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    """Folders of two arms with two seeds, the pretrained one clearly better."""
    return draw_study(tmp_path_factory.mktemp('study'), {'scratch': 0.25, 'simsiam': 0.9})


@pytest.fixture(scope='module')
def written(drawn):
    out = drawn[0].parents[2] / 'out'
    latency = drawn[0].parents[2] / 'latency.md'
    latency.write_text('said first\n| variant | ms p50 |\n|---|---:|\n| exported | 126 |\nsaid last\n')
    options = ['--gallery', '10', '--max-escape', '0.2', '--latency', str(latency)]
    assert main([*map(str, drawn), '--out', str(out), *options]) == 0
    return out


def test_the_printed_latency_is_shown(written):
    assert (written / 'latency.csv').read_text().splitlines() == ['variant,ms p50', 'exported,126']


def test_the_verdict_names_arms_difference_interval_and_escapes(written):
    said = json.loads((written / 'report.json').read_text())
    answer, escapes = said['verdict']
    assert 'simsiam reaches AP50' in answer and 'bootstrap over 20 parts' in answer
    (contrast,) = [c for c in said['comparisons'] if c['measure'] == 'AP50']
    parts = contrast['parts']
    assert 0 < parts['low'] < parts['difference'] < parts['high'] and parts['verdict'] == 'candidate higher'
    assert f'{parts["low"]:+.3f} to {parts["high"]:+.3f}' in answer and 'simsiam is better' in answer
    arms = {run['arm']: run for run in said['runs'] if run['seed'] == 0}
    for name, run in arms.items():
        critical = run['detection']['by_severity']['critical']
        assert f'{name} misses or misnames {run["detection"]["escapes"]} of {critical["defects"]}' in escapes
    assert 'threshold fixed on val at 0.5 false alarms an image' in escapes
    assert '<html' in (written / 'index.html').read_text()
    assert '| faster-rcnn' in (written / 'results.md').read_text()


def test_every_escape_and_false_alarm_is_in_the_table(written):
    said = json.loads((written / 'report.json').read_text())
    with (written / 'escapes_and_false_alarms.csv').open() as file:
        rows = list(csv.DictReader(file))
    escapes = [row for row in rows if row['kind'] in ('missed', 'called minor')]
    assert len(escapes) == sum(run['detection']['escapes'] for run in said['runs'])
    assert rows[: len(escapes)] == escapes  # they come first
    page = (written / 'index.html').read_text()
    items = json.loads(page.split('id="items">')[1].split('</script>')[0])
    assert len(items) == 10 and all(item['kind'] != 'false alarm' for item in items)
    assert {item['arm'] for item in items} == {'scratch', 'simsiam'}


def test_thresholds_come_from_val_alone(tmp_path):
    truth = draw_truth(tmp_path)
    run = draw_run(tmp_path, tmp_path / 'run', truth)
    (group,) = gather(read_runs([run])[0], Settings(resamples=5))
    before = group.arms[0].members[0].threshold
    said = json.loads((run / 'predictions_val.json').read_text())
    for detection in said['detections']:
        detection['score'] /= 2
    (run / 'predictions_val.json').write_text(json.dumps(said))
    (group,) = gather(read_runs([run])[0], Settings(resamples=5))
    assert group.arms[0].members[0].threshold == pytest.approx(before / 2) != 0
    (run / 'predictions_val.json').write_text('{"task": ')
    assert 'predictions_val.json: not readable as JSON' in read_runs([run])[1][0]
    (run / 'predictions_val.json').unlink()
    (group,) = gather(read_runs([run])[0], Settings(resamples=5))
    assert group.arms[0].members[0].fixed.startswith('fixed at 0.3: no predictions of val')


def test_one_arm_alone_gives_no_verdict(drawn):
    answer, _ = verdict(gather(read_runs(drawn[:1])[0], Settings(resamples=5)))
    assert answer.startswith('No two arms were tested on the same images')


def test_equal_arms_show_no_difference(tmp_path):
    truth = draw_truth(tmp_path)
    runs = [draw_run(tmp_path, tmp_path / init, truth, init, 0.5, seed=3) for init in ('scratch', 'simsiam')]
    answer, _ = verdict(gather(read_runs(runs)[0], Settings(resamples=50)))
    assert 'difference +0.000' in answer and 'no difference shown' in answer


def test_few_parts_get_an_exact_test(tmp_path):
    truth = draw_truth(tmp_path, parts=6, free=0)
    runs = [
        draw_run(tmp_path, tmp_path / init, truth, init, s)
        for init, s in (('scratch', 0.3), ('simsiam', 0.9))
    ]
    answer, _ = verdict(gather(read_runs(runs)[0], Settings(resamples=5)))
    assert 'exact sign-flip test over 6 parts' in answer and 'which cannot be below 0.0312' in answer


def test_the_paper_stands_beside_what_was_measured(drawn):
    table = table_3(gather(read_runs(drawn)[0], Settings(resamples=5)))
    rows = {tuple(row[:2]): row for row in table['rows']}
    assert rows['swin-base', 'simmim'][2:4] == ['91.3', 'not run here']
    assert rows['r50', 'simsiam'][4] == '94.8' and rows['r50', 'simsiam'][6] == '96.0'
    assert '±' in rows['r18-narrow (synthetic)', 'simsiam'][3]


@pytest.mark.parametrize(
    ('stem', 'expected'),
    [
        ('faster-rcnn_r50-in1k-simsiam-pre_fpn_4xb4-2x_industrial', ('industrial', 'r50', 'in1k-simsiam')),
        ('faster-rcnn_swin-base-scratch_fpn_4xb4-amp-6x_gdxray-b', ('gdxray-b', 'swin-base', 'scratch')),
        (
            'faster-rcnn_r18-narrow-simsiam-castings-pre_fpn_1xb4-12e_gdxray-b',
            ('gdxray-b', 'r18-narrow', 'simsiam-castings'),
        ),
        (
            'swin-base-simmim-pre_4xb64-linear-coslr-90e_industrial-384px',
            ('industrial', 'swin-base', 'simmim'),
        ),
        ('my_own_config', ('', '', 'my_own_config')),
    ],
)
def test_arms_are_read_from_names(stem, expected):
    named = parse_stem(stem)
    assert (named['dataset'], named['backbone'], named['init']) == expected


# ------------------------------------------------------------------------------------------------ bad runs


@pytest.fixture
def pair(tmp_path):
    """A good run, and another whose files may be spoilt."""
    truth = draw_truth(tmp_path, parts=4, free=0)
    good = draw_run(tmp_path, tmp_path / STEM.format(arm='scratch'), truth)
    return good, draw_run(tmp_path, tmp_path / STEM.format(arm=arm_token('simsiam')), truth, 'simsiam')


def edit(file, change):
    said = json.loads(file.read_text())
    change(said)
    file.write_text(json.dumps(said))


def no_boxes(said):
    said['detections'] = []


def nan_scores(said):
    said['detections'][3]['score'] = float('nan')


def fewer_detections(said):
    del said['detections'][::2]


def other_classes(said):
    said['classes'] = ['critical', 'harmless']
    said['truth']['categories'][1]['name'] = 'harmless'


def other_images(said):
    said['truth']['images'][0]['file_name'] = 'elsewhere.png'


def other_annotations(said):
    said['sha256'] = 'f' * 64


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (no_boxes, 'not one detection on 8 images'),
        (nan_scores, 'scores that are not finite; the run diverged'),
        (fewer_detections, 'its predictions give'),
        (other_images, 'was tested on other images than'),
        (other_annotations, 'another version of the annotations'),
        (lambda said: said.pop('window'), 'not of this version'),
    ],
)
def test_bad_predictions_leave_the_run_out_by_name(pair, change, reason):
    good, bad = pair
    edit(bad / 'predictions.json', change)
    runs, left_out = read_runs(pair)
    assert [run.folder for run in runs] == [good]
    (line,) = left_out
    assert bad.name in line and reason in line and '\n' not in line


def test_other_classes_leave_the_run_out(pair):
    edit(pair[1] / 'predictions.json', other_classes)
    edit(
        pair[1] / 'test.json',
        lambda r: r['metrics'].update({'xray/AP50_harmless': r['metrics']['xray/AP50_minor']}),
    )
    _, (line,) = read_runs(pair)
    assert "has the classes ['critical', 'harmless']" in line


def test_missing_and_cut_predictions_and_repeated_runs(pair, tmp_path):
    good, bad = pair
    text = (bad / 'predictions.json').read_text()
    (bad / 'predictions.json').write_text(text[: len(text) // 2])
    with pytest.raises(PredictionsError, match='predictions.json: not readable as JSON'):
        read_predictions(bad)
    (bad / 'predictions.json').unlink()
    copy = tmp_path / 'copy'
    shutil.copytree(good, copy)
    runs, left_out = read_runs([good, bad, copy])
    assert len(runs) == 1
    assert 'predictions.json: not found; run tools/test.py again' in left_out[0]
    assert f'copy: repeats {good}' in left_out[1]


def test_a_failed_run_is_named_and_pretraining_is_not_missed(pair, tmp_path):
    (pair[1] / 'failed.json').write_text(json.dumps(dict(step='train', reason='out of memory')))
    pretraining = tmp_path / 'simsiam_resnet18-narrow_1xb64-coslr-20e_synthetic-128px' / 'seed0-frac100'
    pretraining.mkdir(parents=True)
    runs, left_out = read_runs([*pair, pretraining])
    assert [run.folder for run in runs] == [pair[0]]
    (line,) = left_out
    assert pair[1].name in line and 'failed in a study (train: out of memory)' in line


def test_a_report_with_a_run_left_out_says_so_and_exits_1(pair, tmp_path, capsys):
    edit(pair[1] / 'predictions.json', no_boxes)
    assert main([*map(str, pair), '--out', str(tmp_path / 'out'), '--gallery', '0']) == 1
    assert 'left out: ' in capsys.readouterr().err
    assert 'Left out: ' in (tmp_path / 'out' / 'index.html').read_text()
    assert 'not one detection' in json.loads((tmp_path / 'out' / 'report.json').read_text())['left_out'][0]


def test_a_half_written_log_is_read_as_far_as_it_goes_and_named(pair):
    (file,) = pair[0].glob('*/vis_data/scalars.json')
    whole = read_curves(pair[0])
    assert whole.problems == []
    lines = file.read_text().splitlines()
    file.write_text('\n'.join([*lines[:-1], lines[-1][:9]]))
    cut = read_curves(pair[0])
    assert cut.train == whole.train and len(cut.val['AP50']) == len(whole.val['AP50']) - 1
    assert cut.problems == [f'{file}: line {len(lines)} is cut short or damaged, and left out']
    file.write_text(lines[0].replace('"loss": ', '"loss": NaN, "x": '))
    assert f'{file}: loss is not finite at step 11' in read_curves(pair[0]).problems


def test_a_resumed_run_continues_its_curves(pair):
    (file,) = pair[0].glob('*/vis_data/scalars.json')
    later = file.parents[2] / '20270101_000000' / 'vis_data' / 'scalars.json'
    later.parent.mkdir(parents=True)
    later.write_text(
        json.dumps({'xray/AP50': 0.9, 'step': 4}) + '\n' + json.dumps({'xray/AP50': 0.95, 'step': 5})
    )
    test = file.parents[2] / '20270102_000000' / 'vis_data' / 'scalars.json'
    test.parent.mkdir(parents=True)
    test.write_text(json.dumps({'xray/AP50': 0.3, 'step': 0}))
    val = read_curves(pair[0]).val['AP50']
    assert val[0][0] == 1 and val[-2:] == [(4, 0.9), (5, 0.95)]


def test_a_radiograph_that_is_gone_is_named_and_the_page_stands(pair, tmp_path):
    for file in (tmp_path / 'images').glob('*.png'):
        file.unlink()
    assert main([*map(str, pair), '--out', str(tmp_path / 'out'), '--gallery', '5']) == 0
    page = (tmp_path / 'out' / 'index.html').read_text()
    assert 'p000_v0.png' in page and 'No such file' in page
