import json

import numpy as np
import pytest

from projects.prepare.curation.rank import disagreement, rank, read_found, uncertainty
from projects.prepare.ledger import UsageError
from tools import rank_for_labelling as tool

BOX = [10, 10, 20, 20]


def write(folder, images, threshold=0.5, classes=('critical', 'minor')):
    """Write coco.json as an inspection does: by image, (bbox, score, class) of each find."""
    folder.mkdir(parents=True, exist_ok=True)
    coco = dict(
        info=dict(threshold=threshold),
        categories=[dict(id=k + 1, name=name) for k, name in enumerate(classes)],
        images=[dict(id=k + 1, file_name=name) for k, name in enumerate(images)],
        annotations=[
            dict(image_id=k + 1, bbox=bbox, score=score, category_id=label + 1)
            for k, finds in enumerate(images.values())
            for bbox, score, label in finds
        ],
    )
    (folder / 'coco.json').write_text(json.dumps(coco))
    return folder


FIRST = {
    'sound.png': [],
    'sure.png': [(BOX, 0.99, 0)],
    'near.png': [(BOX, 0.49, 0)],
    'alone.png': [(BOX, 0.9, 0)],
    'moved.png': [(BOX, 0.8, 0)],
    'class.png': [(BOX, 0.7, 0)],
}
SECOND = {
    'class.png': [(BOX, 0.7, 1)],
    'sound.png': [],
    'sure.png': [([11, 10, 20, 20], 0.98, 0)],
    'near.png': [([10, 11, 20, 20], 0.52, 0)],
    'alone.png': [],
    'moved.png': [([40, 40, 20, 20], 0.8, 0), (BOX, 0.3, 0)],
}


def test_uncertainty_and_disagreement(tmp_path):
    a, b = (read_found(write(tmp_path / k, case)) for k, case in (('a', FIRST), ('b', SECOND)))
    assert uncertainty(a, 'sound.png') == 0 and uncertainty(a, 'near.png') == pytest.approx(0.98)
    assert uncertainty(a, 'sure.png') == pytest.approx(0.02)
    expected = {
        'sound.png': 0,
        'sure.png': 0.01,
        'near.png': 0.03,
        'alone.png': 0.9,
        'moved.png': 0.8,
        'class.png': 0.7,
    }
    assert {name: disagreement(a, b, name) for name in FIRST} == pytest.approx(expected)
    assert {name: disagreement(b, a, name) for name in FIRST} == pytest.approx(expected)
    assert [row[0] for row in rank(a, b, 'disagreement')][:3] == ['alone.png', 'moved.png', 'class.png']
    assert rank(a, b, 'uncertainty')[0][0] == 'near.png'
    both = rank(a, b)
    assert both[-1] == ('sound.png', 0, 0) and rank(b, a) == both
    assert np.isfinite([row[1:] for row in both]).all()


@pytest.mark.parametrize('threshold', [0, 1])
def test_a_threshold_at_either_end_is_no_division_by_zero(tmp_path, threshold):
    found = read_found(write(tmp_path / 'a', FIRST, threshold))
    assert all(0 <= uncertainty(found, name) <= 1 for name in FIRST)


def test_the_tool_writes_a_table_and_a_list(tmp_path, capsys):
    a, b = write(tmp_path / 'a', FIRST), write(tmp_path / 'b', SECOND)
    (a / 'quarantine.csv').write_text('image,reason\nx.png,torn\n')
    table, listed = tmp_path / 'next.csv', tmp_path / 'next.txt'
    assert tool.main([str(a), str(b), str(table), '--by', 'disagreement']) == 0
    assert table.read_text().splitlines()[:2] == [
        'image,uncertainty,disagreement',
        'alone.png,0.100000,0.900000',
    ]
    printed = capsys.readouterr().out
    assert (
        '6 of 6 radiographs, by disagreement' in printed
        and 'note: 1 radiographs could not be read' in printed
    )
    assert tool.main([str(a), str(b), str(listed), '--most', '2', '--by', 'disagreement']) == 0
    assert listed.read_text() == 'alone.png\nmoved.png\n'


