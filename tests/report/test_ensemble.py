"""Ensembles: the boxes of several detectors averaged, measured, and read by the report."""

import json
import shutil
from dataclasses import replace

import pytest
from helpers.drawn_runs import draw_probe, draw_run, draw_truth, draw_val, find_all

from projects.measures.images import read_images
from projects.report.ensemble import fuse, main
from projects.report.predictions import FILES, Predictions
from projects.report.runs import read_runs
from tools.report import main as report

TRUTH = dict(
    images=[dict(id=k, file_name=f'{k}.png', width=96, height=96) for k in (1, 2)],
    annotations=[dict(id=1, image_id=1, category_id=1, bbox=[10.0, 10.0, 20.0, 20.0], area=400.0, iscrowd=0)],
    categories=[dict(id=1, name='critical'), dict(id=2, name='minor')],
)
WHERE = dict(ann_file='test.json', sha256='0', folder='images', window=dict(type='full'), checkpoint='a.pth')


def predicted(*found):
    boxes = [
        dict(image_id=1, category_id=label, bbox=box, score=score, **more)
        for box, score, label, more in found
    ]
    inspected = read_images(TRUTH, boxes)
    return Predictions('detection', ['critical', 'minor'], truth=TRUTH, inspected=inspected, **WHERE)


def box(*corner_and_size, score, label=1, **more):
    return list(map(float, corner_and_size)), score, label, more


MASKED = box(1, 1, 9, 9, score=0.5, area=50.0, segmentation={})


@pytest.fixture
def members(tmp_path):
    """Three detectors of equal skill, tested on val too."""
    truth, val = draw_truth(tmp_path), draw_val(tmp_path)
    return [draw_run(tmp_path, tmp_path / f'run{seed}', truth, seed=seed, val=val) for seed in range(3)]


def test_boxes_of_one_class_that_overlap_are_their_mean_by_score():
    first = predicted(box(10, 10, 20, 20, score=0.6), box(60, 60, 10, 10, score=0.5))
    second = predicted(
        box(13, 10, 20, 23, score=0.3), box(60, 60, 10, 10, score=0.4, label=2), box(60, 60, 10, 10, score=0)
    )
    fused = fuse([first, second], ['a', 'b'])
    found = sorted((one['category_id'], one['score'], one['bbox']) for one in fused['detections'])
    assert [(label, round(score, 4)) for label, score, _ in found] == [(1, 0.25), (1, 0.45), (2, 0.2)]
    # Corners (10, 10, 30, 30) by two thirds and (13, 10, 33, 33) by one.
    assert found[1][2] == pytest.approx([11, 10, 20, 21], abs=1e-4)
    assert fused['checkpoint'] == 'ensemble of a, b; boxes of an IoU of 0.55 averaged'
    assert len(fuse([first, second], ['a', 'b'], iou=0.9)['detections']) == 4


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (dict(classes=['minor', 'critical']), 'b: was tested with other classes than a'),
        (dict(sha256='1'), 'b: was tested with another annotation file than a'),
        (dict(truth=TRUTH | dict(annotations=[])), 'b: was tested with other annotations than a'),
        (dict(refused={'1.png': 'too dark'}), 'b: refused an image'),
        (
            dict(inspected=predicted(box(1, 1, 9, 9, score=0.5, area=50.0, segmentation={})).inspected),
            'b: predicts masks',
        ),
        (dict(inspected=predicted(box(1, 1, 9, 9, score=7.0)).inspected), 'b: scores outside of 0 to 1'),
    ],
)
def test_what_cannot_be_averaged_is_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        fuse([predicted(), replace(predicted(), **change)], ['a', 'b'])


def test_an_ensemble_is_a_tested_run_of_its_own(members, tmp_path, capsys):
    out = tmp_path / 'ensemble'
    assert main([*map(str, members), '--out', str(out)]) == 0
    rows = [line.split(' | ') for line in capsys.readouterr().out.splitlines()[2:-1]]
    assert [row[0] for row in rows] == ['| val'] * 4 + ['| test'] * 4
    for split in (rows[:4], rows[4:]):
        alone, together = [float(row[2]) for row in split[:3]], float(split[3][2])
        assert together > max(alone)
    stated = json.loads((members[2] / 'test.json').read_text())['metrics']['xray/AP50']
    assert float(rows[6][2]) == pytest.approx(stated, abs=6e-4)
    assert main([*map(str, members), '--iou', '0.7', '--out', str(tmp_path / 'other')]) == 0
    runs, left_out = read_runs([out, tmp_path / 'other'])
    assert not left_out and len(runs) == 2
    assert runs[0].val.checkpoint == runs[0].predictions.checkpoint
    assert round(runs[0].result['metrics']['AP50'], 3) == float(rows[-1][2])


