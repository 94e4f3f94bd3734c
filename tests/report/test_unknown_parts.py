"""From the converter to report, check, POD and export: parts that nobody knows are no parts."""

import csv
import json

import pytest
from helpers import drawn_runs
from helpers.check_config import CONFIG
from helpers.drawn_runs import CLASSES, STEM, as_found, draw_run, draw_truth, find_all
from helpers.exported import export_to

from projects.line.export.threshold import choose_threshold
from projects.line.runtime import folder
from tools import check_dataset, convert_dataset, report

PARTS = 180  # two views each: 72 images of test, enough to prove 5 % if each were a part


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
    """Radiographs with COCO labels as a plant has them: no `part`, and file names that look like views."""
    root = tmp_path_factory.mktemp('labelled')
    truth = draw_truth(root, PARTS, free=0)
    for image in truth['images']:
        del image['part'], image['view']
    for box in truth['annotations']:
        del box['type'], box['contrast']
    (root / 'labels.json').write_text(json.dumps(truth))
    (root.parent / 'severity.yaml').write_text('critical: critical\nminor: minor\n')
    return root, root.parent / 'severity.yaml'


def follow(labelled, tmp_path, monkeypatch, capsys, *group):
    """Convert, check, test, export and report; returns the splits and what each of the tools said."""
    source, severity = labelled
    out = tmp_path / 'out'
    said = {}
    argv = ['coco', str(source), str(out), '--severity', str(severity), *group]
    assert convert_dataset.main(argv) == 0
    said['converter'] = capsys.readouterr().out
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(root=out, px=96, classes=CLASSES))
    check_dataset.main([str(config), '--out', str(tmp_path / 'checked'), '--workers', '1'])
    said['check'] = capsys.readouterr().out
    monkeypatch.setattr(drawn_runs, 'detect', find_all)
    splits = {name: json.loads((out / f'{name}.json').read_text()) for name in ('train', 'val', 'test')}
    run = draw_run(out, tmp_path / STEM.format(arm='scratch'), splits['test'], val=splits['val'])
    exported = folder.read(export_to(tmp_path / 'line'))
    choose_threshold(exported, splits['val'], as_found(splits['val'], find_all(splits['val'])), 0.05)
    said['export'] = exported.threshold_reason
    assert report.main([str(run), '--out', str(tmp_path / 'report'), '--gallery', '0']) == 0
    said['report'] = capsys.readouterr().out
    said['page'] = (tmp_path / 'report' / 'index.html').read_text()
    for table, column in (('parts', 'proof'), ('pod', 'checks')):
        rows = csv.DictReader((tmp_path / 'report' / f'{table}.csv').open())
        said[table] = ' '.join(row[column] for row in rows)
    return splits, said


def test_without_a_group_nothing_is_proven_and_the_remedy_is_named(labelled, tmp_path, monkeypatch, capsys):
    splits, said = follow(labelled, tmp_path, monkeypatch, capsys)
    images = {name: len(coco['images']) for name, coco in splits.items()}
    assert sum(images.values()) == 2 * PARTS and images['test'] == 72
    assert not any('part' in image for coco in splits.values() for image in coco['images'])
    assert 'no --group: parts not known, so no escape rate can be proven' in said.pop('converter')
    for text in said.values():
        assert 'no proof: parts not known' in text.lower() and '--group' in text
        assert 'Proven' not in text
    assert 'parts not known on 72 of 72 images of test' in said['check']


def test_with_a_group_the_same_data_are_judged(labelled, tmp_path, monkeypatch, capsys):
    splits, said = follow(labelled, tmp_path, monkeypatch, capsys, '--group', 'p[0-9]+')
    parts = {name: {image['part'] for image in coco['images']} for name, coco in splits.items()}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == PARTS
    assert not any('parts not known' in text for text in said.values())
    assert f'escaped: 0 of {len(parts["test"])}' in said['report']
    assert f'chosen on {len(parts["val"])} critical parts of validation' in said['export']
