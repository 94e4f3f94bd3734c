"""One proof per set of images, of known parts, of the folder that runs, in a sentence with both rates."""

import csv
import hashlib
import json
import shutil

import cv2
import numpy as np
import pytest
from helpers import drawn_runs
from helpers.drawn_runs import STEM, as_found, draw_run, draw_truth, draw_val, find_all
from helpers.exported import SIDE, export_to, spot

from projects.line.export.evaluate import another_map, evaluate
from projects.line.export.threshold import choose_threshold
from projects.line.runtime import Exported, folder
from projects.radiograph.gray_levels import band_of, measure
from projects.report import proof
from projects.report.compare import gather
from projects.report.measured import Settings
from projects.report.proof import statement_of
from projects.report.runs import read_runs
from projects.runs.digests import digest
from projects.runs.population import describe_population, population_in_words
from tools import report
from tools import test as test_tool


@pytest.fixture
def faultless(monkeypatch):
    monkeypatch.setattr(drawn_runs, 'detect', find_all)


def measured(*folders):
    runs, left_out = read_runs(list(folders))
    assert left_out == []
    return [m for g in gather(runs, Settings(resamples=20)) for a in g.arms for m in a.members]


def without_parts(truth):
    return truth | dict(images=[{k: v for k, v in i.items() if k != 'part'} for i in truth['images']])


# ------------------------------------------------------------------------------------------ parts not known


def test_parts_that_nobody_knows_prove_nothing(tmp_path, faultless):
    """Names of files are no parts: 144 views of 72 parts are neither 144 nor 72 of them."""
    truth, val = (without_parts(t) for t in (draw_truth(tmp_path, 72, free=0), draw_val(tmp_path, 30)))
    run = draw_run(tmp_path, tmp_path / 'runs' / STEM.format(arm='scratch'), truth, val=val)
    (one,) = measured(run)
    assert one.parts is None
    assert statement_of(one).startswith('No proof: parts not known: 144 of 144 images have no part id')
    assert 'convert_dataset.py --group' in statement_of(one)
    assert report.main([str(run), '--out', str(tmp_path / 'report'), '--gallery', '0']) == 0
    (row,) = csv.DictReader((tmp_path / 'report' / 'parts.csv').open())
    assert row['proof'] == statement_of(one)
    assert not any(
        'Proven' in line for line in json.loads((tmp_path / 'report/report.json').read_text())['verdict']
    )


def test_region_groups_are_units_of_a_comparison_and_no_parts(tmp_path, faultless):
    truth = without_parts(draw_truth(tmp_path, 8, free=0))
    for image in truth['images']:
        image['region'] = f'C{image["id"] % 4:04d}'
    run = draw_run(tmp_path, tmp_path / 'runs' / STEM.format(arm='scratch'), truth)
    (one,) = measured(run)
    assert one.parts is None and 'parts not known' in statement_of(one)
    assert set(one.run.predictions.units()) == {'C0000', 'C0001', 'C0002', 'C0003'}


def test_an_id_as_number_and_as_text_is_one_part(tmp_path, faultless):
    truth = draw_truth(tmp_path, 4, free=0)
    for image in truth['images']:
        number = int(image['part'][1:])
        image['part'] = number if image['view'] else str(number)
    run = draw_run(tmp_path, tmp_path / 'runs' / STEM.format(arm='scratch'), truth)
    (one,) = measured(run)
    assert one.parts.measures.escape.units == 4
    assert set(one.run.predictions.parts()) == {'0', '1', '2', '3'}


def test_a_missing_id_as_tables_write_it_is_no_part(tmp_path, faultless):
    """NaN stands in a table's gap: as an id, 72 parts that nobody knows would be a single one."""
    truth = draw_truth(tmp_path, 72, free=0)
    for image in truth['images']:
        image['part'] = float('nan')
    run = draw_run(tmp_path, tmp_path / 'runs' / STEM.format(arm='scratch'), truth)
    (one,) = measured(run)
    assert one.parts is None
    assert '144 of 144 images' in statement_of(one)
    assert one.run.predictions.population.get('parts') is None


