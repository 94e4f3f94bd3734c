"""What the benchmarks of decisions, uploads and watched folder measure, at a size that takes seconds."""

import re
import socket

import cv2
import pytest
from helpers.exported import export_to, spot

from projects.benchmark import decisions, stand_in, uploads, watched
from projects.line.runtime import Inspector


def test_the_stand_in_takes_what_is_drawn(tmp_path):
    inspect = Inspector(stand_in.for_size(tmp_path / 'model', 300, 200), cache=False)
    paths = stand_in.draw_files(tmp_path / 'drawn', 300, 200, 3)
    inspection = [inspect(path) for path in paths]
    assert [result.verdict for result in inspection] == ['accept'] * 3
    assert inspection[0].pixels.shape == (300, 200) and inspect(paths[0]).bits == 16
    assert len({path.read_bytes() for path in paths}) == 3


def test_a_decision_after_others(capsys):
    assert decisions.main(['--before', '40', '--decisions', '3', '--pause', '0']) == 0
    assert re.fullmatch(
        r'40 decisions before \(0 MB, read at the start in [\d.]+ s\): one more takes [\d.]+ s '
        r'\(median of 3\), [\d.]+ s at most\n',
        capsys.readouterr().out,
    )


def test_a_decision_on_radiographs_that_are_given(tmp_path, capsys):
    model, image = export_to(tmp_path / 'model'), tmp_path / 'part.png'
    cv2.imwrite(str(image), spot(20, 30, 120))
    arguments = [str(model), str(image), '--before', '2', '--decisions', '3', '--pause', '0']
    assert decisions.main(arguments) == 0
    assert 'median of 3' in capsys.readouterr().out
    cv2.imwrite(str(image), spot(20, 30, 100))  # holds no picture
    assert decisions.main(arguments) == 1
    assert 'holds no picture' in capsys.readouterr().err


def test_uploads_at_once(capsys):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    assert uploads.main(['--side', '400', '--count', '3', '--port', str(port)]) == 0
    printed = re.fullmatch(
        r'3 radiographs of 0 MB \(0 MiB\) at once, answers \[200\]: (\d+) MB at most, (\d+) MB before\n',
        capsys.readouterr().out,
    )
    assert int(printed[1]) >= int(printed[2]) > 50


def test_a_watched_folder_that_is_killed(capsys):
    assert watched.main(['--radiographs', '30', '--kills', '1']) == 0
    assert re.fullmatch(
        r'30 radiographs, 1 kills, \d+ s: 0 lost, 0 told twice, 0 unreadable\n', capsys.readouterr().out
    )


@pytest.mark.parametrize('program', [decisions, uploads, watched])
def test_a_detector_without_radiographs_is_wrong_use(program, capsys):
    with pytest.raises(SystemExit) as stopped:
        program.main(['exported/castings'])
    assert stopped.value.code == 2
    assert 'expected IMAGES beside MODEL' in capsys.readouterr().err
