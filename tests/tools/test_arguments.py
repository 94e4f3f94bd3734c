"""What command lines share: help, --version, ranges, and one line for what cannot be written."""

import argparse

import pytest

from projects import __version__
from projects.arguments import ToolParser, exit_code, positive
from projects.errors import MMXrayError


def test_help_keeps_its_lines_and_ends_with_version(capsys):
    parser = ToolParser('Does\n  a thing.', 'example:\n  tool --most 3')
    parser.add_argument('--most', type=positive)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(['--help'])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert 'Does\n  a thing.' in shown and shown.endswith('example:\n  tool --most 3\n')
    assert shown.index('--most') < shown.index('--version')


def test_version(capsys):
    with pytest.raises(SystemExit):
        ToolParser('A tool.').parse_args(['--version'])
    assert capsys.readouterr().out == f'mmxray {__version__}\n'


@pytest.mark.parametrize('value', [0, 257])
def test_a_number_out_of_its_range_is_wrong_use(value, capsys):
    parser = ToolParser('A tool.')
    parser.add_workers()
    args = parser.parse_args(['--workers', str(value)])
    with pytest.raises(SystemExit) as ended:
        parser.check_range('workers', args.workers, 1, 256)
    assert ended.value.code == 2
    assert f'--workers {value}: expected a number from 1 to 256' in capsys.readouterr().err


def test_positive():
    assert positive('3') == 3
    with pytest.raises(argparse.ArgumentTypeError, match='0: expected at least 1'):
        positive('0')


def test_what_cannot_be_written_is_one_line_and_exit_code_2(tmp_path, capsys):
    def refuse():
        raise MMXrayError('a.json: expected COCO; correct it')

    missing = tmp_path / 'none' / 'out.json'
    assert exit_code(lambda: None, missing) == 0
    assert exit_code(refuse, missing) == 2
    assert capsys.readouterr().err == 'a.json: expected COCO; correct it\n'
    assert exit_code(lambda: missing.write_text(''), missing) == 2
    expected = f'{missing}: expected a file that can be written (No such file or directory)\n'
    assert capsys.readouterr().err == expected