# ------------------------------------------------------------------------------------ one proof, on new parts


def two_copies(root, second):
    """Two good runs whose test sets are copies; `second` changes the second one."""
    truth, val = draw_truth(root, 130, free=10), draw_val(root, 220)
    (root / 'train.json').write_text(json.dumps(dict(images=[dict(file_name='t.png', part='t')])))
    folders = []
    for number, dataset in enumerate(('synthetic', 'industrial')):
        own = second(json.loads(json.dumps(truth))) if number else truth
        stem = STEM.replace('synthetic', dataset)
        folders.append(draw_run(root, root / 'runs' / str(number), own, val=val, stem=stem))
    return folders


def renamed(truth):
    for image in truth['images']:
        image['file_name'] = f'copy/{image["file_name"]}'
    return truth


@pytest.mark.parametrize(
    'second',
    [
        lambda truth: truth | dict(info=dict(copy=1)),
        lambda truth: truth | dict(images=truth['images'][:-2]),
        renamed,
    ],
    ids=['saved again', 'a subset', 'renamed, same content'],
)
def test_copies_of_a_test_set_prove_once(tmp_path, faultless, second):
    folders = two_copies(tmp_path, second)
    if second is renamed:
        for run in folders:
            content = json.loads((run / 'predictions.json').read_text())
            content['digests'] = {
                image['file_name']: image['file_name'].removeprefix('copy/')
                for image in content['truth']['images']
            }
            (run / 'predictions.json').write_text(json.dumps(content))
    content = measured(*folders)
    assert [one.image_set for one in content] == [0, 0]
    assert sorted(one.parts.proven for one in content) == [False, True]
    (other,) = [one for one in content if not one.parts.proven]
    assert other.parts.reason == proof.OTHER_CHOSEN


def test_parts_are_compared_by_the_rule_of_the_data_set(tmp_path, faultless):
    """Train names the parts of test in another way; the rule finds them in the names of its files."""
    truth, val = draw_truth(tmp_path, 130, free=10), draw_val(tmp_path, 220)
    run = draw_run(tmp_path, tmp_path / 'runs' / STEM.format(arm='scratch'), truth, val=val)
    images = [dict(file_name='p007_view9-0123456789ab.png', part='as the page said')]
    for rule, proven in (('(p[0-9]+)_', False), (None, True)):
        content = json.loads((run / 'predictions.json').read_text())
        (run / 'predictions.json').write_text(json.dumps(content | dict(population=dict(part_rule=rule))))
        (tmp_path / 'train.json').write_text(json.dumps(dict(images=images)))
        runs, _ = read_runs([run])
        runs[0].predictions.population = dict(part_rule=rule)
        (one,) = [m for g in gather(runs, Settings(resamples=20)) for a in g.arms for m in a.members]
        assert one.parts.proven == proven
        assert one.parts.reason == ('' if proven else proof.PARTS_SEEN.format(side='train'))


def change_predictions(run, split, change):
    path = run / file_of(split)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def file_of(split):
    return 'predictions.json' if split == 'test' else f'predictions_{split}.json'


def one_content(content):
    content['digests'] = {image['file_name']: 'f' * 16 for image in content['truth']['images'][:4]}


def own_content(content):
    content['digests'] = {image['file_name']: image['file_name'] for image in content['truth']['images']}


