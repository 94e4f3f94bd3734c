"""What a line PC installs: the pins of the lock, enough for runtime, tools and page, nothing of training."""

import json
import re
import subprocess
import sys

import cv2
import pytest
import tifffile
from packaging.utils import canonicalize_name
from test_deploy import export_to, spot

INSPECT = """
import sys
from projects.xray.deploy import Inspector
from projects.xray.deploy.server import build  # the page

folder, *images = sys.argv[1:]
for engine in ('openvino', 'onnxruntime'):
    inspect = Inspector(folder, engine, threads=1)
    for image in images:
        said = inspect(image)
        print(engine, said.verdict, said.boxes.tolist())
"""


def pins(text):
    return {
        canonicalize_name(name): version
        for name, version in re.findall(r'^([\w.-]+)==(\S+)', text, re.MULTILINE)
    }


def test_the_line_has_the_versions_of_the_lock(repo):
    line, lock = ((repo / name).read_text() for name in ('requirements-line.txt', 'requirements.lock'))
    wanted = pins(line)
    assert len(wanted) == len([row for row in line.splitlines() if row and not row.startswith('#')])
    locked = pins(lock)
    assert {name: locked.get(name) for name in wanted} == wanted
    assert not [name for name in wanted if re.match('torch|onedl|mm|nncf', name)]


@pytest.mark.long
def test_a_fresh_environment_inspects_without_pytorch_and_openmmlab(repo, tmp_path):
    """Installed from uv's cache or the package index; what is installed is what the file names."""
    uv, python = repo / '.uv/bin/uv', tmp_path / 'venv/bin/python'

    def run(*command):
        done = subprocess.run(
            [str(word) for word in command], cwd=repo, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(uv, 'venv', '--quiet', '--python', sys.executable, tmp_path / 'venv')
    run(uv, 'pip', 'install', '--quiet', '--python', python, '-r', 'requirements-line.txt')
    installed = json.loads(run(uv, 'pip', 'list', '--quiet', '--python', python, '--format', 'json'))
    assert {canonicalize_name(row['name']): row['version'] for row in installed} == pins(
        (repo / 'requirements-line.txt').read_text()
    )

    folder = export_to(tmp_path / 'exported')
    images = tmp_path / 'images'
    images.mkdir()
    cv2.imwrite(str(images / 'defect.png'), spot(20, 30))
    tifffile.imwrite(images / 'sound.tif', spot(20, 30, 101), compression='lzw')
    said = run(python, '-c', INSPECT, folder, images / 'defect.png', images / 'sound.tif').splitlines()
    assert [row.split()[:2] for row in said] == [
        [engine, verdict] for engine in ('openvino', 'onnxruntime') for verdict in ('reject', 'accept')
    ]
    assert '[[16.0, 26.0, 24.0, 34.0]]' in said[0]

    said = run(python, 'tools/infer.py', folder, images, '--out', tmp_path / 'found', '--threads', '1')
    assert '2 radiographs' in said and '1 rejected' in said
    assert 'usage' in run(python, 'tools/inspect_page.py', '--help')
