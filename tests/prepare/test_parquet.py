import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.coco_files import any_coco

from projects.prepare import write
from projects.prepare.export import export_labels
from projects.prepare.labels.coco import read_coco_file
from projects.prepare.ledger import UsageError
from projects.prepare.parquet import convert_labels, note_of_size
from projects.radiograph.safe_parse import FormatError
from projects.study import step
from projects.xray import parquet
from projects.xray.coco import load_defects, read_coco
from projects.xray.errors import DatasetError
from projects.xray.label_table import open_defects
from tools import convert_labels as tool


@pytest.mark.parametrize('group', [7, 16384])
def test_labels_come_back_as_they_were(tmp_path, monkeypatch, group):
    monkeypatch.setattr(parquet, 'GROUP', group)
    coco = any_coco(40)
    source, large, back = (tmp_path / name for name in ('a.json', 'a.parquet', 'b.json'))
    source.write_text(json.dumps(coco))
    counts = convert_labels(source, large)
    assert (counts['images'], counts['boxes']) == (40, 120)
    assert counts['crowd'] == sum(bool(a.get('iscrowd') or a.get('ignore')) for a in coco['annotations']) > 10
    assert convert_labels(large, back) == counts
    assert json.loads(back.read_text()) == coco == read_coco(str(large))
    assert pq.read_table(large, columns=['file_name', 'width'])['width'].to_pylist() == [100] * 40


def test_what_a_column_cannot_hold_exactly_comes_back_too(tmp_path):
    odd = dict(
        images=[dict(id='x', file_name='a\nb\ud800.png', width=None, height=2**40, part=3, extra='e')],
        categories=[],
        annotations=[
            dict(
                image_id='x', id=2**70, bbox=[1, 2, 3], area='9', iscrowd=True, ignore='yes', category_id=None
            ),
            dict(image_id='x', bbox=[1, 2, 3, 2**60 + 1], area=2**53 + 1, iscrowd=300, segmentation=None),
        ],
    )
    source, large, back = (tmp_path / name for name in ('a.json', 'a.parquet', 'b.json'))
    source.write_text(json.dumps(odd))
    convert_labels(source, large)
    convert_labels(large, back)
    assert json.dumps(json.loads(back.read_text()), sort_keys=True) == json.dumps(odd, sort_keys=True)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"images": [], "annotations": []}', 'a list `categories`'),
        (
            '{"images": [{"id": 1}, {"id": 1}], "annotations": [], "categories": []}',
            'an id of its own for each',
        ),
        ('{"images": [], "annotations": [{"image_id": 4}], "categories": []}', 'found one of the image 4'),
        ('{"images": [3], "annotations": [], "categories": []}', 'records in the lists'),
        ('{"images": [], "images": [], "annotations": [], "categories": []}', "'images' twice"),
        ('{"images": [{"id": 1, "id": 2}], "annotations": [], "categories": []}', 'found .id. twice'),
        ('{"images": [', 'COCO JSON'),
        ('[' * 100_000, 'COCO JSON'),
        ('{"images": ' + '[' * 100_000, 'COCO JSON'),
    ],
)
def test_bad_json_is_one_line_and_leaves_nothing(tmp_path, capsys, content, message):
    source = tmp_path / 'a.json'
    source.write_text(content)
    assert tool.main([str(source), str(tmp_path / 'a.parquet')]) == 2
    result = capsys.readouterr().err
    assert result.count('\n') == 1 and result.startswith(f'{source}: expected')
    with pytest.raises(UsageError, match=message):
        convert_labels(source, tmp_path / 'a.parquet')
    assert [path.name for path in tmp_path.iterdir()] == ['a.json']


def test_wrong_use_and_damaged_files(tmp_path, capsys):
    good, large = tmp_path / 'a.json', tmp_path / 'a.parquet'
    good.write_text(json.dumps(any_coco(5)))
    for arguments in ([good, good], [good, tmp_path / 'a.txt'], [tmp_path / 'b.json', large]):
        assert tool.main([str(path) for path in arguments]) == 2
        assert capsys.readouterr().err.count('\n') == 1
    assert tool.main([str(good), str(large)]) == 0
    assert 'images, ' in capsys.readouterr().out
    whole = large.read_bytes()
    for content in (b'', b'PAR1', whole[:-20], whole[:200] + bytes(100) + whole[300:]):
        large.write_bytes(content)
        with pytest.raises(
            DatasetError, match='expected a complete Parquet file.*; copy or convert it again'
        ):
            convert_labels(large, tmp_path / 'b.json')
        with pytest.raises(DatasetError, match='complete Parquet'):
            open_defects(large, None)
    pq.write_table(pa.table(dict(a=[1])), large)
    with pytest.raises(DatasetError, match='found another Parquet file'):
        open_defects(large, None)
    assert not (tmp_path / 'b.json').exists()


def test_a_large_conversion_is_written_as_parquet_by_itself(tmp_path, monkeypatch):
    images = [
        dict(
            file_name=f'{k}.png',
            width=50,
            height=40,
            part=f'P{k}',
            boxes=[dict(bbox=[1, 2, 3, 4], category='crack')],
        )
        for k in range(12)
    ]
    small, many, long = (tmp_path / name / 'train.json' for name in ('small', 'many', 'long'))
    assert write.write_coco(small, images, ['crack'], dict(a=1)) == []
    monkeypatch.setattr(write, 'MOST_IN_JSON', 11)
    many.parent.mkdir()
    many.write_text('of an earlier conversion')
    (result,) = write.write_coco(many, images, ['crack'], dict(a=1))
    assert (
        result == 'train.parquet in place of train.json (12 images): write it as `ann_file` into the config'
    )
    assert not many.exists()
    monkeypatch.undo()
    monkeypatch.setattr('projects.radiograph.safe_parse.MAX_JSON', 1 << 10)
    assert 'JSON is read up to 0 MiB' in write.write_coco(long, images, ['crack'], dict(a=1))[0]
    for path in (many, long):
        assert read_coco(str(path.with_suffix('.parquet'))) == json.loads(small.read_text())
    assert note_of_size(small) == ''
    monkeypatch.undo()
    assert write.write_coco(many, images, ['crack'], dict(a=1)) == []
    assert not many.with_suffix('.parquet').exists() and load_defects(many, None)['images']


def test_the_converter_an_export_and_a_study_read_parquet(tmp_path):
    coco = any_coco(12)
    plain, large = tmp_path / 'train.json', tmp_path / 'train.parquet'
    plain.write_text(json.dumps(coco))
    convert_labels(plain, large)
    assert read_coco_file(large) == read_coco_file(plain) == step.read_annotations(large) == coco
    assert [step.count_images(path) for path in (plain, large, tmp_path / 'a.txt', tmp_path)] == [
        12,
        12,
        0,
        0,
    ]
    expected = export_labels(tmp_path, tmp_path / 'out.json')
    assert expected['images'] == 24
    plain.unlink()
    assert export_labels(tmp_path, tmp_path / 'out.json')['boxes'] == 36
    large.write_bytes(b'PAR1')
    assert step.count_images(large) == 0
    with pytest.raises(FormatError, match='complete Parquet'):
        read_coco_file(large)
