"""Set-up: pins, lock and installation agree; setup.sh chooses Python and wheel; the Makefile is whole."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Needed, yet imported by no file of ours.
NOT_IMPORTED = {
    'ninja': 'builds the ops of mmcv',
    'psutil': 'counts the cores for that build',
    'setuptools': 'builds the ops of mmcv',
    'joblib': 'mmrazor imports it without declaring it',
    'mmrazor': 'distillation configs name it',
    'tensorboard': 'the default visualizer backend writes for it',
    's3fs': 'fsspec opens s3:// with it',
    'aiohttp': 'fsspec opens http:// and https:// with it',
    'pytest-xdist': 'make test runs two processes',
    'snakemake': 'a command: it runs the studies',
    'snakemake-executor-plugin-slurm': 'a study on a cluster',
    'ruff': 'make lint',
}


def pins(repo):
    text = (repo / 'requirements.txt').read_text()
    return dict(re.findall(r'^([\w.-]+)(?:\[\w+\])?==(\S+)', text, re.MULTILINE))


def locked(repo):
    """Requirement -> number of hashes."""
    blocks = re.split(r'^(?=[A-Za-z])', (repo / 'requirements.lock').read_text(), flags=re.MULTILINE)
    heads = {block.partition('\\')[0].strip(): block.count('--hash=sha256:') for block in blocks}
    return {Requirement(head): hashes for head, hashes in heads.items() if head}


# ---------------------------------------------------------------- pins, lock and what is installed


def test_every_requirement_is_an_exact_pin(repo):
    lines = [line.partition('#')[0].strip() for line in (repo / 'requirements.txt').read_text().splitlines()]
    lines = [line for line in lines if line]
    assert lines
    assert [line for line in lines if not re.fullmatch(r'[\w.-]+(\[\w+\])?==[\w.]+', line)] == []


def test_the_lock_holds_every_pin_and_hashes_for_everything(repo):
    lock = locked(repo)
    versions = {canonicalize_name(req.name): str(req.specifier) for req in lock}
    wanted = {canonicalize_name(name): f'=={version}' for name, version in pins(repo).items()}
    assert {name: versions.get(name) for name in wanted} == wanted
    assert [req.name for req, hashes in lock.items() if not hashes] == []


def test_the_lock_names_no_machine(repo):
    text = (repo / 'requirements.lock').read_text()
    assert re.findall(r'://|--index|--find-links|(?<![\w-])/\w+/', text) == []


def test_what_is_installed_is_what_is_locked(repo):
    wanted, found = {}, {}
    for req in locked(repo):
        if req.marker is None or req.marker.evaluate():
            wanted[req.name] = str(req.specifier)[2:]
            found[req.name] = metadata.version(req.name).partition('+')[0]
    assert found == wanted
    assert len(wanted) > 50


def test_exactly_one_opencv_is_locked_and_installed(repo):
    installed = {canonicalize_name(dist.name) for dist in metadata.distributions()}
    assert [name for name in installed if name.startswith('opencv')] == ['opencv-python-headless']
    assert [req.name for req in locked(repo) if req.name.startswith('opencv')] == ['opencv-python-headless']


def test_requirements_name_what_is_imported_and_nothing_else(repo):
    files = [path for folder in ('projects', 'tools', 'tests') for path in (repo / folder).rglob('*.py')]
    modules = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(node.module.partition('.')[0])
    modules -= {*sys.stdlib_module_names, 'projects', 'tools', *(path.stem for path in files)}
    owners = metadata.packages_distributions()
    imported = {canonicalize_name(owners[module][0]) for module in modules}
    pinned = {canonicalize_name(name) for name in pins(repo)}
    assert imported - pinned == set(), 'imported, but not in requirements.txt'
    assert pinned - imported - set(NOT_IMPORTED) == set(), 'in requirements.txt, but not imported'
    assert set(NOT_IMPORTED) - pinned == set(), 'explained here, but not in requirements.txt'


# ---------------------------------------------------------------- setup.sh


@pytest.fixture
def shell(repo, tmp_path):
    """Run bash with setup.sh's functions at hand, its folders in tmp_path."""

    def run(code, **env):
        start = f'source {repo}/tools/setup.sh; venv={tmp_path}/.venv; python={sys.executable}; '
        kept = {name: os.environ[name] for name in ('PATH', 'HOME')}
        return subprocess.run(
            ['/bin/bash', '-c', start + code],
            capture_output=True,
            text=True,
            timeout=60,
            env={**kept, **env},
        )

    return run


