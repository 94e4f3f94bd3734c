"""Ensembles: the boxes of several detectors averaged, measured, and read by the report."""

import json

import pytest
from helpers.drawn_runs import draw_run, draw_truth, draw_val

from projects.report.ensemble import fuse, main
from projects.report.predictions import FILES
from projects.report.runs import read_runs

TRUTH = dict(
    images=[
        dict(id=1, file_name='a.png', width=96, height=96),
        dict(id=2, file_name='b.png', width=96, height=96),
    ],
    annotations=[dict(id=1, image_id=1, category_id=1, bbox=[10.0, 10.0, 20.0, 20.0], area=400.0, iscrowd=0)],
    categories=[dict(id=1, name='critical'), dict(id=2, name='minor')],
)


def predicted(*found, **other):
    boxes = [dict(image_id=1, category_id=label, bbox=box, score=score) for box, score, label in found]
    return dict(classes=['critical', 'minor'], sha256='0', truth=TRUTH, detections=boxes) | other


@pytest.fixture
def members(tmp_path):
    """Three detectors of equal skill, tested on val too."""
    truth, val = draw_truth(tmp_path), draw_val(tmp_path)
    return [draw_run(tmp_path, tmp_path / f'run{seed}', truth, seed=seed, val=val) for seed in range(3)]


def test_boxes_of_one_class_that_overlap_are_their_mean_by_score():
    first = predicted(([10.0, 10.0, 20.0, 20.0], 0.6, 1), ([60.0, 60.0, 10.0, 10.0], 0.5, 1))
    second = predicted(([13.0, 10.0, 20.0, 23.0], 0.3, 1), ([60.0, 60.0, 10.0, 10.0], 0.4, 2))
    fused = fuse([first, second], ['a', 'b'])
    found = sorted((one['category_id'], one['score'], one['bbox']) for one in fused['detections'])
    assert [(label, round(score, 4)) for label, score, _ in found] == [(1, 0.25), (1, 0.45), (2, 0.2)]
    # Corners (10, 10, 30, 30) by two thirds and (13, 10, 33, 33) by one.
    assert found[1][2] == pytest.approx([11, 10, 20, 21], abs=1e-4)
    assert fused['checkpoint'] == 'ensemble of a, b'
    assert {one['image_id'] for one in fused['detections']} == {1}
    assert (
        fuse([first, predicted(([13.0, 10.0, 20.0, 23.0], 0.3, 1))], 'ab', iou=0.9)['detections'][1]['score']
        < 0.3
    )


@pytest.mark.parametrize(
    ('other', 'reason'),
    [
        (dict(classes=['minor', 'critical']), 'b: was tested with other classes than a'),
        (dict(sha256='1'), 'b: was tested with another annotation file than a'),
        (dict(truth=TRUTH | dict(annotations=[])), 'b: was tested with other annotations than a'),
        (dict(refused={'a.png': 'too dark'}), 'b: refused an image'),
        (dict(detections=[dict(segmentation={})]), 'b: predicts masks'),
    ],
)
def test_what_cannot_be_averaged_is_refused(other, reason):
    with pytest.raises(ValueError, match=reason):
        fuse([predicted(), predicted(**other)], ['a', 'b'])


def test_an_ensemble_is_a_tested_run_of_its_own(members, tmp_path, capsys):
    out = tmp_path / 'ensemble'
    assert main([*map(str, members), '--out', str(out)]) == 0
    rows = [line.split(' | ') for line in capsys.readouterr().out.splitlines()[2:-1]]
    assert [row[0] for row in rows] == ['| val'] * 4 + ['| test'] * 4
    for split in (rows[:4], rows[4:]):
        alone, together = [float(row[2]) for row in split[:3]], float(split[3][2])
        assert together > max(alone)
    (run,), left_out = read_runs([out])
    assert not left_out
    assert run.val.checkpoint == run.predictions.checkpoint
    assert round(run.result['metrics']['AP50'], 3) == float(rows[-1][2])
    assert run.train_files() == ({}, False)  # nothing is known of training, so nothing is proven


def test_val_chooses_and_test_stays_closed(members, capsys):
    for member in members:
        (member / FILES['test']).unlink()
    assert main([*map(str, members), '--val', '--iou', '0.6']) == 0
    assert capsys.readouterr().out.count('| val |') == 4
    assert main([*map(str, members)]) == 1
    assert f'{members[0] / FILES["test"]}: expected boxes' in capsys.readouterr().err


def test_wrong_use_is_one_line(members, tmp_path, capsys):
    for arguments in ([members[0]], [*members, '--iou', '1'], [*members, '--val', '--out', tmp_path / 'out']):
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments)])
        assert end.value.code == 2
    capsys.readouterr()
    assert main([str(members[0])] * 2) == 1
    (members[1] / FILES['val']).write_text(json.dumps(dict(task='severity')))
    assert main([*map(str, members), '--val']) == 1
    lines = capsys.readouterr().err.splitlines()
    assert 'named twice' in lines[0] and 'expected boxes as tools/test.py writes them (KeyError' in lines[1]
    assert len(lines) == 2
