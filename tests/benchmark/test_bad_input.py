"""What a benchmark is given and cannot use is said in one line, with exit status 2."""

import json

import pytest
from helpers.exported import export_to

from projects.benchmark import decisions, formats, opinion, page, refusals, uploads, watched

TRUTH = dict(images=[dict(id=1, file_name='a.png')], annotations=[], categories=[dict(id=1, name='crack')])


@pytest.fixture
def data(tmp_path):
    """A folder with the annotations of each split, and without a radiograph."""
    (tmp_path / 'images').mkdir()
    for split in ('train', 'val', 'test'):
        (tmp_path / f'{split}.json').write_text(json.dumps(TRUTH))
    return tmp_path


def said(main, arguments, capsys):
    """The one line that a program says of what it cannot use."""
    try:
        assert main([str(argument) for argument in arguments]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
    except SystemExit as stopped:  # argparse, which prints the usage before
        assert stopped.code == 2
        lines = capsys.readouterr().err.splitlines()
    return lines[-1]


def test_a_config_that_is_not_there(data, capsys):
    line = said(opinion.main, ['measure', data / 'none.py', data], capsys)
    assert line.startswith(f'error: {data}/none.py: no such config')


def test_a_data_set_that_is_not_there_or_is_none(data, capsys):
    (data / 'val.json').write_text('[]')
    for split, words in (('train', 'No such file or directory'), ('val', 'expected COCO annotations')):
        place = data / 'none' if split == 'train' else data
        for arguments in (['measure', data / 'none.py', place], ['without', 'crack', place, data / 'out']):
            line = said(opinion.main, arguments, capsys)
            assert line.startswith(f'error: {place}/{split}.json: ') and words in line
    assert not (data / 'out').exists()
    assert 'val.json: expected COCO' in said(refusals.main, [data, data / 'images'], capsys)


def test_a_type_that_is_not_there_and_a_folder_that_is(data, capsys):
    line = said(opinion.main, ['without', 'scratch', data, data / 'out'], capsys)
    assert "no type 'scratch', expected one of its categories: crack" in line
    line = said(opinion.main, ['without', 'crack', data, data / 'images'], capsys)
    assert line == f'error: {data}/images: is there already; give another folder'


def test_radiographs_that_are_not_there(data, capsys):
    assert f'{data}/images/a.png' in said(refusals.main, [data, data / 'images'], capsys)


@pytest.mark.parametrize('program', [decisions, uploads, watched, page])
def test_a_detector_or_an_archive_that_is_not_there(program, data, tmp_path, capsys):
    there = tmp_path / 'a.png'
    there.write_bytes(b'')
    images = data / 'images' if program is page else there
    line = said(program.main, [data / 'none', images], capsys)
    assert line.startswith(f'error: {data}/none')
    exported = export_to(tmp_path / 'exported')
    line = said(program.main, [exported, data / 'gone'], capsys)
    assert f'{data}/gone: no such ' in line


def test_a_format_whose_package_is_not_installed(capsys, monkeypatch):
    def absent(images, place):
        raise ModuleNotFoundError("No module named 'zarr'", name='zarr')
        yield

    monkeypatch.setitem(formats.FORMATS, 'zarr', absent)
    assert said(formats.main, ['zarr'], capsys).startswith('error: zarr: expected the package zarr')