def test_names_of_any_bytes(tmp_path, capsys):
    """A table holds them as they are; a list cannot hold a line feed or half a character."""
    odd = 'left\udce9.png'  # as Python names a file of Latin-1
    a, b = (
        write(tmp_path / key, {**found, odd: [], 'two\nlines.png': []})
        for key, found in (('a', FIRST), ('b', SECOND))
    )
    (a / 'quarantine.csv').write_bytes(b'image,reason\nl\xe9.png,torn\n')
    table, listed = tmp_path / 'next.csv', tmp_path / 'next.txt'
    assert tool.main([str(a), str(b), str(table)]) == 0
    assert b'left\xe9.png,' in table.read_bytes() and 'note: 1 radiographs' in capsys.readouterr().out
    assert tool.main([str(a), str(b), str(listed)]) == 2 and not listed.exists()
    error = capsys.readouterr().err
    assert 'no name that a list can hold; write a table' in error and error.count('\n') == 1
    assert tool.main([str(a), str(b), str(listed), '--most', '2']) == 0  # they are the last ones


def test_one_detector_disagrees_on_nothing(tmp_path, capsys):
    a, b = write(tmp_path / 'a', FIRST), write(tmp_path / 'b', FIRST)
    for folder in (a, b):
        coco = json.loads((folder / 'coco.json').read_text())
        coco['info']['folder'] = 'ab' * 32
        (folder / 'coco.json').write_text(json.dumps(coco))
    assert tool.main([str(a), str(b), str(tmp_path / 'next.csv')]) == 2
    assert 'both are of the detector abababababab, expected two' in capsys.readouterr().err
    assert tool.main([str(a), str(b), str(tmp_path / 'next.csv'), '--by', 'uncertainty']) == 0


@pytest.mark.parametrize(
    'change',
    [
        dict(images=[dict(id=1, file_name='sound.png'), dict(id=1, file_name='sure.png')]),
        dict(images=[dict(id=k, file_name='sound.png') for k in range(9)]),
        dict(images=[dict(id=[1], file_name='sound.png')]),
        dict(annotations=[dict(image_id=99, bbox=BOX, score=0.5, category_id=1)]),
        dict(annotations=[dict(image_id=1, bbox=BOX, score=float('nan'), category_id=1)]),
        dict(annotations=[dict(image_id=1, bbox=BOX, score='sure', category_id=1)]),
        dict(annotations=[dict(image_id=1, bbox=BOX[:3], score=0.5, category_id=1)]),
        dict(info=dict(threshold=float('nan'))),
        dict(info=[]),
        dict(categories=['critical']),
    ],
)
def test_a_table_that_was_edited_is_one_line(tmp_path, change, capsys):
    a, b = write(tmp_path / 'a', FIRST), write(tmp_path / 'b', FIRST)
    coco = json.loads((b / 'coco.json').read_text()) | change
    (b / 'coco.json').write_text(json.dumps(coco))
    assert tool.main([str(a), str(b), str(tmp_path / 'x.csv')]) == 2
    error = capsys.readouterr().err
    assert f'{b}/coco.json: expected results of tools/infer.py' in error and error.count('\n') == 1


def test_what_does_not_fit_is_one_line(tmp_path, capsys):
    a, b = write(tmp_path / 'a', FIRST), write(tmp_path / 'b', {'sound.png': []})
    c = write(tmp_path / 'c', FIRST, classes=('critical',))
    (tmp_path / 'd').mkdir()
    (tmp_path / 'd' / 'coco.json').write_text('{"info": {}}')
    for other, message in (
        (b, '5 images were inspected by one'),
        (c, 'classes'),
        (tmp_path / 'd', 'inspect the archive again'),
        (tmp_path, 'merge its shards'),
    ):
        assert tool.main([str(a), str(other), str(tmp_path / 'x.csv')]) == 2
        errors = capsys.readouterr().err
        assert message in errors and errors.count('\n') == 1
    with pytest.raises(UsageError):
        read_found(tmp_path)
