import subprocess
import sys

import cv2
import numpy as np
import pytest

from projects.radiograph.store import Store
from tools import pack_images


@pytest.fixture
def source(tmp_path):
    for i in range(3):
        path = tmp_path / 'source' / f'part{i}' / 'view.png'
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), np.full((40, 60), 1000 * i + 500, np.uint16))
    return tmp_path / 'source'


def run(*args):
    return pack_images.main([str(arg) for arg in args])


def test_pack_then_verify(source, tmp_path, capsys):
    window = ('--window', 'type=absolute', 'low=0', 'high=5000')
    arguments = (
        source,
        tmp_path / 'packed',
        '--size',
        20,
        '--bits',
        16,
        '--group',
        r'part(\d)',
        '--workers',
        1,
    )
    assert run(*arguments, *window) == 0
    assert 'packed: 3 images' in capsys.readouterr().out
    store = Store(tmp_path / 'packed')
    assert [store.part(i) for i in range(3)] == ['0', '1', '2']
    assert store.read(1).shape == (20, 30)
    assert store.read(1)[0, 0] == round(1500 / 5000 * 65535)
    assert run(source, tmp_path / 'packed', '--verify') == 0
    assert '3 images, 0 faults' in capsys.readouterr().out


def test_faults_are_lines_and_exit_code_one(source, tmp_path, capsys):
    run(source, tmp_path / 'packed', '--size', 20, '--workers', 1)
    with (tmp_path / 'packed' / 'shard-00000.bin').open('r+b') as file:
        file.write(b'\xff')
    assert run(source, tmp_path / 'packed', '--verify') == 1
    captured = capsys.readouterr()
    assert 'shard-00000.bin: image 0 is damaged' in captured.err
    assert '1 faults' in captured.out
    source.rename(tmp_path / 'moved')
    assert run(source, tmp_path / 'packed', '--verify') == 1
    assert 'source is not here: source files not compared' in capsys.readouterr().out


def test_unreadable_files_are_lines_and_exit_code_one(source, tmp_path, capsys):
    (source / 'torn.png').write_bytes(b'\x89PNG')
    assert run(source, tmp_path / 'packed', '--workers', 1) == 1
    captured = capsys.readouterr()
    assert '3 images' in captured.out
    assert '1 files left out' in captured.out
    assert captured.err.count('\n') == 1
    assert 'torn.png' in captured.err


def test_errors_are_one_line(source, tmp_path, capsys):
    assert run(tmp_path / 'gone', tmp_path / 'packed') == 1
    assert run(source, tmp_path / 'packed', '--verify') == 1
    error = capsys.readouterr().err
    assert error.count('\n') == 2
    assert 'gone: ' in error
    assert 'xray_store.json: not readable' in error


@pytest.mark.parametrize(
    'wrong',
    [
        ('--size', '-1'),
        ('--bits', '12'),
        ('--workers', '0'),
        ('--window', 'type=absolute', 'low=5'),
        ('--window', 'type=absolute', 'low=[', 'high=5'),
        ('--group', '('),
    ],
)
def test_wrong_use_is_exit_code_two(source, tmp_path, wrong, capsys):
    with pytest.raises(SystemExit) as error:
        run(source, tmp_path / 'packed', *wrong)
    assert error.value.code == 2
    assert wrong[0] in capsys.readouterr().err
    assert not (tmp_path / 'packed').exists()


def test_from_the_shell_with_workers(source, tmp_path, repo):
    command = [sys.executable, 'tools/pack_images.py', source, tmp_path / 'packed', '--workers', '2']
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '')
    assert 'packed: 3 images' in done.stdout
    usage = subprocess.run([*command[:2], '--help'], cwd=repo, capture_output=True, text=True)
    assert 'Example:\n    python tools/pack_images.py' in usage.stdout
