"""tools/report.py: tables, the verdict with its interval, and what is refused with its reason."""

import csv
import dataclasses
import hashlib
import json
import math
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.drawn_runs import (
    PRETRAINING,
    STEM,
    arm_token,
    draw_pretraining,
    draw_probe,
    draw_run,
    draw_study,
    draw_truth,
    draw_val,
)

from projects.measures.parts import floored
from projects.report import proof
from projects.report.charts import charts_of
from projects.report.compare import correct, gather
from projects.report.measured import Settings
from projects.report.page import write_report
from projects.report.paper import table_2, table_3
from projects.report.predictions import PredictionsError, read_predictions
from projects.report.results import format_table, load_results
from projects.report.runs import read_curves, read_runs
from projects.report.verdict import describe, verdict
from projects.runs.population import describe_population, digest_images
from tools.report import main


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    """Folders of two arms with two seeds, the pretrained one clearly better."""
    return draw_study(tmp_path_factory.mktemp('study'), {'scratch': 0.25, 'simsiam': 0.9})


@pytest.fixture
def probes(tmp_path):
    truth = draw_truth(tmp_path, free=0)
    # an image without a critical box is a minor one
    truth['annotations'] = [a for a in truth['annotations'] if a['category_id'] == 2 or a['image_id'] % 4 < 2]
    skills = {'scratch': 0.1, 'simsiam': 0.8}
    return [draw_probe(tmp_path, tmp_path / init, truth, init, skill) for init, skill in skills.items()]


@pytest.fixture
def pair(tmp_path):
    """A good run, and another whose files may be spoilt."""
    truth = draw_truth(tmp_path, parts=4, free=0)
    good = draw_run(tmp_path, tmp_path / STEM.format(arm='scratch'), truth)
    return good, draw_run(tmp_path, tmp_path / STEM.format(arm=arm_token('simsiam')), truth, 'simsiam')


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


# ------------------------------------------------------------------------------- the tables of the terminal


def test_tables_by_task_with_provenance(pair, probes, capsys):
    edit(probes[0] / 'test.json', lambda content: content.update(dirty=True))
    assert main([str(pair[0]), str(probes[0])]) == 0
    printed = capsys.readouterr().out
    assert printed.index('Detection') < printed.index('Linear probe')
    row = next(line for line in printed.splitlines() if line.startswith('faster-rcnn')).split()
    metrics = json.loads((pair[0] / 'test.json').read_text())['metrics']
    names = [f'xray/{name}' for name in ('AP50', 'AP50_critical', 'AP50_minor', 'AP')]
    assert row == [pair[0].name, *(f'{metrics[name]:.3f}' for name in names)]
    assert 'commit 0123456789ab, 0123456789ab+ · seed 0 · 2 x CPU · 2026-01-02' in printed