@pytest.mark.parametrize(
    ('of_test', 'of_val', 'trained', 'why'),
    [
        (own_content, None, [], None),
        (one_content, None, [], proof.COPIES),
        (one_content, one_content, [], proof.COPIES),
        (own_content, one_content, [], None),
        (
            lambda c: c.update(digests={'p000_v0.png': 'a' * 16}),
            lambda c: c.update(digests={'v001_v0.png': 'a' * 16}),
            [],
            proof.IMAGES_SEEN.format(side='val'),
        ),
        (own_content, None, [6], proof.IMAGES_SEEN.format(side='train')),
    ],
    ids=['as drawn', 'copies in test', 'copies in both', 'copies in val', 'test in val', 'test in train'],
)
def test_copies_under_other_parts_prove_nothing(tmp_path, faultless, of_test, of_val, trained, why):
    """Sixty copies of one radiograph under sixty ids are not sixty parts, nor new ones where val has it."""
    truth, val = draw_truth(tmp_path, 130, free=10), draw_val(tmp_path, 220)
    images = [dict(id=k, file_name=f't{k}.png', part=f't{k}', width=96, height=96) for k in range(3)]
    images += [dict(truth['images'][k], part='of another name') for k in trained]
    known = {image['id'] for image in truth['images'] if image['id'] - 1 in trained}
    boxes = [a for a in truth['annotations'] if a['image_id'] in known]
    (tmp_path / 'train.json').write_text(json.dumps(dict(images=images, annotations=boxes)))
    run = draw_run(tmp_path, tmp_path / 'runs' / STEM.format(arm='scratch'), truth, val=val)
    for split, change in (('test', of_test), ('val', of_val)):
        if change:
            change_predictions(run, split, change)
    (one,) = measured(run)
    assert one.parts.proven == (why is None)
    assert one.parts.statement.startswith('Proven: ') == one.parts.proven
    assert why is None or one.parts.statement.endswith(f'no proof: {why}.')


def proving(tmp_path):
    """A run that proves something; its folder."""
    truth, val = draw_truth(tmp_path, 130, free=10), draw_val(tmp_path, 220)
    return draw_run(tmp_path, tmp_path / 'runs' / STEM.format(arm='scratch'), truth, val=val)


def record_check(run, path, date='2026-03-04T05:06:07+00:00', lacks='', **resembling):
    """Write the record of a check of the annotation files of a run."""
    (one,) = read_runs([run])[0]
    read = dict(test=one.predictions.sha256, val=one.val.sha256)
    read['train'] = next(iter(one.train_files()[0].values())) or digest(run.parents[1] / 'train.json')
    sets = [dict(name=side, sha256=None if side == lacks else sha) for side, sha in read.items()]
    counts = {f'{side}, test': count for side, count in resembling.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(sets=sets, date=date, resembling=dict(counts), findings=[])))