def test_nothing_is_proven_of_an_ensemble(tmp_path, capsys, monkeypatch):
    """Both members would be proven; what they learnt from is not recorded of their ensemble."""
    monkeypatch.setattr('helpers.drawn_runs.detect', find_all)
    truth, val = draw_truth(tmp_path, 140), draw_val(tmp_path, 140)
    members = [draw_run(tmp_path, tmp_path / f'run{seed}', truth, seed=seed, val=val) for seed in range(2)]
    assert main([*map(str, members), '--out', str(tmp_path / 'ensemble')]) == 0
    proofs = []
    for number, run in enumerate((members[0], tmp_path / 'ensemble')):
        assert report([str(run), '--out', str(tmp_path / f'report{number}')]) == 0
        proofs.append('Proven: ' in capsys.readouterr().out)
    assert proofs == [True, False]


def test_no_run_is_overwritten_and_nothing_is_mixed_with_an_older_ensemble(members, tmp_path, capsys):
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    for out in (members[0], members[2], tmp_path, tmp_path / 'train.json'):
        with pytest.raises(SystemExit) as end:
            main([str(members[0]), str(members[1]), '--out', str(out)])
        assert end.value.code == 2
        assert 'expected a new or empty folder' in capsys.readouterr().err
    assert main([str(members[0]), str(members[1]), '--out', str(tmp_path / 'train.json' / 'out')]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith('error: ')
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == before


def test_what_the_report_leaves_out_is_no_member(members, tmp_path, capsys):
    epochs = json.loads((members[1] / FILES['val']).read_text())
    (members[1] / FILES['val']).write_text(json.dumps(epochs | dict(checkpoint='epoch_1.pth')))
    assert main([*map(str, members)]) == 1
    assert 'a threshold would be of another model' in capsys.readouterr().err
    (members[1] / 'failed.json').write_text(json.dumps(dict(step='test', reason='out of memory')))
    for flags in ([], ['--val']):
        assert main([*map(str, members), *flags]) == 1
        assert 'failed in a study' in capsys.readouterr().err
    (tmp_path / 'link').symlink_to(members[0])
    for again in (members[0], tmp_path / 'link', f'{members[2]}/../{members[0].name}'):
        assert main([str(members[0]), str(again)]) == 1
        assert 'a run is given twice' in capsys.readouterr().err


def test_classifiers_of_whole_images_have_no_boxes(tmp_path, capsys):
    truth = draw_truth(tmp_path, free=0)
    truth['annotations'] = [a for a in truth['annotations'] if a['category_id'] == 2 or a['image_id'] % 4 < 2]
    probes = [draw_probe(tmp_path, tmp_path / init, truth, init, 0.5) for init in ('scratch', 'simsiam')]
    assert main([*map(str, probes)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error')]
    assert f'{probes[0]}: classifies whole images' in line


def test_val_chooses_and_test_stays_closed(members, tmp_path, capsys):
    for member in members:
        (member / FILES['test']).rename(tmp_path / f'{member.name}.json')
    assert main([*map(str, members), '--val', '--iou', '0.6']) == 0
    assert capsys.readouterr().out.count('| val |') == 4
    assert main([*map(str, members)]) == 1
    assert f'{members[0] / FILES["test"]}: not found' in capsys.readouterr().err
    for member in members:
        shutil.move(tmp_path / f'{member.name}.json', member / FILES['test'])
    (members[1] / FILES['val']).unlink()
    assert main([*map(str, members)]) == 0
    captured = capsys.readouterr()
    assert f'{members[1]}: has no predictions of val, which are left out' in captured.err
    assert '| val |' not in captured.out and captured.out.count('| test |') == 4


@pytest.mark.parametrize('flags', [['--iou', '1'], ['--iou', 'nan'], ['--val', '--out', 'out']])
def test_wrong_use_exits_2(members, flags):
    with pytest.raises(SystemExit) as end:
        main([*map(str, members), *flags])
    assert end.value.code == 2
    with pytest.raises(SystemExit):
        main([str(members[0])])
