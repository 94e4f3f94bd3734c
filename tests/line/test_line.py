"""What a line PC installs: the pins of the lock, enough for runtime, tools and page, nothing of training."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import cv2
import pytest
import tifffile
from helpers.exported import export_to, spot
from packaging.utils import canonicalize_name
from uv import find_uv_bin

import projects

INSPECT = """
import sys
from projects.line.runtime import Inspector

folder, *images = sys.argv[1:]
for engine in ('openvino', 'onnxruntime'):
    inspect = Inspector(folder, engine, threads=1)
    for image in images:
        inspection = inspect(image)
        print(engine, inspection.verdict, inspection.boxes.tolist())
"""


def pins(text):
    return {
        canonicalize_name(name): version
        for name, version in re.findall(r'^([\w.-]+)==(\S+)', text, re.MULTILINE)
    }


def test_the_line_has_the_versions_of_the_lock(repo):
    line, lock = ((repo / name).read_text() for name in ('requirements-line.txt', 'requirements.lock'))
    wanted = pins(line)
    assert len(wanted) == len([row for row in line.splitlines() if re.match(r'\w', row)])
    assert all(re.search(rf'^{name}==.*\\\n +--hash=sha256:', line, re.MULTILINE) for name in wanted)
    locked = pins(lock)
    assert {name: locked.get(name) for name in wanted} == wanted
    assert not [name for name in wanted if re.match('torch|onedl|mm|nncf', name)]


@pytest.mark.long
def test_a_wheel_inspects_without_a_checkout_pytorch_and_openmmlab(repo, tmp_path):
    """Installed from uv's cache or the package index, in a folder that has a `projects/` of its own."""
    uv, bin_ = find_uv_bin(), tmp_path / 'venv/bin'
    here = tmp_path / 'here'
    (here / 'projects').mkdir(parents=True)
    (here / 'projects/__init__.py').write_text('raise ImportError("the projects of somebody else")')

    def run(*command, cwd=here, code=0):
        done = subprocess.run(
            [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    # Built from a copy: setuptools writes beside what it builds.
    source = tmp_path / 'source'
    run('git', 'clone', '-q', repo, source)
    for name in ('pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(repo / name, source)
    shutil.copytree(repo / 'projects', source / 'projects', dirs_exist_ok=True)
    run(uv, 'build', '--wheel', '--quiet', '--out-dir', tmp_path / 'dist', source)
    (wheel,) = (tmp_path / 'dist').glob('mmxray-*-py3-none-any.whl')

    run(uv, 'venv', '--quiet', '--python', sys.executable, tmp_path / 'venv')
    install = (uv, 'pip', 'install', '--quiet', '--python', bin_ / 'python')
    run(*install, '--require-hashes', '-r', repo / 'requirements-line.txt')
    run(*install, '--offline', wheel)  # nothing is left to fetch
    installed = json.loads(run(uv, 'pip', 'list', '--quiet', '--python', bin_ / 'python', '--format', 'json'))
    versions = {canonicalize_name(row['name']): row['version'] for row in installed}
    assert versions.pop('mmxray') == projects.__version__
    locked = pins((repo / 'requirements-line.txt').read_text())
    assert versions == {name: locked[name] for name in versions}  # it holds what other systems need, too

    folder = export_to(tmp_path / 'exported')
    images = tmp_path / 'images'
    images.mkdir()
    cv2.imwrite(str(images / 'defect.png'), spot(20, 30))
    tifffile.imwrite(images / 'sound.tif', spot(20, 30, 101), compression='lzw')
    for engine in ('openvino', 'onnxruntime'):
        found = tmp_path / engine
        result = run(
            bin_ / 'mmxray-infer', folder, images, '--out', found, '--engine', engine, '--threads', '1'
        )
        assert '2 radiographs' in result and '1 rejected' in result
        assert (found / 'shard-1-of-1').is_dir()
    for script in ('mmxray-infer', 'mmxray-inspect', 'mmxray-verify'):
        assert run(bin_ / script, '--version') == f'mmxray {projects.__version__}\n'
    run(bin_ / 'mmxray-infer', 'config.py', 'epoch_1.pth', images, '--out', tmp_path / 'x', code=2)
    assert fetch_page(bin_ / 'mmxray-inspect', folder, here).startswith('<!doctype html>')

    # From Python: -P leaves the working folder out of the search.
    result = run(bin_ / 'python', '-P', '-c', INSPECT, folder, images / 'defect.png', images / 'sound.tif')
    assert [row.split()[:2] for row in result.splitlines()] == [
        [engine, verdict] for engine in ('openvino', 'onnxruntime') for verdict in ('reject', 'accept')
    ]
    assert '[[16.0, 26.0, 24.0, 34.0]]' in result.splitlines()[0]


def fetch_page(script, folder, cwd):
    """Start the page on a free port, and read it."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [script, folder, '--port', str(port)], cwd=cwd, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert f'http://127.0.0.1:{port}/' in server.stdout.readline()
            for _ in range(300):
                try:
                    with urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=60) as answer:
                        return answer.read().decode().lower()
                except urllib.error.URLError:
                    time.sleep(0.1)
        finally:
            server.terminate()
    raise AssertionError('the page did not answer')