def fake_python(path, version):
    """A command that answers as that interpreter does; with None, as a pyenv shim that does not run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '#!/bin/sh\n' + (f'echo "{version} $0"\n' if version else 'echo "not found" >&2; exit 127\n')
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize('version', ['2.7.18', '3.10.13', '3.13.0'])
def test_a_named_python_of_another_version_is_refused(shell, tmp_path, version):
    name = fake_python(tmp_path / 'python', version)
    done = shell('find_python', PYTHON=str(name))
    assert done.returncode == 1
    assert done.stdout == ''
    assert done.stderr == f'setup: PYTHON={name} is {version}; Python 3.11 or 3.12 is needed\n'


def test_a_named_python_that_does_not_run_is_refused(shell, tmp_path):
    done = shell('find_python', PYTHON=str(tmp_path / 'nowhere'))
    assert done.returncode == 1
    assert 'is no interpreter that runs; Python 3.11 or 3.12 is needed' in done.stderr
    assert done.stderr.count('\n') == 1


@pytest.mark.parametrize(
    ('versions', 'chosen'),
    [
        ({'python3': '3.11.2', 'python3.12': '3.12.1'}, 'python3'),
        ({'python3': '3.13.0', 'python3.12': None, 'python3.11': '3.11.9'}, 'python3.11'),
        ({'python3': '3.10.4', 'python3.12': '3.12.1', 'python3.11': '3.11.9'}, 'python3.12'),
        ({'python3': '3.10.4', 'python3.12': None, 'python3.11': None, 'python2.7': '2.7.18'}, None),
    ],
)
def test_the_first_fitting_python_that_runs_is_chosen(shell, tmp_path, versions, chosen):
    for name, version in versions.items():
        fake_python(tmp_path / 'bin' / name, version)
    done = shell(f'PATH={tmp_path}/bin; find_python')
    if chosen:
        assert done.stdout == f'{versions[chosen]} {tmp_path}/bin/{chosen}\n'
    else:
        assert done.returncode == 1
        assert done.stderr.startswith('setup: no Python 3.11 or 3.12 on the PATH; ')
        assert done.stderr.count('\n') == 1


def test_the_python_of_an_existing_environment_stays(shell, tmp_path):
    own = fake_python(tmp_path / '.venv/bin/python', '3.12.5')
    fake_python(tmp_path / 'bin/python3', '3.11.2')
    assert shell(f'PATH={tmp_path}/bin; find_python').stdout == f'3.12.5 {own}\n'


def test_the_cache_key_changes_with_each_component(shell, tmp_path, repo):
    lock = tmp_path / 'requirements.lock'

    def key(arguments, **replaced):
        text = (repo / 'requirements.lock').read_text()
        for name, version in replaced.items():
            text, count = re.subn(rf'^{name}==\S+', f'{name}=={version}', text, flags=re.MULTILINE)
            assert count == 1
        lock.write_text(text)
        done = shell(f'lock={lock}; wheel_key {arguments}')
        assert done.returncode == 0, done.stderr
        return done.stdout

    keys = [
        key('3.11.7 cpu'),
        key('3.12.1 cpu'),
        key('3.11.7 cu12.8 9.0'),
        key('3.11.7 cu12.8 "8.0;9.0"'),
        key('3.11.7 cu12.6 9.0'),
        key('3.11.7 cpu', torch='2.11.0'),
        key('3.11.7 cpu', **{'onedl-mmcv': '2.4.0'}),
    ]
    assert len(set(keys)) == len(keys)
    assert key('3.11.9 cpu') == keys[0], 'a patch release of Python needs no new build'
    assert all(re.fullmatch(r'[\w.-]+\n', one) for one in keys), 'fit for a folder name'


def test_a_torn_wheel_is_not_used(shell, tmp_path):
    folder = tmp_path / 'wheels'
    folder.mkdir()
    assert shell(f'kept_wheel {folder}').returncode == 1
    wheel = folder / 'onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('mmcv/_ext.so', os.urandom(10000))
    assert shell(f'kept_wheel {folder}').stdout == f'{wheel}\n'

    whole = wheel.read_bytes()
    for torn in (whole[:5000], whole[:2000] + b'\0' * 100 + whole[2100:], b''):
        wheel.write_bytes(torn)
        done = shell(f'kept_wheel {folder}')
        assert done.returncode == 1
        assert done.stdout == ''
        assert 'is torn' in done.stderr


def test_the_ops_are_built_for_cuda_when_gpu_and_toolkit_fit_torch(shell, tmp_path):
    nvcc = tmp_path / 'cuda/bin/nvcc'
    nvcc.parent.mkdir(parents=True)

    def target(gpu, release=None, **env):
        nvcc.unlink(missing_ok=True)
        if release:
            nvcc.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {release}, V{release}.1"\n')
            nvcc.chmod(0o755)
        code = f'has_gpu() {{ {"true" if gpu else "false"}; }}; ops_target'
        return shell(code, CUDA_HOME=f'{tmp_path}/cuda', **env)

    assert target(gpu=False, release='12.8').stdout == 'cpu\n'
    assert target(gpu=True, release='12.8').stdout == 'cu12.8\n'
    assert target(gpu=True, release='12.6').stdout == 'cu12.6\n'
    assert target(gpu=True, release='13.0').stdout == 'cpu\n'
    assert target(gpu=True).stdout == 'cpu\n'
    assert target(gpu=True, release='12.8', FORCE_CUDA='0').stdout == 'cpu\n'
    assert target(gpu=False, release='12.8', FORCE_CUDA='1').stdout == 'cu12.8\n'
    done = target(gpu=False, release='11.8', FORCE_CUDA='1')
    assert done.returncode == 1
    assert 'needs the CUDA 12.8 toolkit torch was built with, found 11.8' in done.stderr
    assert done.stderr.count('\n') == 1


def test_compute_capabilities_must_be_known(shell, tmp_path):
    assert shell('arch_list', TORCH_CUDA_ARCH_LIST='8.0;9.0').stdout == '8.0;9.0\n'
    smi = tmp_path / 'bin/nvidia-smi'
    smi.parent.mkdir()
    smi.write_text('#!/bin/sh\nprintf "9.0\\n8.0\\n9.0\\n"\n')
    smi.chmod(0o755)
    path = f'{smi.parent}:{os.environ["PATH"]}'
    assert shell('arch_list', PATH=path).stdout == '8.0;9.0\n'
    smi.write_text('#!/bin/sh\nexit 9\n')
    done = shell('arch_list', PATH=path)
    assert done.returncode == 1
    assert "TORCH_CUDA_ARCH_LIST='8.0;9.0' make setup" in done.stderr


def test_a_complete_set_up_is_recognised(shell, tmp_path):
    (tmp_path / '.venv').mkdir()
    stamp = tmp_path / '.venv/.setup'

    def ready(written, asked):
        stamp.write_text(written)
        return shell(f'is_ready {asked}').returncode == 0

    assert ready('abc cpu\n', 'abc cpu')
    assert not ready('abc cpu\n', 'abd cpu')
    assert not ready('abc cpu\n', 'abc cu12.8'), 'a CUDA toolkit was added'
    assert ready('abc cu12.8\n', 'abc cpu'), 'no GPU in sight: a login node'
    assert ready('abc given\n', 'abc cu12.8')
    stamp.unlink()
    assert shell('is_ready abc cpu').returncode == 1


def test_the_lock_splits_into_mmcv_and_the_rest(shell, repo):
    mmcv, rest = shell('mmcv_lines').stdout, shell("mmcv_lines '!'").stdout
    assert re.findall(r'^[\w-]+', mmcv, re.MULTILINE) == ['onedl-mmcv']
    assert '--hash=sha256:' in mmcv
    assert sorted((mmcv + rest).splitlines()) == sorted((repo / 'requirements.lock').read_text().splitlines())


def test_the_build_shows_one_short_line_per_file(shell, tmp_path):
    log = tmp_path / 'log'
    log.write_text(
        '  copying mmcv/ops/nms.py -> build/lib/mmcv/ops\n'
        '  [3/40] c++ -MMD -I/x/include -c -c /tmp/b/pytorch/nms.cpp -o /tmp/b/nms.o -std=c++17\n'
        '  [20/40] /usr/local/cuda/bin/nvcc -c -c /tmp/b/cuda/nms_cuda.cu -o /tmp/b/nms_cuda.o -std=c++17\n'
    )
    lines = shell(f'SECONDS=120; progress < {log}').stdout.splitlines()
    assert [line.split(maxsplit=2) for line in lines] == [
        ['[3/40]', 'nms.cpp', '2 min gone'],
        ['[20/40]', 'nms_cuda.cu', '2 min gone, about 2 to go'],
    ]


def test_setup_refuses_an_unknown_command(repo):
    def run(command):
        return subprocess.run([repo / 'tools/setup.sh', command], capture_output=True, text=True, timeout=60)

    done = run('everything')
    assert done.returncode == 2
    assert done.stderr == 'setup: everything is no command; see tools/setup.sh --help\n'
    done = run('--help')
    assert done.returncode == 0
    assert 'MMCV_FIND_LINKS' in done.stdout


# ---------------------------------------------------------------- Makefile and .ci/run


def make(repo, *arguments):
    # Not the flags of the make that may run these tests.
    env = {name: value for name, value in os.environ.items() if not name.startswith('MAKE')}
    command = ['make', *arguments]
    done = subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_alone_lists_every_target(repo):
    text = (repo / 'Makefile').read_text()
    phony = set(re.search(r'^\.PHONY: (.*)$', text, re.MULTILINE)[1].split())
    assert set(re.findall(r'^  make ([\w-]+) ', make(repo), re.MULTILINE)) == phony
    assert set(re.findall(r'^([\w-]+):', text, re.MULTILINE)) == phony


def test_every_target_sets_up_what_it_needs(repo):
    for target in ('test', 'test-long', 'lint', 'doctor'):
        commands = make(repo, '-n', target).splitlines()
        assert commands[0] == 'tools/setup.sh'
        assert len(commands) > 1


def test_ci_runs_the_commands_of_the_readme(repo):
    script = repo / '.ci/run'
    assert os.access(script, os.X_OK)
    commands = re.findall(r'^make .*$', script.read_text(), re.MULTILINE)
    assert commands == ['make lint', 'make test', 'make test-browser']
    readme = (repo / 'README.md').read_text()
    assert [command for command in commands if command not in readme] == []