@pytest.mark.parametrize(
    ('broken', 'reason'),
    [
        (lambda content: content.pop('commit'), 'lacks commit'),
        (lambda content: content.update(metrics={}), 'no measures'),
        (lambda content: content['metrics'].update({'xray/AP50': math.inf}), 'not finite: AP50'),
        (lambda content: content.update(metrics={'other': 1.0}), 'says AP50 None, its predictions give'),
    ],
)
def test_a_bad_run_is_named_and_the_rest_stays(pair, capsys, broken, reason):
    good, bad = pair
    edit(bad / 'test.json', broken)
    assert main([*map(str, pair)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith('left out: ') and bad.name in captured.err and reason in captured.err
    assert good.name in captured.out and bad.name not in captured.out


def test_runs_on_other_images_do_not_stand_in_one_table(pair, capsys):
    good, bad = pair
    edit(bad / 'predictions.json', other_images)
    assert main([*map(str, pair)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f'left out: {bad}: was tested on other images than ')
    assert good.name in captured.out and bad.name not in captured.out


def test_rows_are_told_apart(drawn, tmp_path, capsys):
    assert main([str(drawn[0]), str(drawn[2])]) == 0  # both in a folder seed0-frac100
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith('faster')]
    assert rows == [f'{STEM.format(arm=arm_token(init))}/seed0-frac100' for init in ('scratch', 'simsiam')]
    truth, stem = draw_truth(tmp_path, parts=4), STEM.format(arm='scratch')
    seeds = [draw_run(tmp_path, tmp_path / f'seed{seed}' / stem, truth, seed=seed) for seed in (0, 1)]
    assert main([*map(str, seeds)]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[4:6]] == [*map(str, seeds)]


def test_series_that_were_left_out_are_shown_whichever_they_are(pair, capsys):
    edit(
        pair[0] / 'test.json',
        lambda content: content['metrics'].update({'xray/AP50_without_C0021-C0030': 0.4321}),
    )
    assert main([str(pair[0])]) == 0
    header, _, row = capsys.readouterr().out.splitlines()[2:5]
    assert header.split()[-1] == 'AP50_without_C0021-C0030' and row.split()[-1] == '0.432'


def test_missing_and_half_written_files(tmp_path):
    half = tmp_path / 'half'
    half.mkdir()
    (half / 'test.json').write_text('{"config": "configs/a.py", "metr')
    results, refused = load_results([tmp_path / 'absent', half])
    assert results == []
    assert 'absent/test.json: not found; run tools/test.py' in refused[0]
    assert 'half/test.json: not readable as JSON' in refused[1]
    assert main([str(half)]) == 1


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
def written(drawn):
    out = drawn[0].parents[2] / 'out'
    latency = drawn[0].parents[2] / 'latency.md'
    latency.write_text('said first\n| variant | ms p50 |\n|---|---:|\n| exported | 126 |\nsaid last\n')
    options = ['--gallery', '10', '--max-escape', '0.2', '--latency', str(latency)]
    assert main([*map(str, drawn), '--out', str(out), *options]) == 0
    return out


@pytest.mark.slow
def test_the_printed_latency_is_shown(written):
    assert (written / 'latency.csv').read_text().splitlines() == ['variant,ms p50', 'exported,126']


def test_the_verdict_names_arms_difference_interval_and_escapes(written):
    content = json.loads((written / 'report.json').read_text())
    answer, escapes = content['verdict']
    assert 'simsiam reaches AP50' in answer
    assert 'arm-swap test over 18 parts; 95 % interval' in answer  # two parts have no defect
    (contrast,) = [c for c in content['comparisons'] if c['measure'] == 'AP50']
    parts = contrast['parts']
    assert 0 < parts['low'] < parts['difference'] < parts['high'] and parts['verdict'] == 'candidate higher'
    assert f'{parts["low"]:+.3f} to {parts["high"]:+.3f}' in answer and 'simsiam is better' in answer
    for name in ('scratch', 'simsiam'):
        seeds = [run['detection'] for run in content['runs'] if run['arm'] == name]
        missed = [one['escapes'] for one in seeds]
        assert missed[0] != missed[1]
        words = f'{sum(missed) / 2:.1f} ({min(missed)} to {max(missed)} over 2 seeds)'
        defects = seeds[0]['by_severity']['critical']['defects']
        assert f'{name} misses or misnames {words} of {defects} critical boxes' in escapes
    assert 'At the threshold fixed on val for an escape rate of 0.2, ' in escapes
    assert '<html' in (written / 'index.html').read_text()
    assert '| faster-rcnn' in (written / 'results.md').read_text()


def test_what_becomes_of_defects_is_counted_by_type_and_by_size(written):
    content = json.loads((written / 'report.json').read_text())
    for name, key in (('types', 'by_type'), ('sizes', 'by_size')):
        with (written / f'{name}.csv').open() as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            (run,) = [r for r in content['runs'] if (r['arm'], str(r['seed'])) == (row['arm'], row['seed'])]
            of = run['detection'][key]
            of = of[row['type']] if name == 'types' else of[row['class']][row["COCO's size"]]
            counted = [int(row[column]) for column in ('found', 'wrong severity', 'missed')]
            assert counted == [of['found'], of['wrong_severity'], of['missed']]
            assert sum(counted) == int(row['defects'])


def test_masks_have_their_own_precision_and_the_sizes_that_they_give(pair, tmp_path):
    def of_twice_the_size(record):
        for detection in record['detections']:
            area = 4 * detection['bbox'][2] * detection['bbox'][3]
            detection |= dict(segmentation=dict(size=[96, 96], counts=''), area=area)

    for run in pair:
        edit(run / 'predictions.json', of_twice_the_size)
        edit(run / 'test.json', lambda record: record['metrics'].update({'xray/segm_AP50': 0.4321}))
    out = tmp_path / 'report'
    assert main([*map(str, pair), '--out', str(out)]) == 0
    with (out / 'sizing.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert {row['class'] for row in rows} == {'critical', 'minor'}
    assert all(1.5 < float(row['median']) < 2.5 and int(row['flaws found']) > 0 for row in rows)
    with (out / 'arms.csv').open() as file:
        assert {row['segm_AP50'] for row in csv.DictReader(file)} == {'43.2'}


def test_a_measure_that_is_not_a_number_is_none_of_a_mean(pair, tmp_path):
    for run, value in zip(pair, (math.nan, 0.25), strict=True):
        edit(
            run / 'test.json',
            lambda content, value=value: content['metrics'].update({'xray/AP_small': value}),
        )
    assert main([*map(str, pair), '--out', str(tmp_path / 'out'), '--gallery', '0']) == 0
    with (tmp_path / 'out' / 'arms.csv').open() as file:
        assert {row['arm']: row['AP_small'] for row in csv.DictReader(file)} == dict(
            scratch='–', simsiam='25.0'
        )


def test_every_escape_and_false_alarm_is_in_the_table(written):
    content = json.loads((written / 'report.json').read_text())
    with (written / 'escapes_and_false_alarms.csv').open() as file:
        rows = list(csv.DictReader(file))
    escapes = [row for row in rows if row['kind'] in ('missed', 'called minor')]
    assert len(escapes) == sum(run['detection']['escapes'] for run in content['runs'])
    assert rows[: len(escapes)] == escapes  # they come first
    page = (written / 'index.html').read_text()
    items = json.loads(page.split('id="items">')[1].split('</script>')[0])
    assert len(items) == 10 and all(item['kind'] != 'false alarm' for item in items)
    assert {item['arm'] for item in items} == {'scratch', 'simsiam'}


def test_every_escape_has_its_picture_in_the_page_or_beside_it(written, drawn, tmp_path, capsys):
    page = (written / 'index.html').read_text()
    items, chunks, choices = (
        json.loads(page.split(f'id="{name}">')[1].split('</script>')[0])
        for name in ('items', 'chunks', 'choices')
    )
    beside = []
    for chunk in chunks:
        script = (written / chunk['file']).read_text()
        pictures = json.loads(script.removeprefix('addPictures(').removesuffix(');\n'))
        assert len(pictures) == chunk['pictures'] <= 200
        beside += pictures
    assert all(picture['image'] for picture in beside)
    with (written / 'escapes_and_false_alarms.csv').open() as file:
        escapes = [row for row in csv.DictReader(file) if row['kind'] != 'false alarm']
    assert sorted((p['arm'], str(p['seed']), p['file'], str(p['size'])) for p in [*items, *beside]) == sorted(
        (row['arm'], row['seed'], row['file'], str(round(float(row['size']), 1))) for row in escapes
    )
    assert choices['part'] == sorted({row['part'] for row in escapes})
    content = json.loads((written / 'report.json').read_text())
    assert content['pictures'] == dict(in_page=10, beside=len(beside))
    assert f'The other {len(beside)} escapes lie beside this page' in page

    # A second report in the same place leaves nothing of the first; none are drawn where none are asked for.
    out = tmp_path / 'out'
    shutil.copytree(written, out)
    assert main([*map(str, drawn[:1]), '--out', str(out), '--gallery', '3']) == 0
    (chunk,) = [file for file in (out / 'pictures').iterdir()]
    assert chunk.name not in {Path(other['file']).name for other in chunks}
    assert f'{out}/pictures/: ' in capsys.readouterr().out
    assert main([*map(str, drawn[:1]), '--out', str(out), '--gallery', '0']) == 0
    assert not [*(out / 'pictures').iterdir()] and 'pictures/' not in capsys.readouterr().out


def test_escapes_and_false_rejects_over_the_threshold(proven, tmp_path):
    arms = [str(folder) for folder in proven[:2]]
    assert main([*arms, '--out', str(tmp_path), '--gallery', '0', '--max-escape', '0.2']) == 0
    runs = {run['arm']: run for run in json.loads((tmp_path / 'report.json').read_text())['runs']}
    with (tmp_path / 'parts_curve.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(run['part_curve']['thresholds']) for run in runs.values())
    page = (tmp_path / 'index.html').read_text()
    for arm, run in runs.items():
        mine = [row for row in rows if row['arm'] == arm]
        assert [float(row['threshold']) for row in mine] == run['part_curve']['thresholds']
        assert (mine[0]['threshold'], mine[-1]['threshold']) == ('0.0', '1.0')
        (point,) = [row for row in mine if row['operating point']]
        at = run['parts']['measures']
        assert float(point['threshold']) == run['parts']['threshold']
        assert float(point['escape rate at most']) == at['escape']['upper']
        assert int(point['escape']) == at['escape']['events'] and point['critical parts'] == '98'
        assert int(point['rejected']) == at['false_reject']['events'] and point['defect-free parts'] == '2'
        assert f'{arm} (seed {run["seed"]}): parts over the threshold' in page
        assert f'threshold of the table, {floored(run["parts"]["threshold"])}' in page


def test_parts_over_the_threshold_without_part_ids_or_good_parts(tmp_path):
    truth = draw_truth(tmp_path, parts=6, free=0)
    assert main([str(draw_run(tmp_path, tmp_path / 'run', truth)), '--out', str(tmp_path / 'out')]) == 0
    with (tmp_path / 'out' / 'parts_curve.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert {row['false-reject rate'] for row in rows} == {'not estimable'}
    assert (rows[-1]['threshold'], rows[-1]['escape rate']) == ('1.0', '1.0')
    page = (tmp_path / 'out' / 'index.html').read_text()
    assert 'false reject not estimable, as no part is of that kind' in page
    assert 'defect-free parts rejected' not in page

    for image in truth['images']:
        del image['part']
    assert main([str(draw_run(tmp_path, tmp_path / 'no-ids', truth)), '--out', str(tmp_path / 'out')]) == 0
    assert not (tmp_path / 'out' / 'parts_curve.csv').exists()
    assert json.loads((tmp_path / 'out' / 'report.json').read_text())['runs'][0]['part_curve'] is None
    assert 'over the threshold' not in (tmp_path / 'out' / 'index.html').read_text()


def test_thresholds_come_from_val_alone(tmp_path):
    truth = draw_truth(tmp_path)
    run = draw_run(tmp_path, tmp_path / 'run', truth)
    (group,) = gather(read_runs([run])[0], Settings(resamples=5))
    before = group.arms[0].members[0].threshold
    content = json.loads((run / 'predictions_val.json').read_text())
    for detection in content['detections']:
        detection['score'] /= 2
    (run / 'predictions_val.json').write_text(json.dumps(content))
    (group,) = gather(read_runs([run])[0], Settings(resamples=5))
    assert group.arms[0].members[0].threshold == pytest.approx(before / 2, abs=1e-4) != 0
    (run / 'predictions_val.json').write_text('{"task": ')
    assert 'predictions_val.json: not readable as JSON' in read_runs([run])[1][0]
    (run / 'predictions_val.json').unlink()
    (group,) = gather(read_runs([run])[0], Settings(resamples=5))
    assert group.arms[0].members[0].fixed.startswith('fixed at 0.3: ')


def test_pictures_of_one_seed_say_which(written, drawn):
    (group,) = gather(read_runs(drawn)[0], Settings(resamples=5))
    of_all = ('by share of the labels', 'loss', 'Val AP50', 'Training')
    charts = [chart['title'] for chart in charts_of(group, {}) if not chart['title'].startswith(of_all)]
    assert len(charts) > 3 and all(title.endswith(' (seed 0)') for title in charts)
    page = (written / 'index.html').read_text()
    assert '<figcaption>scratch (seed 0)</figcaption>' in page
    group.arms[1].members.reverse()
    assert all('(seed ' in chart['title'] for chart in charts_of(group, {}) if chart['title'] in charts)
    assert any(chart['title'].endswith(' (seed 0, 1)') for chart in charts_of(group, {}))


def test_one_arm_alone_gives_no_verdict(drawn):
    answer, _ = verdict(gather(read_runs(drawn[:1])[0], Settings(resamples=5)))
    assert answer.startswith('No arm has a baseline with the same images')


def test_equal_arms_show_no_difference(tmp_path):
    truth = draw_truth(tmp_path)
    runs = [draw_run(tmp_path, tmp_path / init, truth, init, 0.5, seed=3) for init in ('scratch', 'simsiam')]
    answer, _ = verdict(gather(read_runs(runs)[0], Settings(resamples=50)))
    assert 'difference +0.000' in answer and 'no difference shown' in answer


def test_what_few_parts_carry_gets_no_interval_of_many(tmp_path):
    truth = draw_truth(tmp_path)
    critical = [a for a in truth['annotations'] if a['category_id'] == 1]
    gone = {a['id'] for a in critical[4:]}
    truth['annotations'] = [a for a in truth['annotations'] if a['id'] not in gone]
    carrying = len({truth['images'][a['image_id'] - 1]['part'] for a in critical[:4]})
    runs = [draw_run(tmp_path, tmp_path / init, truth, init) for init in ('scratch', 'simsiam')]
    (group,) = gather(read_runs(runs)[0], Settings(resamples=50))
    ap50, recall = group.contrasts
    # A mean over classes depends on the rarest: it is known as well as from so many parts of one class.
    assert ap50.parts.units < 15 and ap50.parts.low is None
    assert (recall.parts.units, recall.parts.low) == (carrying, None)
    assert recall.parts.p_value >= recall.parts.smallest_p_value == 2.0 ** (1 - carrying)
    assert 'too few parts for an interval' in verdict([group])[0]


def pretrain(folder, weights):
    """Let a drawn run start from other weights."""
    (config,) = folder.glob('*.py')
    config.write_text(config.read_text().replace('elsewhere/epoch_20.pth', str(weights)))


def test_seeds_of_one_pretraining_are_said_to_be(tmp_path):
    runs = draw_study(tmp_path / 'one', {'scratch': 0.25, 'simsiam': 0.9})
    result = write_report(tmp_path / 'out', read_runs(runs)[0], [], Settings(resamples=50), 0)
    caveat = 'start from one pretraining; the effect of another pretraining is not in the interval'
    assert f'all seeds of simsiam {caveat}' in result['verdict'][0]
    assert all(c['pretrainings'] == dict(baseline=0, candidate=1) for c in result['comparisons'])
    starts = {run['arm']: run['pretraining'] for run in result['runs']}
    assert starts == {'scratch': None, 'simsiam': 'elsewhere/epoch_20.pth'}
    with (tmp_path / 'out' / 'arms.csv').open() as file:
        assert {row['arm']: row['pretrainings'] for row in csv.DictReader(file)} == dict(
            scratch='–', simsiam='1'
        )
    for config in runs[2].glob('*.py'):
        config.unlink()
    unknown = write_report(tmp_path / 'out', read_runs(runs)[0], [], Settings(resamples=50), 0)
    assert 'the pretraining of each seed of simsiam is not known' in unknown['verdict'][0]
    assert unknown['comparisons'][0]['pretrainings'] == dict(baseline=0, candidate=None)


def test_pretrainings_and_not_their_seeds_are_the_units(tmp_path):
    runs = draw_study(tmp_path / 'two', {'scratch': 0.25, 'simsiam': 0.9}, seeds=(0, 1, 2))
    settings = Settings(resamples=50)
    (group,) = gather(read_runs(runs)[0], settings)
    pretrain(runs[5], 'another.pth')
    result = write_report(tmp_path / 'out', read_runs(runs)[0], [], settings, 0)
    contrast = result['comparisons'][0]
    assert contrast['pretrainings'] == dict(baseline=0, candidate=2)
    assert 'one pretraining' not in contrast['words']
    seeds, before = contrast['seeds'], group.contrasts[0].seeds
    first, second, third = before.candidate.values
    assert seeds.difference == pytest.approx(((first + second) / 2 + third) / 2 - before.baseline.mean)
    with (tmp_path / 'out' / 'comparisons.csv').open() as file:
        row = next(csv.DictReader(file))
    assert row['pretrainings'] == '2' and row['over seeds (Welch)'].endswith(', by pretraining')
    assert row['arm'] == f'{before.candidate.mean:.3f}'


def test_a_pretraining_is_told_apart_by_what_the_study_recorded(tmp_path):
    """Its file has another path on each machine."""
    runs = draw_study(tmp_path, {'scratch': 0.25, 'simsiam': 0.9})
    pretrain(runs[3], 'there/epoch_20.pth')
    for run in runs[2:]:
        (run / 'run.json').write_text(json.dumps(dict(pretraining='simsiam_a/seed0-frac100')))
    (group,) = gather(read_runs(runs)[0], Settings(resamples=5))
    assert group.arms[1].pretrainings == 1
    for run in runs[2:]:  # of two studies, in each of which it has that name
        facts = dict(pretraining='simsiam_a/seed0-frac100', needs={'simsiam_a/seed0-frac100': run.name * 8})
        (run / 'run.json').write_text(json.dumps(facts))
    (group,) = gather(read_runs(runs)[0], Settings(resamples=5))
    assert group.arms[1].pretrainings == 2


def test_seeds_of_which_some_start_from_an_unknown_pretraining_are_not_grouped(tmp_path):
    runs = draw_study(tmp_path / 'three', {'scratch': 0.25, 'simsiam': 0.9}, seeds=(0, 1, 2))
    for config in runs[5].glob('*.py'):
        config.unlink()
    (group,) = gather(read_runs(runs)[0], Settings(resamples=5))
    scratch, simsiam = group.arms
    assert [m.run.weights for m in simsiam.members] == ['elsewhere/epoch_20.pth'] * 2 + ['']
    seeds = group.contrasts[0].seeds
    assert simsiam.pretrainings is None and not group.contrasts[0].by_pretraining
    assert seeds.difference == pytest.approx(simsiam.headline.mean - scratch.headline.mean)


@pytest.mark.parametrize(
    ('low', 'high', 'result', 'words'),
    [
        (0.1, 0.3, 'candidate higher', ''),
        (-0.1, 0.3, 'no difference shown', ', but over the seeds zero is not excluded (-0.100 to +0.300)'),
        (-0.3, -0.1, 'candidate lower', ', but over the seeds it is the other way round (-0.300 to -0.100)'),
    ],
)
def test_a_difference_over_parts_that_the_seeds_do_not_show_is_one_of_these_parts(
    drawn, low, high, result, words
):
    (group,) = gather(read_runs(drawn)[0], Settings(resamples=50))
    contrast = group.contrasts[0]
    assert contrast.parts.verdict == 'candidate higher'
    contrast.seeds = dataclasses.replace(contrast.seeds, low=low, high=high, verdict=result)
    end = ': simsiam is better' + (f' on these parts{words}' if words else '')
    assert f'{end};' in describe(contrast)


PLANTS = ('gdxray-a', 'gdxray-b', 'synthetic', 'industrial')


def test_the_verdict_is_on_what_says_most_of_a_plant(tmp_path):
    truth = draw_truth(tmp_path)
    runs = []
    for dataset in PLANTS:
        for init in ('scratch', 'simsiam'):
            for seed in (0, 1) if dataset == 'gdxray-a' else (0,):  # the leaky one has most runs
                stem = STEM.replace('synthetic', dataset)
                place = tmp_path / f'{dataset}-{init}' / f'seed{seed}-frac100'
                runs.append(draw_run(tmp_path, place, truth, init, 0.5, seed, stem=stem))
        if dataset == 'industrial':
            place = tmp_path / f'{dataset}-{init}' / 'seed0-frac10'
            runs.append(draw_run(tmp_path, place, truth, init, 0.5, stem=stem))
            place = tmp_path / f'{dataset}-scratch' / 'seed0-frac10'
            runs.append(draw_run(tmp_path, place, truth, 'scratch', 0.5, stem=stem))
    groups = {group.dataset: group for group in gather(read_runs(runs)[0], Settings(resamples=5))}
    for left in range(len(PLANTS), 0, -1):
        answer, _ = verdict([groups[dataset] for dataset in PLANTS[:left]])
        assert answer.startswith(f'On {PLANTS[left - 1]} (r18-narrow), simsiam')  # all labels, not 10 %
        assert ('protocol A, whose test series are in training too' in answer) == (left == 1)
        assert ('comparisons' in answer) == (left > 1)
    contrasts = [c for g in groups.values() for c in g.contrasts if c.measure == 'AP50']
    for contrast, result in zip(contrasts, ('higher', 'higher', 'lower', 'higher', 'lower'), strict=True):
        contrast.parts.p_value, contrast.parts.difference = 0.001, 0.1 if result == 'higher' else -0.1
    contrasts[0].parts = None
    answer, _ = verdict(list(groups.values()))
    counted = 'Of 5 comparisons, on these test parts and corrected for their number (Holm): 2 better, 2 worse'
    assert f'{counted}, 0 no difference shown' in answer
    assert answer.endswith(' shown, 1 without an interval.')
    contrasts[0].parts = dataclasses.replace(contrasts[1].parts, p_value=0.06)
    answer, _ = verdict(list(groups.values()))
    assert answer.endswith(f'{counted}, 1 no difference shown.')
    contrasts[1].parts.p_value = 0.011  # 4 times 0.011 is below 0.05, 3 times 0.04 is not
    contrasts[0].parts.p_value = contrasts[2].parts.p_value = contrasts[3].parts.p_value = 0.04
    assert correct(contrasts) == [
        'no difference shown',
        'candidate higher',
        'no difference shown',
        'no difference shown',
        'candidate lower',
    ]


PROVING = dict(skill=1.3, false=0.3)  # nearly every critical part is rejected


@pytest.fixture(scope='module')
def proven(tmp_path_factory):
    """Two good arms and a third without val, on test and val sets that are large enough for a proof."""
    root = tmp_path_factory.mktemp('proven')
    truth, val = draw_truth(root, 100), draw_val(root, 64)
    folders = [
        draw_run(root, root / init, truth, init, val=val, seed=seed, **PROVING)
        for init, seed in (('scratch', 4), ('simsiam', 8), ('in1k', 11))
    ]
    (folders[2] / 'predictions_val.json').unlink()
    return folders


@pytest.mark.slow
def test_only_the_model_that_was_chosen_on_val_keeps_its_proof(proven):
    settings = Settings(max_escape=0.2, resamples=5)
    alone = [gather(read_runs([run])[0], settings)[0].arms[0].members[0] for run in proven]
    assert [one.parts.proven for one in alone] == [True, True, False]
    (group,) = gather(read_runs(proven)[0], settings)
    members = [m for arm in group.arms for m in arm.members]
    best = max((m for m in members if m.on_val is not None), key=lambda m: m.on_val)
    assert [m for m in members if m.chosen] == [m for m in members if m.parts.proven] == [best]
    assert best.parts.statement.startswith('Proven: ')
    absent = ' 1 run without predictions of val on this test set took no part in the choice of the model.'
    assert best.parts.statement.endswith(absent)
    assert not any(absent in one.parts.statement for one in (*alone, *(m for m in members if m is not best)))
    escape = {m.run.arm: m.parts.measures.escape for m in members}
    statements = {m.run.arm: m.parts.statement for m in members if m is not best}
    assert statements['in1k'].endswith(f'no proof: {proof.NOT_FIXED}.')
    (other,) = set(statements) - {'in1k'}
    assert statements[other].startswith(f'{escape[other].events} of 98 critical parts escaped at score >= ')
    assert statements[other].endswith(f'no proof: {proof.OTHER_CHOSEN}.')
    assert f'of {best.run.arm} (seed {best.run.seed}, the best on val): Proven: ' in verdict([group])[1]
    (group,) = gather(read_runs(proven)[0], Settings(max_escape=0.001, resamples=5))  # too few parts for it
    statements = {m.run.arm: m.parts.statement for arm in group.arms for m in arm.members}
    assert statements[best.run.arm].endswith(absent) and 'No bound' not in statements[best.run.arm]
    assert statements[other].endswith(f' No bound holds: {proof.OTHER_CHOSEN}.')
    assert statements['in1k'].endswith(f' No bound holds: {proof.NOT_FIXED}.')


def test_of_all_runs_on_a_test_set_one_keeps_its_proof(proven, tmp_path):
    """Two backbones and two shares of the labels: what is chosen is one model, not one of each group."""
    folders = list(proven[:2])
    other = STEM.replace('r18-narrow', 'r50')
    for folder, stem in ((tmp_path / 'other', other), (tmp_path / 'few' / 'seed4-frac10', STEM)):
        folder.parent.mkdir(exist_ok=True)
        shutil.copytree(proven[0], folder)
        edit(
            folder / 'test.json', lambda content, stem=stem: content.update(config=stem.format(arm='scratch'))
        )
        (config,) = folder.glob('*.py')
        config.rename(folder / f'{stem.format(arm="scratch")}.py')
        folders.append(folder)
    settings = Settings(max_escape=0.2, resamples=5)
    assert all(gather(read_runs([run])[0], settings)[0].arms[0].members[0].parts.proven for run in folders)
    groups = gather(read_runs(folders)[0], settings)
    members = [m for group in groups for arm in group.arms for m in arm.members]
    assert len(groups) == 2 and len(members) == 4
    (best,) = [m for m in members if m.parts.proven]
    assert best.chosen and best.on_val == max(m.on_val for m in members)
    assert {one.parts.reason for one in members if one is not best} == {proof.OTHER_CHOSEN}
    for group in groups:
        escapes = verdict([group, *(g for g in groups if g is not group)])[1]
        assert f'(seed {best.run.seed}, ' in escapes and f': {best.parts.statement}' in escapes


UNKNOWN = 'parts of training not known: '
SEEN = proof.PARTS_SEEN.format(side='train')
OTHER = 'is missing, or has changed since it was recorded'


@pytest.fixture
def prove(tmp_path):
    """Return what is proven of a run after its val truth and the images of its training were changed."""

    def prove(change_val=lambda val: None, trained=(), change_run=lambda run: None, max_escape=0.2):
        truth, val = draw_truth(tmp_path, 100), draw_val(tmp_path, 64)
        change_val(val)
        (tmp_path / 'train.json').write_text(json.dumps(dict(images=list(trained))))
        run = draw_run(tmp_path, tmp_path / 'run', truth, val=val, seed=4, **PROVING)
        change_run(run)
        (group,) = gather(read_runs([run])[0], Settings(max_escape=max_escape, resamples=5))
        return group.arms[0].members[0].parts

    return prove


def test_parts_that_training_or_val_has_seen_prove_nothing(prove):
    def as_tested(val):
        for image in val['images']:
            image['part'] = image['part'].replace('v', 'p')

    parts = prove(as_tested)
    assert not parts.proven and parts.statement.endswith('no proof: parts of test are in val.')


@pytest.mark.parametrize(('max_escape', 'begins'), [(0.08, 'Not proven: '), (0.01, 'Not proven: ')])
@pytest.mark.parametrize(
    ('trained', 'expected'),
    [
        ('p007', f' No bound holds: {SEEN}.'),
        (None, f' No bound holds: {UNKNOWN}'),
        ('t1', ''),
    ],
)
def test_a_bound_that_proves_nothing_holds_for_no_leak_either(prove, max_escape, begins, trained, expected):
    parts = prove(trained=[dict(part=trained)], max_escape=max_escape)
    assert not parts.proven and parts.statement.startswith(begins) and 'at most' in parts.statement
    assert expected in parts.statement
    assert ('No bound' in parts.statement) == (trained != 't1')


@pytest.mark.parametrize(
    ('trained', 'expected'),
    [
        ([dict(part='p007'), dict(part='t1')], SEEN),
        ([dict(part='p007'), dict(file_name='x.png')], SEEN),
        ([dict(part='t1'), dict(part='t2')], None),
        ([dict(part='t1'), dict(file_name='x.png')], UNKNOWN),
        ([dict(part=float('nan'))], UNKNOWN),
        ([], UNKNOWN),
        ([7], UNKNOWN),
    ],
)
def test_the_parts_of_training_are_read_where_its_file_is(prove, trained, expected):
    """What is not known cannot be shown to be apart from test."""
    parts = prove(trained=trained)
    assert parts.proven == (expected is None)
    assert parts.statement.startswith('Proven: ') == parts.proven
    assert expected is None or expected in parts.statement


def test_the_rule_of_test_tells_parts_of_training_that_no_id_does(tmp_path):
    """A name in which the rule finds a part is as good as an id; one in which it finds none is no part."""
    truth, val = draw_truth(tmp_path, 100), draw_val(tmp_path, 64)
    truth['info'] = dict(group='^([a-z][0-9]{3})_')
    run = draw_run(tmp_path, tmp_path / 'run', truth, val=val, seed=4, **PROVING)
    edit(run / 'predictions.json', lambda content: content.update(population=describe_population(truth, [])))
    proofs = {}
    for name in ('t001_v0.png', 'p007_v9.png', 'frame.png'):
        (tmp_path / 'train.json').write_text(json.dumps(dict(images=[dict(file_name=name)])))
        (group,) = gather(read_runs([run])[0], Settings(max_escape=0.2, resamples=5))
        proofs[name] = group.arms[0].members[0].parts
    assert [parts.proven for parts in proofs.values()] == [True, False, False]
    assert SEEN in proofs['p007_v9.png'].statement
    assert UNKNOWN in proofs['frame.png'].statement


@pytest.mark.parametrize(
    'copy',
    [
        lambda pixels: pixels,
        lambda pixels: np.rot90(pixels, 3),
        lambda pixels: pixels[:, ::-1],
        lambda pixels: pixels.astype(np.uint16) * 257,
    ],
    ids=['saved again', 'turned', 'mirrored', '16 bits'],
)
@pytest.mark.parametrize('side', ['train', 'val', None])
def test_a_copy_of_a_test_radiograph_under_another_name_is_found_by_its_content(tmp_path, copy, side):
    """Training or val holds it without a box, as another part, in another format."""
    truth, val = draw_truth(tmp_path, 100), draw_val(tmp_path, 64)
    pixels = cv2.imread(str(tmp_path / 'images' / 'p007_v1.png'), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(tmp_path / 'images' / 'other.tif'), copy(pixels) if side else pixels[2:])
    image = dict(id=999, file_name='other.tif', part='x1', width=96, height=96)
    if side == 'val':
        val['images'].append(image)
    (tmp_path / 'train.json').write_text(json.dumps(dict(images=[dict(image, part='t1')])))
    run = draw_run(tmp_path, tmp_path / 'run', truth, val=val, seed=4, **PROVING)
    for file, of in (('predictions.json', truth), ('predictions_val.json', val)):
        names = [image['file_name'] for image in of['images']]
        edit(
            run / file, lambda content, n=names: content.update(digests=digest_images(tmp_path / 'images', n))
        )
    (group,) = gather(read_runs([run])[0], Settings(max_escape=0.2, resamples=5))
    parts = group.arms[0].members[0].parts
    assert parts.proven == (side is None)
    assert parts.reason == ('' if side is None else proof.IMAGES_SEEN.format(side=side))


def recorded(sha256, of):
    """Let a study have recorded the SHA-256 of what a run learnt from; None: that of the file there is."""

    def change(run):
        file = run.parent / 'train.json'
        result = sha256 or hashlib.sha256(file.read_bytes()).hexdigest()
        facts = dict(labels_sha256={str(file): result}) if of == 'all' else dict(subset_sha256=result)
        (run / 'run.json').write_text(json.dumps(facts if of else dict(train_images=2)))

    return change


@pytest.mark.parametrize(
    ('sha256', 'of', 'checked'),
    [
        (None, 'all', True),
        (None, 'few', True),
        ('f' * 64, 'all', False),
        ('f' * 64, 'few', False),
        ('', '', False),
    ],
)
def test_the_training_file_that_is_checked_is_the_one_the_run_learnt_from(prove, sha256, of, checked):
    parts = prove(trained=[dict(part='t1')], change_run=recorded(sha256, of))
    assert parts.proven == checked and (OTHER in parts.statement) != checked


@pytest.mark.parametrize(
    ('starts', 'checked'),
    [
        (['own'], True),
        (['own', 'own'], True),
        (['f' * 64], False),
        (['own', 'f' * 64], False),
        (['own', ''], False),
    ],
)
def test_outside_of_a_study_the_starts_say_which_file_a_run_learnt_from(prove, starts, checked):
    def change(run):
        file = run.parent / 'train.json'
        own = hashlib.sha256(file.read_bytes()).hexdigest()
        result = [{str(file): own if start == 'own' else start} if start else None for start in starts]
        notes = [dict(commit='a' * 40) | (dict(labels_sha256=labels) if labels else {}) for labels in result]
        (run / 'starts.json').write_text(json.dumps(dict(starts=notes)))

    parts = prove(trained=[dict(part='t1')], change_run=change)
    assert parts.proven == checked and (OTHER in parts.statement) != checked


def test_a_training_file_that_cannot_be_looked_at_is_no_proof(prove):
    def change(run):
        (config,) = run.glob('*.py')
        config.write_text(config.read_text().replace('train.json', 'n' * 300))
        (run / 'run.json').write_text(
            json.dumps(dict(labels_sha256={str(run.parent / ('n' * 300)): 'f' * 64}))
        )

    parts = prove(trained=[dict(part='t1')], change_run=change)
    assert not parts.proven and OTHER in parts.statement


WRAPPED = {
    'repeated': "dict(type='RepeatDataset', times=2, dataset=dict({0}))",
    'joined': "dict(type='ConcatDataset', datasets=[dict({0}), dict({1})])",
    'both': "dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[dict({1}), dict({0})]))",
}


@pytest.mark.parametrize('wrapper', WRAPPED)
@pytest.mark.parametrize(
    ('part', 'expected'),
    [('p007', SEEN), ('t1', ''), (None, UNKNOWN)],
)
def test_the_parts_of_training_are_read_inside_of_wrappers(prove, wrapper, part, expected):
    def wrap(run):
        files = [f"data_root='{run.parent}', ann_file='{name}.json'" for name in ('train', 'more')]
        (run.parent / 'more.json').write_text(json.dumps(dict(images=[dict(part='t2')])))
        (config,) = run.glob('*.py')
        model, _ = config.read_text().splitlines()
        dataset = WRAPPED[wrapper].format(*files)
        config.write_text(f'{model}\ntrain_dataloader = dict(dataset={dataset})\n')

    parts = prove(trained=[dict(part=part)], change_run=wrap)
    assert parts.proven == (part == 't1') and expected in parts.statement


def test_a_proof_of_another_data_set_is_not_told_of_the_first_arm(proven, tmp_path):
    # Other images: on the same ones the two sets would be one.
    truth = draw_truth(tmp_path, seed=1, name='q')
    run = draw_run(tmp_path, tmp_path / 'run', truth, stem=STEM.replace('synthetic', 'industrial'))
    (run / 'predictions_val.json').unlink()
    groups = gather(read_runs([run, proven[0]])[0], Settings(max_escape=0.2, resamples=5))
    assert [group.dataset for group in groups] == ['industrial', 'synthetic']
    assert groups[1].arms[0].members[0].parts.proven
    statement = groups[0].arms[0].members[0].parts.statement
    assert f'of scratch (seed 0): {statement}' in verdict(groups)[1] and 'Proven' not in statement


def test_models_on_different_val_sets_are_not_chosen_between(proven):
    runs, _ = read_runs(proven[:2])
    runs[1].val.sha256 = 'f' * 64
    (group,) = gather(runs, Settings(max_escape=0.2, resamples=5))
    assert {m.parts.reason for arm in group.arms for m in arm.members} == {proof.NOT_FIXED}


def test_the_operating_point_of_val_is_judged_on_test(proven, tmp_path):
    def report(*options):
        out = tmp_path / f'out{len(options)}'
        assert main([str(proven[0]), '--out', str(out), '--gallery', '0', *options]) == 0
        with (out / 'parts.csv').open() as file:
            (row,) = csv.DictReader(file)
        return json.loads((out / 'report.json').read_text())['runs'][0], row

    run, row = report('--max-escape', '0.1')
    assert run['parts']['threshold'] == run['threshold']  # one threshold for parts, boxes and POD
    assert 'critical parts of val' in row['threshold is']
    assert float(row['threshold']) <= run['parts']['threshold'] < float(row['threshold']) + 1e-3
    assert row['caught by another detection alone'] == str(run['parts']['measures']['caught_elsewhere'])
    assert run['pod']['critical']['unit'] == 'px'
    strict, row = report('--max-escape', '0.001')  # takes 2,995 parts
    assert strict['parts']['reason'] == 'too few parts'
    assert 'with a probability of 0.0 %' in row['threshold is']
    assert 'without a single escape it takes 2995; escaped: ' in row['proof']
    other, _ = report('--max-escape', '0.1', '--reject-minor', '--pixel-pitch', '0.2')
    # What rejects a part may now be a minor defect: more reject it, and val allows a higher threshold.
    assert other['parts']['threshold'] > run['parts']['threshold']
    critical, before = other['pod']['critical'], run['pod']['critical']
    assert critical['unit'] == 'mm' and critical['threshold'] == other['threshold'] > before['threshold']


def test_the_bound_of_pod_in_mm_is_not_rounded_below_itself(tmp_path):
    truth = draw_truth(tmp_path, 100)  # whose severities are named right, or the POD levels off
    runs = [
        draw_run(tmp_path, tmp_path / init, truth, init, misnamed=0, **PROVING)
        for init in ('scratch', 'simsiam')
    ]

    def lift(record):
        for detection in record['detections']:  # above the fixed threshold, in the same order
            detection['score'] = 0.9 + detection['score'] / 10

    for run in runs:
        edit(run / 'predictions.json', lift)
        (run / 'predictions_val.json').unlink()
    assert main([*map(str, runs), '--out', str(tmp_path), '--gallery', '0', '--pixel-pitch', '0.02']) == 0
    pods = {run['arm']: run['pod'] for run in json.loads((tmp_path / 'report.json').read_text())['runs']}
    with (tmp_path / 'pod.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(map(len, pods.values()))
    page = (tmp_path / 'index.html').read_text()
    bounds = 0
    for row in rows:
        fit = pods[row['arm']][row['class']]['fit']
        assert row['unit'] == 'mm'
        for key in ('a50', 'a90'):
            assert row[key] == ('–' if fit[key] is None else f'{fit[key]:.3g}')
        if fit['a90_95'] is None:
            assert row['a90/95'] == '–'
            continue
        assert fit['a90_95'] <= float(row['a90/95']) <= 1.01 * fit['a90_95']
        if row['class'] in ('critical', 'minor'):
            bounds += 1
            assert f'{row["arm"]} (a90 {row["a90"]}, a90/95 {row["a90/95"]})' in page
    assert bounds


def test_pod_against_size_and_contrast_is_drawn(proven):
    (group,) = gather(read_runs(proven[:1])[0], Settings(resamples=5))
    charts = [chart for chart in charts_of(group, {}) if 'size and contrast' in chart['title']]
    assert [chart['title'].split(' flaw')[0] for chart in charts] == [
        f'scratch: probability of detecting a {name}' for name in ('critical', 'minor')
    ]
    assert all('>found<' in chart['svg'] and '>missed<' in chart['svg'] for chart in charts)


@pytest.mark.filterwarnings('error')
def test_long_names_of_many_arms_leave_room_for_the_curves(tmp_path, drawn):
    """matplotlib warned of axes of no size, and the legend was cut off at the left."""
    (group,) = gather(read_runs(drawn)[0], Settings(resamples=5))
    arm = group.arms[0]
    lengthy = 'in1k-drawn-castings, 0.3× epochs, pretrained 0.75× as long, 0.5× learning rate'
    group.arms = [dataclasses.replace(arm, name=f'{number} {lengthy}') for number in range(9)]
    charts = [chart for chart in charts_of(group, {}) if chart['svg'].count('in1k-drawn') > 1]
    assert [chart['title'].split()[0] for chart in charts][-3:] == ['FROC:', 'Probability', 'Probability']
    for chart in charts:
        assert all(f'>{number} in1k-drawn-castings' in chart['svg'] for number in range(9)), chart['title']
        assert min(float(x) for x in re.findall(r'<text[^>]*translate\((-?[\d.]+) ', chart['svg'])) > 0


def test_a_curve_of_a_single_point_is_seen(drawn):
    (group,) = gather(read_runs(drawn)[0], Settings(resamples=5))
    for arm in group.arms:
        for member in arm.members:
            val = member.run.curves.val
            val.update({key: points[-1:] for key, points in val.items()})
    (chart,) = [chart for chart in charts_of(group, {}) if chart['title'] == 'Val AP50']
    curves = chart['svg'].split('<g id="line2d_')[1:]
    assert any('#0072b2' in curve and '<use' in curve for curve in curves)


def test_charts_of_few_labels_say_so(tmp_path, probes):
    runs = draw_study(
        tmp_path / 'detectors', {'scratch': 1.3, 'simsiam': 1.3}, seeds=(0,), fractions=(10, 100)
    )
    folders = [runs[0], *runs[2:]]  # most arms have 10 %
    folders += [shutil.move(probe, tmp_path / f'few-{probe.name}' / 'seed0-frac10') for probe in probes]
    groups = gather(read_runs(folders)[0], Settings(resamples=5))
    assert [group.task for group in groups] == ['detection', 'severity']
    for chart in (chart for group in groups for chart in charts_of(group, {})):
        name = 'scratch, 10 % of labels'
        if 'size and contrast' in chart['title']:
            assert chart['title'].startswith((name, 'simsiam, 10 % of labels'))
        elif 'by share of the labels' not in chart['title']:
            assert name in chart['svg'], chart['title']


def test_contrasts_that_cannot_be_used_are_named_and_absent_ones_are_not(tmp_path):
    truth = draw_truth(tmp_path)
    truth['annotations'][0]['contrast'] = 0.0
    for annotation in truth['annotations']:
        if annotation['category_id'] == 2:
            del annotation['contrast']
    run = draw_run(tmp_path, tmp_path / 'run', truth)
    (group,) = gather(read_runs([run])[0], Settings(resamples=5))
    measured = group.arms[0].members[0]
    assert list(measured.pods) == ['critical', 'minor']
    (note,) = measured.notes
    assert note.startswith('POD of critical by size and contrast: ') and 'above zero' in note
    assert not any('size and contrast' in chart['title'] for chart in charts_of(group, {}))


def test_thresholds_that_differ_are_said_of_each_arm(tmp_path):
    truth = draw_truth(tmp_path)
    runs = [draw_run(tmp_path, tmp_path / init, truth, init) for init in ('scratch', 'simsiam')]
    (runs[1] / 'predictions_val.json').unlink()
    _, escapes = verdict(gather(read_runs(runs)[0], Settings(resamples=5)))
    assert 'scratch, at the threshold fixed on val for an escape rate of 0.05, misses' in escapes
    assert 'simsiam, at the threshold fixed at 0.3: no predictions of val' in escapes


def test_a_distilled_student_is_compared_with_the_student_alone(tmp_path):
    truth = draw_truth(tmp_path)
    runs = [draw_run(tmp_path, tmp_path / init, truth, init) for init in ('in1k', 'scratch')]
    taught = draw_run(tmp_path, tmp_path / 'pkd', truth, skill=0.9, stem=f'pkd-swin-base-simmim_{STEM}')
    (group,) = gather(read_runs([*runs, taught])[0], Settings(resamples=5))
    pairs = {(c.candidate.name, c.baseline.name) for c in group.contrasts}
    name = 'scratch + pkd-swin-base-simmim'
    assert pairs == {('scratch', 'in1k'), (name, 'scratch')}


def longer(folder, factor=3, **facts):
    """Let a drawn run have learnt for more epochs, as its study recorded."""
    (folder / 'run.json').write_text(json.dumps(dict(epochs_factor=factor, **facts)))
    return folder


def test_arms_that_learnt_as_long_are_compared(tmp_path):
    truth, runs = draw_truth(tmp_path), []
    for init, skill in (('scratch', 0.3), ('simsiam', 0.4)):
        runs.append(draw_run(tmp_path, tmp_path / init, truth, init, skill))
        runs.append(longer(draw_run(tmp_path, tmp_path / f'{init}-x3', truth, init, 2 * skill)))

    def pairs(folders):
        (group,) = gather(read_runs(folders)[0], Settings(resamples=5))
        found = {(c.candidate.name, c.baseline.name): describe(c) for c in group.contrasts}
        return found, verdict([group])[0]

    found, answer = pairs(runs)
    assert set(found) == {
        ('simsiam', 'scratch'),
        ('simsiam, 3× epochs', 'scratch, 3× epochs'),
        ('scratch, 3× epochs', 'scratch'),
    }
    unequal = 'is trained for 3× the epochs of its config, scratch for 1×: not an effect of the start alone'
    assert [pair for pair, words in found.items() if unequal in words] == [('scratch, 3× epochs', 'scratch')]
    assert 'Of 2 comparisons' in answer and unequal not in answer
    # Without a baseline that learnt as long, the comparison stays and says what it is.
    found, answer = pairs([runs[0], runs[1], runs[2]])
    assert 'simsiam reaches' in answer and 'comparisons' not in answer
    found, answer = pairs([runs[0], runs[3]])
    ((pair, words),) = found.items()
    assert pair == ('simsiam, 3× epochs', 'scratch') and f'simsiam, 3× epochs {unequal}' in words
    assert unequal in answer


def test_arms_that_learnt_at_the_same_rate_are_compared(tmp_path):
    truth, runs = draw_truth(tmp_path), []
    for init, skill in (('scratch', 0.3), ('simsiam', 0.4)):
        runs.append(draw_run(tmp_path, tmp_path / init, truth, init, skill))
        half = draw_run(tmp_path, tmp_path / f'{init}-half', truth, init, 2 * skill)
        runs.append(longer(half, 1, lr_factor=0.5))
    (group,) = gather(read_runs(runs)[0], Settings(resamples=5))
    found = {(c.candidate.name, c.baseline.name): describe(c) for c in group.contrasts}
    assert set(found) == {
        ('simsiam', 'scratch'),
        ('simsiam, 0.5× learning rate', 'scratch, 0.5× learning rate'),
        ('scratch, 0.5× learning rate', 'scratch'),
    }
    unequal = (
        'learns at 0.5× the learning rate of its config, scratch at 1×: not an effect of the start alone'
    )
    assert [unequal in words for words in found.values()].count(True) == 1
    assert f'scratch, 0.5× learning rate {unequal}' in found['scratch, 0.5× learning rate', 'scratch']
    assert 'Of 2 comparisons' in verdict([group])[0]
    # A rate that val chose belongs to the arm.
    longer(runs[3], 1, lr_factor=0.5, lr_on_val=True)
    (group,) = gather(read_runs([runs[0], runs[3]])[0], Settings(resamples=5))
    assert [describe(c) for c in group.contrasts] and 'learns at' not in verdict([group])[0]


def test_arms_without_a_common_schedule_are_all_named(tmp_path):
    truth = draw_truth(tmp_path)
    runs = [draw_run(tmp_path, tmp_path / init, truth, init, 0.4) for init in ('scratch', 'simsiam')]
    longer(runs[0], 3)
    longer(runs[1], 1, lr_factor=0.5)
    answer, escapes = verdict(gather(read_runs(runs)[0], Settings(resamples=5)))
    assert answer.startswith('No arm has a baseline') and 'schedule' in answer
    assert 'scratch, 3× epochs misses' in escapes and 'simsiam, 0.5× learning rate misses' in escapes


def test_a_teacher_is_not_told_as_the_effect_of_pretraining(tmp_path):
    truth, pkd = draw_truth(tmp_path), f'pkd-swin-base-simmim_{STEM}'
    runs = [draw_run(tmp_path, tmp_path / init, truth, init, 0.4) for init in ('scratch', 'simsiam')]
    runs += [longer(draw_run(tmp_path, tmp_path / 'x3', truth, 'simsiam', 0.5))]
    taught = [
        draw_run(tmp_path, tmp_path / f'pkd{k}', truth, 'simsiam', 0.9, seed=k, stem=pkd) for k in (0, 1)
    ]
    taught += [longer(draw_run(tmp_path, tmp_path / 'pkd-x3', truth, 'simsiam', 0.9, stem=pkd))]
    (group,) = gather(read_runs([*runs, *taught])[0], Settings(resamples=5))
    name = 'simsiam + pkd-swin-base-simmim'
    assert {(c.candidate.name, c.baseline.name) for c in group.contrasts} == {
        ('simsiam', 'scratch'),
        ('simsiam, 3× epochs', 'scratch'),
        (name, 'simsiam'),
        (f'{name}, 3× epochs', 'simsiam, 3× epochs'),
    }
    answer, _ = verdict([group])
    assert 'simsiam reaches' in answer and 'pkd' not in answer and 'comparisons' not in answer


def test_the_fingerprint_of_the_training_labels_is_what_the_run_recorded(tmp_path):
    truth = draw_truth(tmp_path, parts=4)
    (tmp_path / 'train.json').write_text('changed since')
    runs = [draw_run(tmp_path, tmp_path / init, truth, init) for init in ('scratch', 'simsiam')]
    (runs[1] / 'run.json').write_text(json.dumps(dict(train_images=12, subset_sha256='c0ffee')))
    write_report(tmp_path / 'out', read_runs(runs)[0], [], Settings(resamples=5), 0)
    with (tmp_path / 'out' / 'data.csv').open() as file:
        rows = [row for row in csv.reader(file) if row[0] == 'train']
    path = str(tmp_path / 'train.json')
    assert sorted(rows) == [['train', path, '12', 'c0ffee'], ['train', path, '–', '–']]
    # On all labels it is that of the annotation file.
    (runs[0] / 'run.json').write_text(json.dumps(dict(train_images=90, labels_sha256={path: 'facade'})))
    write_report(tmp_path / 'out', read_runs(runs)[0], [], Settings(resamples=5), 0)
    assert ['train', path, '90', 'facade'] in table('data', tmp_path)


def table(name, folder):
    with (folder / 'out' / f'{name}.csv').open() as file:
        return [*csv.reader(file)]


def test_the_origin_names_the_training_and_the_pretraining(tmp_path):
    truth = draw_truth(tmp_path, parts=4)
    runs = [draw_run(tmp_path, tmp_path / init, truth, init) for init in ('scratch', 'simsiam')]
    start = tmp_path / 'simsiam_narrow' / 'seed2-frac100'
    start.mkdir(parents=True)
    facts = dict(config='configs/small/simsiam_narrow.py', seed=2, labels_sha256={'data/list.txt': 'c0ffee'})
    (start / 'run.json').write_text(json.dumps(facts | dict(command='python tools/train.py')))
    notes = [
        dict(commit=commit * 40, dirty=False, hardware='1 x H100', gpus=1, seed=2, date='2026-01-02T03:04:05')
        for commit in 'ab'
    ]
    for folder in (start, runs[1]):
        (folder / 'starts.json').write_text(json.dumps(dict(starts=notes)))
    pretrain(runs[1], start / 'epoch_20.pth')
    tested = json.loads((runs[1] / 'test.json').read_text())
    write_report(tmp_path / 'out', read_runs(runs)[0], [], Settings(resamples=5), 0)
    header, *rows = table('origin', tmp_path)
    rows = {row['arm']: row for row in (dict(zip(header, row)) for row in rows)}
    assert rows['scratch']['commit'] == tested['commit'][:12] and rows['scratch']['pretraining'] == '–'
    result = f'{"a" * 12} then {"b" * 12} (tested: {tested["commit"][:12]})'
    assert rows['simsiam']['commit'] == result
    assert rows['simsiam']['hardware'] == f'1 x H100 (tested: {tested["hardware"]})'
    assert rows['simsiam']['pretraining'] == 'simsiam_narrow/seed2-frac100'
    _, row = table('pretrainings', tmp_path)
    commits, date = f'{"a" * 12} then {"b" * 12}', '2026-01-02T03:04'
    assert row[:5] == ['simsiam_narrow/seed2-frac100', '2', facts['config'], commits, '1 x H100']
    assert row[5:] == [date, 'data/list.txt', 'c0ffee', 'python tools/train.py']
    assert 'Pretrainings that runs start from' in (tmp_path / 'out' / 'index.html').read_text()


# ----------------------------------------------------------------------------------------------- probes


def test_probes_are_compared_and_shown(probes, tmp_path):
    out = tmp_path / 'out'
    assert main([*map(str, probes), '--out', str(out)]) == 0
    content = json.loads((out / 'report.json').read_text())
    assert 'simsiam reaches mAP' in content['verdict'][0] and 'simsiam is better' in content['verdict'][0]
    assert content['verdict'][1].startswith('Escapes are counted for detectors')
    (contrast,) = content['comparisons']
    values = {run['arm']: run['metrics'] for run in content['runs']}
    difference = values['simsiam']['mAP'] - values['scratch']['mAP']
    assert contrast['parts']['difference'] == pytest.approx(difference)
    assert contrast['parts']['low'] < difference < contrast['parts']['high']
    with (out / 'probes.csv').open() as file:
        rows = {row['arm']: row for row in csv.DictReader(file)}
    for arm, row in rows.items():
        for name in ('mAP', 'AP_critical', 'AP_minor', 'accuracy', 'balanced_accuracy', 'ece'):
            assert row[name] == f'{100 * values[arm][name]:.1f}'
    for run in content['runs']:
        right = sum(run['confusion'][label][label] for label in (0, 1))
        assert right / sum(map(sum, run['confusion'])) == pytest.approx(run['metrics']['accuracy'])
        assert run['calibration']['error'] == pytest.approx(run['metrics']['ece'])
    page = (out / 'index.html').read_text()
    assert 'Confusion of images' in page and 'called minor' in page
    assert 'Calibration: accuracy by the score' in page and 'Confusion at the threshold' not in page


def test_probes_at_two_input_sizes_are_two_recipes(probes, tmp_path):
    larger = tmp_path / 'larger'
    shutil.copytree(probes[0], larger)
    edit(
        larger / 'test.json',
        lambda content: content.update(config=content['config'].replace('128px', '256px')),
    )
    groups = gather(read_runs([*probes, larger])[0], Settings(resamples=5))
    recipe = '1xb64-linear-coslr-20e'
    assert {group.recipe: len(group.arms) for group in groups} == {
        f'{recipe}, 128px': 2,
        f'{recipe}, 256px': 1,
    }
    assert all(len(arm.members) == 1 for group in groups for arm in group.arms)


def test_probes_stand_beside_table_2(probes):
    table = table_2(gather(read_runs(probes)[0], Settings(resamples=5)))
    rows = {tuple(row[:2]): row for row in table['rows']}
    assert rows['resnet50', 'simsiam'][2:] == ['75.9', 'not run here', '71.2', 'not run here', 'not run here']
    drawn = rows['resnet18-narrow (synthetic)', 'simsiam']
    assert drawn[2] == drawn[4] == '' and all(float(drawn[k]) > 50 for k in (3, 5, 6))


def test_a_probe_is_measured_again_from_its_scores(probes):
    edit(probes[0] / 'test.json', lambda content: content['metrics'].update({'xray/mAP': 0.99}))
    runs, (line,) = read_runs(probes)
    assert [run.init for run in runs] == ['simsiam']
    assert 'test.json says mAP 0.99, its predictions give' in line


def test_a_probe_that_says_one_class_is_named(probes, tmp_path):
    def call_all_minor(record):
        for image in record['images']:
            image['scores'] = [0.4 * image['scores'][0], 1 - 0.4 * image['scores'][0]]

    edit(probes[0] / 'predictions.json', call_all_minor)
    runs, _ = read_runs(probes)
    write_report(tmp_path / 'out', runs, [], Settings(resamples=10), 0)
    page = (tmp_path / 'out' / 'index.html').read_text()
    assert page.count('calls every image minor, so its accuracy is the share of that class alone') == 1


def test_probes_on_other_labels_or_parts_do_not_compare(probes):
    edit(probes[1] / 'predictions.json', lambda content: content['images'][5].update(part='elsewhere'))
    _, (line,) = read_runs(probes)
    assert 'another label, part or place of p002_v1.png' in line


def test_a_probe_on_few_parts_is_tested_over_all_of_them(tmp_path):
    """Each of twelve parts is of one class: by itself it is ranked without a fault by any model."""
    truth = draw_truth(tmp_path, parts=12, free=0)
    labels = {image['id']: 1 + int(image['part'][1:]) % 2 for image in truth['images']}
    for annotation in truth['annotations']:
        annotation['category_id'] = labels[annotation['image_id']]
    skills = {'scratch': 0.0, 'simsiam': 1.0}
    runs = [draw_probe(tmp_path, tmp_path / init, truth, init, skill) for init, skill in skills.items()]
    (group,) = gather(read_runs(runs)[0], Settings(resamples=50))
    (contrast,) = group.contrasts
    assert contrast.parts.verdict == 'candidate higher' and contrast.parts.difference > 0.2
    assert (contrast.parts.low, contrast.parts.per_unit) == (None, {})
    for run in runs:
        edit(run / 'predictions.json', lambda content: [image.pop('part') for image in content['images']])
    (group,) = gather(read_runs(runs)[0], Settings(resamples=50))
    assert group.contrasts[0].reason.startswith('24 of 24 images')


# ----------------------------------------------------------------------------------------- few parts


def test_few_parts_get_an_exact_test(tmp_path):
    truth = draw_truth(tmp_path, parts=6, free=0)
    runs = [
        draw_run(tmp_path, tmp_path / init, truth, init, s)
        for init, s in (('scratch', 0.3), ('simsiam', 0.9))
    ]
    answer, _ = verdict(gather(read_runs(runs)[0], Settings(resamples=5)))
    assert 'exact arm-swap test over 6 parts, which cannot be below 0.0312' in answer
    result = write_report(tmp_path / 'out', read_runs(runs)[0], [], Settings(resamples=5), 0)
    with (tmp_path / 'out' / 'differences.csv').open() as file:
        rows = [row for row in csv.DictReader(file) if row['measure'] == 'AP50']
    parts = next(c['parts'] for c in result['comparisons'] if c['measure'] == 'AP50')
    assert {row['part']: row['difference'] for row in rows} == {
        part: f'{value:+.3f}' for part, value in parts.per_unit.items()
    }
    assert len(rows) == 6
    assert 'Differences per part' in (tmp_path / 'out' / 'index.html').read_text()


def test_the_paper_stands_beside_what_was_measured(drawn):
    table = table_3(gather(read_runs(drawn)[0], Settings(resamples=5)))
    rows = {tuple(row[:2]): row for row in table['rows']}
    assert rows['swin-base', 'simmim'][2:4] == ['91.3', 'not run here']
    assert rows['r50', 'simsiam'][4] == '94.8' and rows['r50', 'simsiam'][6] == '96.0'
    drawn_row = dict(zip(table['header'], rows['r18-narrow (synthetic)', 'simsiam'], strict=True))
    assert '±' in drawn_row['other data mAP'] and '±' in drawn_row['other data AP critical']
    assert drawn_row['industrial mAP'] == drawn_row['GDXray A'] == ''  # generated data are not the paper's
    assert all(len(row) == len(table['header']) for row in table['rows'])


def test_own_data_have_no_place_in_the_papers_tables(tmp_path):
    truth = draw_truth(tmp_path, parts=4)
    runs = [
        draw_run(
            tmp_path, tmp_path / init, truth, init, 0.5, stem=f'faster-rcnn_lite0-{init}_fpn_1xb8-9e_own-x'
        )
        for init in ('scratch', 'in1k-pre')
    ]
    out = tmp_path / 'out'
    write_report(out, read_runs(runs)[0], [], Settings(resamples=5), 0)
    assert 'not run here' not in (out / 'index.html').read_text()
    assert not (out / 'table_3.csv').exists() and (out / 'arms.csv').is_file()


def test_arms_of_two_recipes_do_not_stand_in_one_table_of_the_paper(tmp_path):
    truth = draw_truth(tmp_path, parts=4)
    skills = {('1x', 'in1k'): 0.3, ('2x', 'in1k'): 0.9, ('2x', 'simsiam'): 0.6, ('4x', 'in1k'): 0.5}
    runs = []
    for (schedule, init), skill in skills.items():
        stem = f'faster-rcnn_r50-{arm_token(init)}_fpn_4xb4-{schedule}_industrial'
        runs.append(draw_run(tmp_path, tmp_path / stem, truth, init, skill, stem=stem))
    groups = gather(read_runs(runs)[0], Settings(resamples=5))
    measured = {
        (group.recipe, arm.name): f'{100 * arm.headline.mean:.1f}' for group in groups for arm in group.arms
    }
    table = table_3(groups)
    rows = {tuple(row[:2]): dict(zip(table['header'], row, strict=True)) for row in table['rows']}
    for init in ('in1k', 'simsiam'):
        assert rows['r50', init]['industrial mAP'] == measured['fpn_4xb4-2x', init]
    for recipe in ('fpn_4xb4-1x', 'fpn_4xb4-4x'):
        assert rows[f'r50 ({recipe})', 'in1k']['industrial mAP'] == measured[recipe, 'in1k']
    assert len(rows) == len(table['rows']) == 4 + 2


# ------------------------------------------------------------------------------------------------ bad runs


def no_boxes(record):
    record['detections'] = []


def nan_scores(record):
    record['detections'][3]['score'] = float('nan')


def fewer_detections(record):
    del record['detections'][::2]


def other_classes(record):
    record['classes'] = ['critical', 'harmless']
    record['truth']['categories'][1]['name'] = 'harmless'


def other_images(record):
    record['truth']['images'][0]['file_name'] = 'elsewhere.png'


def other_annotations(record):
    record['sha256'] = 'f' * 64


def other_severity(record):
    """Of the same file another severity map makes another truth; the numbers of these boxes stay."""
    moved = dict(record['truth']['annotations'][0], id=999, iscrowd=1, bbox=[0, 0, 1, 1])
    record['truth']['annotations'].append(moved)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (no_boxes, 'not one detection on 8 images'),
        (nan_scores, 'not finite'),
        (fewer_detections, 'its predictions give'),
        (other_images, 'on other images'),
        (other_annotations, 'another version of the annotations'),
        (other_severity, 'annotations of image 1'),
        (lambda content: content.pop('window'), 'not of this version'),
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
    for name in ('predictions.json', 'predictions_val.json'):
        edit(pair[1] / name, other_classes)
    edit(
        pair[1] / 'test.json',
        lambda r: r['metrics'].update({'xray/AP50_harmless': r['metrics']['xray/AP50_minor']}),
    )
    _, (line,) = read_runs(pair)
    assert "['critical', 'harmless']" in line


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
    pretraining = tmp_path / PRETRAINING / 'seed0-frac100'
    pretraining.mkdir(parents=True)
    runs, left_out = read_runs([*pair, pretraining])
    assert [run.folder for run in runs] == [pair[0]]
    (line,) = left_out
    assert pair[1].name in line and 'failed in a study (train: out of memory)' in line


def test_a_failed_pretraining_is_named(tmp_path):
    pretraining = tmp_path / PRETRAINING / 'seed0-frac100'
    pretraining.mkdir(parents=True)
    (pretraining / 'failed.json').write_text(json.dumps(dict(step='train', reason='out of memory')))
    runs, (line,) = read_runs([pretraining])
    assert runs == []
    assert 'simsiam_resnet18' in line and 'out of memory), and nothing could start from it' in line


def test_curves_of_the_pretrainings_are_drawn(tmp_path):
    truth = draw_truth(tmp_path, parts=4)
    folders = [draw_pretraining(tmp_path, seed) for seed in (0, 1)]
    arms = [
        draw_run(tmp_path, tmp_path / f'arm{seed}', truth, 'simsiam', seed=seed, pretraining=folder)
        for seed, folder in enumerate(folders)
    ]
    runs, left_out = read_runs([*folders, *arms])
    assert left_out == [] and [run.pretraining for run in runs] == folders
    curves = read_curves(folders[0])
    assert curves.train['collapse_level'] == [(4, 0.1), (8, 0.2), (12, 0.7)]
    assert curves.val['probe/knn_accuracy'] == [(1, 0.51), (2, 0.52), (3, pytest.approx(0.57))]

    (log,) = folders[1].glob('*/vis_data/scalars.json')
    log.write_text(log.read_text() + '{"loss": ')
    write_report(tmp_path / 'out', runs, [], Settings(resamples=5), 0)
    page = (tmp_path / 'out' / 'index.html').read_text()
    charts = page.split('<h3>Pretraining</h3>')[1].split('</section>')[0].split('</figure>')[:-1]
    for chart, words, x in zip(
        charts, ('loss', 'collapse level', 'knn accuracy'), ('iteration', 'iteration', 'epoch'), strict=True
    ):
        assert f'<figcaption>Pretraining: {words}<' in chart and f'>{x}<' in chart
        assert '>1: simsiam<' in chart and '>2: simsiam<' in chart
    assert all(f'>{seed + 1}: {PRETRAINING}/seed{seed}-frac100<' in page for seed in (0, 1))
    assert f'{log}: line 7 is cut short or damaged' in page


def test_weights_of_another_place_have_no_curves(pair, tmp_path):
    runs, _ = read_runs(pair)
    assert [run.pretraining for run in runs] == [None, None]
    write_report(tmp_path / 'out', runs, [], Settings(resamples=5), 0)
    assert '<h3>Pretraining</h3>' not in (tmp_path / 'out' / 'index.html').read_text()


@pytest.mark.parametrize(
    ('name', 'value'),
    [('AP50', 0.9), ('AP50', None), ('AP50', math.nan), ('AP50_critical', math.nan), ('AP50_minor', None)],
)
def test_numbers_that_do_not_follow_from_the_predictions_leave_the_run_out(pair, name, value):
    edit(pair[0] / 'test.json', lambda content: content['metrics'].update({f'xray/{name}': value}))
    runs, (line,) = read_runs(pair[:1])
    assert runs == [] and f'says {name} {value}, its predictions give 0.' in line


def test_a_test_set_without_a_box_leaves_the_run_out_and_the_report_stands(pair, tmp_path, capsys):
    sound = draw_truth(tmp_path, parts=2, free=2, name='s')
    blank = draw_run(tmp_path, tmp_path / 'blank', sound, 'simsiam')
    out = tmp_path / 'out'
    assert main([str(pair[0]), str(blank), '--out', str(out), '--gallery', '0']) == 1
    assert f'{blank}: not one annotated box of any class on its test images' in capsys.readouterr().err
    assert (out / 'index.html').is_file()


def test_val_that_is_the_test_set_or_has_other_classes_leaves_the_run_out(pair):
    test, val = (json.loads((pair[0] / f'predictions{which}.json').read_text()) for which in ('', '_val'))
    edit(pair[0] / 'predictions_val.json', lambda content: content.update(sha256=test['sha256']))
    assert f'{val["ann_file"]} is the test set, on which nothing may be fixed' in read_runs(pair[:1])[1][0]
    edit(pair[1] / 'predictions_val.json', other_classes)
    (line,) = read_runs(pair[1:])[1]
    assert "has the classes ['critical', 'harmless'] on val and ['critical', 'minor'] on test" in line


def test_val_that_shares_an_image_with_test_leaves_the_run_out(tmp_path):
    truth = draw_truth(tmp_path, parts=4, free=0)
    run = draw_run(
        tmp_path, tmp_path / 'run', truth, val=truth | dict(info='the same, except for its SHA-256')
    )
    runs, (line,) = read_runs([run])
    assert runs == [] and '\n' not in line
    assert 'has 8 images of the test set, such as p000_v0.png' in line and 'split again by part' in line


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
