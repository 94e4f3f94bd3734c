"""A Kubernetes cluster of one machine, whose kubectl does at once what it is asked for."""

import os
import stat
import sys

import pytest

KUBECTL = """#!{python}
# A cluster of one machine: what `kubectl` of the profile asks for, done at once.
import json, pathlib, subprocess, sys

jobs = pathlib.Path({jobs!r})
if sys.argv[1] == 'create':
    job = json.load(sys.stdin)
    (container,) = job['spec']['template']['spec']['containers']
    code = subprocess.run(container['command'], stdout=subprocess.DEVNULL).returncode
    job['status'] = dict(failed=1) if code else dict(succeeded=1)
    (jobs / job['metadata']['name']).write_text(json.dumps(job))
elif sys.argv[1] == 'get' and (jobs / sys.argv[3]).exists():
    print((jobs / sys.argv[3]).read_text())
elif sys.argv[1] == 'delete':
    for name in sys.argv[4:]:
        (jobs / name).unlink(missing_ok=True)
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A kubectl on the PATH; returns the folder in which it keeps the jobs."""
    jobs, binaries = tmp_path / 'jobs', tmp_path / 'bin'
    jobs.mkdir()
    binaries.mkdir()
    file = binaries / 'kubectl'
    file.write_text(KUBECTL.format(python=sys.executable, jobs=str(jobs)))
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv('PATH', f'{binaries}:{os.environ["PATH"]}')
    monkeypatch.setenv('MMXRAY_IMAGE', 'registry/mmxray:1')
    monkeypatch.setenv('MMXRAY_CLAIM', 'mmxray:/')
    return jobs