def test_a_proof_says_that_nobody_looked_for_lossy_copies_and_crops(tmp_path, faultless, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = proving(tmp_path)
    content = 'were not looked for: no check of these annotation files is on record (tools/check_dataset.py'
    for lacks in ('', 'train', 'val', 'test'):  # a record of other files is none
        if lacks:
            record_check(run, run / 'dataset.json', lacks=lacks, train=0, val=0)
        (one,) = measured(run)
        assert one.parts.proven and content in statement_of(one)
    for damaged in ('{"resembling": {}, "sets": [{}]}', '[]', '{', '{"resembling": {}, "sets": [1]}'):
        (run / 'dataset.json').write_text(damaged)
        assert content in statement_of(one)
    report.main([str(run), '--out', str(tmp_path / 'report'), '--gallery', '0'])
    assert 'near duplicates not looked for' in (tmp_path / 'report' / 'index.html').read_text()
    (row,) = csv.DictReader((tmp_path / 'report' / 'parts.csv').open())
    assert row['proof'].endswith('Copies in training or val: near duplicates not looked for.')


def test_a_proof_says_what_the_check_on_record_found(tmp_path, faultless, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = proving(tmp_path)
    record_check(run, tmp_path / 'work_dirs' / 'other' / 'dataset.json', train=0, val=0)
    (one,) = measured(run)
    assert one.parts.proven
    assert (
        'No image resembles one of training or val (near duplicates and crops; tools/check_dataset.py, '
        '2026-03-04).'
    ) in statement_of(one)
    record_check(run, run / 'dataset.json', '2026-03-05', train=2, val=1)  # a later one
    assert '3 of these images resemble one of training or val (near duplicates and crops' in statement_of(one)
    assert f'look at the pairs in {run}/dataset.html before you rely on this' in statement_of(one)
    report.main([str(run), '--out', str(tmp_path / 'report'), '--gallery', '0'])
    page = (tmp_path / 'report' / 'index.html').read_text()
    assert '3 images resemble one of training or val: look at them' in page


def test_a_critical_class_that_is_not_the_first_is_refused(tmp_path, faultless):
    """What escapes would be counted of minor defects, and called critical."""
    run = draw_run(tmp_path, tmp_path / 'runs' / STEM.format(arm='scratch'), draw_truth(tmp_path, 4))
    change_predictions(run, 'test', lambda content: content.update(classes=['minor', 'Critical']))
    runs, (reason,) = read_runs([run])
    assert runs == [] and "classes ['minor', 'Critical'], expected the critical one first" in reason


@pytest.mark.parametrize('where', ['train', 'test'])
def test_ids_that_differ_in_case_alone_are_one_part(tmp_path, faultless, where):
    truth, val = draw_truth(tmp_path, 130, free=10), draw_val(tmp_path, 220)
    trained = 'P007' if where == 'train' else 't'
    (tmp_path / 'train.json').write_text(json.dumps(dict(images=[dict(file_name='t.png', part=trained)])))
    if where == 'test':
        truth['images'][15]['part'] = 'P007'
    run = draw_run(tmp_path, tmp_path / 'runs' / STEM.format(arm='scratch'), truth, val=val)
    (one,) = measured(run)
    assert not one.parts.proven
    why = dict(train='parts of test are in train', test='ids of parts of test differ in upper and lower case')
    assert why[where] in one.parts.statement


def test_predictions_of_val_of_another_checkpoint_fix_nothing(tmp_path, faultless):
    run = draw_run(tmp_path, tmp_path / 'runs' / STEM.format(arm='scratch'), draw_truth(tmp_path, 4))
    change_predictions(run, 'val', lambda content: content.update(checkpoint='epoch_9.pth'))
    runs, (reason,) = read_runs([run])
    assert runs == []
    assert 'predictions of val are of epoch_9.pth, those of test of epoch_8.pth' in reason


# ------------------------------------------------------------------------------------ one sentence, no luck


def alarm_everywhere(truth, *_):
    """Return what a detector finds that draws one critical box in the corner of every image."""
    return [dict(image_id=i['id'], category_id=1, bbox=[0, 0, 2, 2], score=0.9) for i in truth['images']]


def test_a_detector_that_rejects_everything_by_luck_proves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(drawn_runs, 'detect', alarm_everywhere)
    (tmp_path / 'train.json').write_text(json.dumps(dict(images=[dict(file_name='t.png', part='t')])))
    truth, val = draw_truth(tmp_path, 150, free=50), draw_val(tmp_path, 150)
    run = draw_run(tmp_path, tmp_path / 'runs' / STEM.format(arm='scratch'), truth, val=val)
    (one,) = measured(run)
    assert one.parts.measures.escape.events == 0
    assert not one.parts.proven
    assert 'another detection alone' in one.parts.statement and 'Proven' not in one.parts.statement


def test_a_proof_says_both_rates_with_bounds_the_share_of_luck_and_its_population(tmp_path, faultless):
    (tmp_path / 'train.json').write_text(json.dumps(dict(images=[dict(file_name='t.png', part='t')])))
    truth, val = draw_truth(tmp_path, 130, free=30), draw_val(tmp_path, 220)
    run = draw_run(tmp_path, tmp_path / 'runs' / STEM.format(arm='scratch'), truth, val=val)
    (one,) = measured(run)
    sentence = statement_of(one)
    assert sentence.startswith('Proven: critical escape <= 0.05')
    assert 'escaped: 0 of 100' in sentence and 'sound parts rejected: 0 of 30' in sentence
    assert one.parts.statement.count('at most') == 2
    assert 'strata: view' in sentence  # the worst of them, by itself
    assert '0 of 100 rejections of critical parts (0%) are by another detection alone' in sentence
    assert 'The population that these parts are of is not recorded.' in sentence
    assert 'does not cover other series, dates, machines' in sentence


def test_the_population_is_said_where_it_is_recorded():
    images = [
        dict(file_name=f'{k}.png', part=k // 2, series='S1', date_captured='2026-03-04', machine='M2')
        for k in range(4)
    ]
    coco = dict(images=images, info=dict(converter='tools/convert_dataset.py coco', group='P[0-9]+'))
    result = describe_population(coco, ['12-bit'])
    assert (result['images'], result['parts'], result['part_rule']) == (4, 2, 'P[0-9]+')
    words = population_in_words(result)
    assert words.startswith(
        'Population: 2 parts on 4 images; series S1; dates 2026-03-04; machine M2; depth 12-bit;'
    )
    assert "drawn by: tools/convert_dataset.py coco --group 'P[0-9]+'" in words
    unknown = population_in_words(describe_population(dict(images=[dict(file_name='a')]), []))
    assert 'parts not known on 1 images; series not recorded; dates not recorded' in unknown


# --------------------------------------------------------------------------- the folder that runs is judged


def test_report_and_export_choose_one_threshold(tmp_path, monkeypatch):
    """Val has 36 critical parts, too few to prove anything: both take the same threshold by one rule."""
    scores = dict(zip(range(1, 1000), np.random.default_rng(0).uniform(0.6, 0.95, 999), strict=False))

    def detect(truth, *_):
        return [
            dict(image_id=a['image_id'], category_id=a['category_id'], bbox=a['bbox'], score=scores[a['id']])
            for a in truth['annotations']
        ]

    monkeypatch.setattr(drawn_runs, 'detect', detect)
    truth, val = draw_truth(tmp_path, 150, free=0), draw_val(tmp_path, 36)
    run = draw_run(tmp_path, tmp_path / 'runs' / STEM.format(arm='scratch'), truth, val=val)
    (one,) = measured(run)
    exported = folder.read(export_to(tmp_path / 'exported'))
    exported.curve = []
    choose_threshold(exported, val, as_found(val, detect(val)), 0.05)
    assert exported.threshold == one.threshold
    assert one.parts.threshold == exported.threshold


@pytest.fixture
def exported(tmp_path):
    """An exported folder that finds a bright spot, and an annotated test set: 64 critical parts, 20 sound."""
    data = tmp_path / 'data'
    (data / 'images').mkdir(parents=True)
    images, annotations = [], []
    for k in range(84):
        critical = k < 64
        pixels = spot(20, 30, 250 if critical else 110 + (k % 2) * 100, SIDE)
        pixels[-1 - k // SIDE, k % SIDE] += 1  # no two are copies
        cv2.imwrite(str(data / 'images' / f'P{k:02d}_a.png'), pixels)
        images.append(dict(id=k + 1, file_name=f'P{k:02d}_a.png', width=SIDE, height=SIDE, part=f'P{k:02d}'))
        if critical:
            annotations.append(
                dict(id=k + 1, image_id=k + 1, category_id=1, bbox=[16, 26, 8, 8], area=64, iscrowd=0)
            )
    categories = [dict(id=1, name='critical'), dict(id=2, name='minor')]
    coco = dict(images=images, annotations=annotations, categories=categories, info=dict(group='(P[0-9]+)_'))
    (data / 'test.json').write_text(json.dumps(coco))
    for split in ('train', 'val'):
        (data / f'{split}.json').write_text(
            json.dumps(dict(images=[dict(file_name=f'{split}.png', part=split)]))
        )
    digests = {
        split: {
            str(data / f'{split}.json'): hashlib.sha256((data / f'{split}.json').read_bytes()).hexdigest()
        }
        for split in ('train', 'val')
    }
    origin = dict(
        config=STEM.format(arm='scratch'),
        checkpoint='run/epoch_8.pth',
        val_ap50=0.8,
        data=digests,
        part_rule='(P[0-9]+)_',
        severity=None,
    )
    path = export_to(tmp_path / 'line', origin=origin, threshold=0.9, threshold_reason='chosen on val')
    return path, data


def test_the_exported_engine_is_tested_and_judged_at_its_own_threshold(exported, tmp_path, capsys):
    path, data = exported
    assert test_tool.main([str(path), str(data / 'test.json')]) == 0
    tested = tmp_path / 'line.test'
    content = json.loads((tested / 'test.json').read_text())
    assert content['metrics']['xray/AP50_critical'] == pytest.approx(1)
    assert content['metrics']['xray/AP50_minor'] is None
    assert sorted(p.name for p in path.iterdir()) == ['metadata.json', 'model.onnx']  # nothing is added to it
    assert report.main(['--exported', str(path), '--out', str(tmp_path / 'report'), '--gallery', '0']) == 0
    printed = capsys.readouterr().out
    assert 'line (exported): Proven: critical escape <= 0.05 with 95% confidence at score >= 0.9' in printed
    assert 'escaped: 0 of 64' in printed and 'sound parts rejected: 0 of 20' in printed
    assert 'Population: 84 parts on 84 images' in printed and "--group '(P[0-9]+)_'" in printed
    record = json.loads((tmp_path / 'report/report.json').read_text())['runs'][0]
    assert (
        record['threshold']
        == record['parts']['threshold']
        == record['pod'].get('critical', dict(threshold=0.9))['threshold']
        == 0.9
    )


def test_a_threshold_that_lets_parts_escape_is_told_of_the_folder(exported, tmp_path, capsys):
    path, data = exported
    shutil.rmtree(path)
    origin = dict(config=STEM.format(arm='scratch'), val_ap50=0.8, data=dict(train={}, val={}))
    export_to(path, origin=origin, threshold=0.99)
    test_tool.main([str(path), str(data / 'test.json')])
    report.main(['--exported', str(path)])
    printed = capsys.readouterr().out
    assert 'line (exported): Not proven' in printed and 'escaped: 64 of 64' in printed


def test_what_is_no_test_of_the_folder_is_left_out(exported, tmp_path, capsys):
    path, data = exported
    assert report.main(['--exported', str(path)]) == 1
    assert 'not tested; run tools/test.py' in capsys.readouterr().err
    test_tool.main([str(path), str(data / 'test.json')])
    file = tmp_path / 'line.test' / 'test.json'
    content = json.loads(file.read_text())
    content['exported']['files'] = {'model.onnx': '0' * 64}
    file.write_text(json.dumps(content))
    capsys.readouterr()
    assert report.main(['--exported', str(path)]) == 1
    assert 'has another graph than was tested' in capsys.readouterr().err
    assert report.main([str(tmp_path / 'line.test')]) == 1
    assert 'name that folder by --exported' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('argv', 'expected'),
    [
        (['--val'], '--val: of CONFIG CHECKPOINT alone'),
        (['--cfg-options', 'a=1'], '--cfg-options: of CONFIG CHECKPOINT alone'),
    ],
)
def test_options_of_the_other_form_are_refused(exported, capsys, argv, expected):
    path, data = exported
    with pytest.raises(SystemExit) as stopped:
        test_tool.main([str(path), str(data / 'test.json'), *argv])
    assert stopped.value.code == 2 and expected in capsys.readouterr().err


def test_parts_that_the_folder_was_trained_on_prove_nothing(exported, tmp_path, capsys):
    path, data = exported
    train = data / 'train.json'
    train.write_text(json.dumps(dict(images=[dict(file_name='P07_b.png', part='as the page said')])))
    content = json.loads((path / 'metadata.json').read_text())
    content.pop('format')
    content.pop('checksum')
    content['origin']['data']['train'][str(train)] = hashlib.sha256(train.read_bytes()).hexdigest()
    folder.write(path, Exported(**content))
    test_tool.main([str(path), str(data / 'test.json')])
    report.main(['--exported', str(path)])
    printed = capsys.readouterr().out
    assert f'no proof: {proof.PARTS_SEEN.format(side="train")}' in printed


@pytest.mark.parametrize('change', [dict(threshold=0.5), dict(rejecting=['critical', 'minor'])])
def test_a_folder_that_was_changed_after_its_test_is_left_out(exported, capsys, change):
    """Its threshold, say, picked off the curve of the report, with checksums that fit again."""
    path, data = exported
    test_tool.main([str(path), str(data / 'test.json')])
    content = json.loads((path / 'metadata.json').read_text())
    content.pop('format')
    content.pop('checksum')
    folder.write(path, Exported(**(content | change)))
    capsys.readouterr()
    assert report.main(['--exported', str(path)]) == 1
    printed = capsys.readouterr()
    assert 'is another folder than was tested' in printed.err and 'Proven' not in printed.out


def test_copies_of_a_radiograph_are_no_further_parts_of_the_folders_test(exported, capsys):
    """Sixty turned, mirrored and rescaled copies of four radiographs are not sixty parts."""
    path, data = exported
    for k in range(4, 64):
        pixels = cv2.imread(str(data / 'images' / f'P{k % 4:02d}_a.png'), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(data / 'images' / f'P{k:02d}_a.png'), np.rot90(pixels[:, :: (-1) ** k], k % 3))
    test_tool.main([str(path), str(data / 'test.json')])
    report.main(['--exported', str(path)])
    printed = capsys.readouterr().out
    assert proof.COPIES in printed and 'Proven' not in printed


def test_another_map_of_severities_is_said():
    assert another_map(None, dict(severity='plant.yaml')) == another_map('a', dict(severity='a')) == {}
    result = describe_population(dict(images=[dict(file_name='a')]), []) | another_map(
        'b.yaml', dict(severity=None)
    )
    assert 'severities by b.yaml, which is not the map of the validation set' in population_in_words(result)


def test_a_folder_goes_before_a_checkpoint_on_the_same_images(exported, tmp_path, capsys):
    """The checkpoint that was tested on the same images proves nothing."""
    path, data = exported
    test_tool.main([str(path), str(data / 'test.json')])
    predictions, _ = evaluate(path, data / 'test.json')
    assert len(predictions['digests']) == 84 and predictions['population']['depths'] == ['8-bit']
    test = json.loads((tmp_path / 'line.test' / 'test.json').read_text())
    run = tmp_path / STEM.format(arm='scratch')
    run.mkdir()
    (run / 'predictions.json').write_text(json.dumps(predictions))
    (run / 'test.json').write_text(json.dumps({k: v for k, v in test.items() if k != 'exported'}))
    report.main([str(run), '--exported', str(path), '--out', str(tmp_path / 'report'), '--gallery', '0'])
    proofs = [row['proof'] for row in csv.DictReader((tmp_path / 'report' / 'parts.csv').open())]
    assert sum(proof.startswith('Proven') for proof in proofs) == 1
    rows = csv.DictReader((tmp_path / 'report' / 'parts.csv').open())
    assert sorted(row['parts with a refused view'][:7] for row in rows) == ['0 of 84', '–']
    assert any('and the folder runs on the line' in proof for proof in proofs)


def test_a_refused_frame_is_a_third_outcome(exported, tmp_path, capsys):
    """One critical part is blank, one sound one of another depth, one damaged: none stops the judgement."""
    path, data = exported
    images = data / 'images'
    cv2.imwrite(str(images / 'P03_a.png'), np.full((SIDE, SIDE), 7, np.uint8))
    cv2.imwrite(str(images / 'P80_a.png'), spot(20, 30, 40000, SIDE, np.uint16))
    (images / 'P81_a.png').write_bytes((images / 'P81_a.png').read_bytes()[:60])
    assert test_tool.main([str(path), str(data / 'test.json')]) == 0
    printed = capsys.readouterr().out
    assert '3 of 84 radiographs were refused' in printed and 'P03_a.png: holds no picture' in printed
    content = json.loads((tmp_path / 'line.test' / 'predictions.json').read_text())
    assert list(content['refused']) == ['P03_a.png', 'P80_a.png', 'P81_a.png']
    assert 'expected 8-bit unsigned pixels' in content['refused']['P80_a.png']

    assert report.main(['--exported', str(path), '--out', str(tmp_path / 'report')]) == 0
    printed = capsys.readouterr().out
    assert 'Not proven' in printed and 'would prove it; escaped: 1 of 64' in printed
    assert 'an inspector decides: 3 of 84' in printed and 'without a refused view: 0 of 63' in printed
    rows = list(csv.DictReader((tmp_path / 'report' / 'refused.csv').open()))
    assert [(row['file'], row['part'], row['truth']) for row in rows] == [
        ('P03_a.png', 'P03', 'critical'),
        ('P80_a.png', 'P80', 'defect-free'),
        ('P81_a.png', 'P81', 'defect-free'),
    ]
    (parts,) = csv.DictReader((tmp_path / 'report' / 'parts.csv').open())
    assert parts['parts with a refused view'].startswith('3 of 84 = 3.57%, at most')
    page = (tmp_path / 'report' / 'index.html').read_text()
    assert 'Parts with a refused view, which go to an inspector' in page
    assert '1 of them with a refused view, counted as escaped' in page
    assert '2 of them with a refused view, counted as rejected' in page
    assert 'too many critical parts have a refused view, which counts as escaped' in page
    (escape,) = csv.DictReader((tmp_path / 'report' / 'escapes_and_false_alarms.csv').open())
    assert (escape['kind'], escape['file']) == ('refused', 'P03_a.png')


def test_the_gray_level_band_of_a_folder_refuses_and_does_not_stop(exported, tmp_path, capsys):
    path, data = exported
    levels = [measure(cv2.imread(str(data / 'images' / f'P{k:02d}_a.png'), -1)) for k in range(84)]
    content = json.loads((path / 'metadata.json').read_text())
    content.pop('format')
    content.pop('checksum')
    folder.write(path, Exported(**(content | dict(gray_levels=band_of(levels)))))
    cv2.imwrite(str(data / 'images' / 'P70_a.png'), spot(20, 30, 250, SIDE) // 4)
    assert test_tool.main([str(path), str(data / 'test.json')]) == 0
    refused = json.loads((tmp_path / 'line.test' / 'predictions.json').read_text())['refused']
    assert list(refused) == ['P70_a.png']
    assert 'percentile' in refused['P70_a.png']
    report.main(['--exported', str(path)])
    printed = capsys.readouterr().out
    assert 'Proven: ' in printed and 'sound parts rejected: 1 of 20' in printed


def test_a_set_of_which_nothing_can_be_inspected_is_one_line(exported, capsys):
    path, data = exported
    for file in (data / 'images').iterdir():
        cv2.imwrite(str(file), np.zeros((SIDE, SIDE), np.uint8))
    assert test_tool.main([str(path), str(data / 'test.json')]) == 1
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'none of its 84 images can be inspected' in error


def test_refused_names_that_are_no_test_images_are_said(exported, tmp_path, capsys):
    path, data = exported
    test_tool.main([str(path), str(data / 'test.json')])
    change_predictions(tmp_path / 'line.test', 'test', lambda c: c.update(refused={'other.png': 'dark'}))
    assert report.main(['--exported', str(path)]) == 1
    assert 'image other.png was refused, expected one of the test set' in capsys.readouterr().err


def test_an_unreadable_data_set_is_one_line(exported, tmp_path, capsys):
    path, data = exported
    cv2.imwrite(str(data / 'images' / 'P07_a.png'), spot(20, 30, 250, SIDE)[:-8])
    assert test_tool.main([str(path), str(data / 'test.json')]) == 1
    error = capsys.readouterr().err
    expected = (
        f'P07_a.png: {SIDE} x {SIDE - 8} px, but {data}/test.json says {SIDE} x {SIDE}; convert the data set'
    )
    assert error.count('\n') == 1 and expected in error and not (tmp_path / 'line.test').exists()
    (data / 'images' / 'P07_a.png').unlink()
    assert test_tool.main([str(path), str(data / 'test.json')]) == 1
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'P07_a.png: 1 images missing' in error and '--images' in error
    assert test_tool.main([str(path), str(data / 'none.json')]) == 2
