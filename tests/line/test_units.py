"""The systemd units and the Dockerfile of a line PC: their commands are those of the programs."""

import configparser
import re
import shlex
import tomllib

import pytest

from projects.line.page.command import parse_args as of_page
from projects.line.runtime.command import parse_args as of_infer

PROGRAMS = {'mmxray-inspect': of_page, 'mmxray-infer': lambda argv: of_infer(argv, with_configs=False)}


def read_unit(path):
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str
    unit.read_string(path.read_text())
    return unit


@pytest.mark.parametrize('name', ['mmxray-inspect', 'mmxray-watch'])
def test_a_unit_starts_a_program_with_options_that_it_takes(repo, name):
    unit = read_unit(repo / 'resources' / 'line' / f'{name}.service')
    program, *arguments = shlex.split(unit['Service']['ExecStart'])
    args = PROGRAMS[program.rpartition('/')[2]](arguments)
    assert unit['Service']['User'] != 'root'
    # What is written is within what the unit may write.
    out = str(args.out)
    assert out in unit['Service']['ReadWritePaths'].split()
    assert unit['Service']['ProtectSystem'] == 'strict'
    assert args.key == '/etc/mmxray/export.pub'


def test_a_unit_that_serves_a_network_knows_who_asks(repo):
    unit = read_unit(repo / 'resources' / 'line' / 'mmxray-inspect.service')
    args = of_page(shlex.split(unit['Service']['ExecStart'])[1:])
    assert args.host == '0.0.0.0'
    assert args.tokens
    assert args.tls_cert


def test_the_dockerfile_copies_what_is_there_and_starts_what_it_installs(repo):
    text = (repo / 'resources' / 'line' / 'Dockerfile').read_text()
    taken = (repo / 'resources' / 'line' / 'Dockerfile.dockerignore').read_text().splitlines()
    for line in re.findall(r'^COPY (.+)$', text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (repo / source).exists()
            assert f'!{source}' in taken
    (program,) = re.findall(r'^ENTRYPOINT \["(.+)"\]$', text, re.MULTILINE)
    assert program in tomllib.loads((repo / 'pyproject.toml').read_text())['project']['scripts']
    comment = ' '.join(line.lstrip('# ') for line in text.partition('FROM')[0].splitlines())
    command = re.search(r'mmxray-line\s+\\\s+(/srv.+)$', comment).group(1).replace('\\', '')
    args = of_page(shlex.split(command))
    assert (args.host, str(args.out)) == ('0.0.0.0', '/srv/xray/inspect')
    assert re.search(r'^USER line$', text, re.MULTILINE)
