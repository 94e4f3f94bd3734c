"""A result says which code made it; a config that no commit holds is a change of it."""

import subprocess

import pytest

from projects.runs import provenance


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a committed config and its base."""

    def git(*arguments):
        command = [
            'git',
            '-C',
            str(tmp_path),
            '-c',
            'user.name=a',
            '-c',
            'user.email=a@example.org',
            *arguments,
        ]
        subprocess.run(command, check=True, capture_output=True)

    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'base.py').write_text('a = 1\n')
    (tmp_path / 'configs' / 'own.py').write_text("_base_ = ['./base.py', 'mmdet::x.py']\n")
    git('init')
    git('add', '.')
    git('commit', '-m', 'first')
    monkeypatch.setattr(provenance, 'REPO', tmp_path)
    return tmp_path


def test_a_committed_config_is_no_change(repository):
    facts = provenance.provenance(repository / 'configs' / 'own.py')
    assert facts['dirty'] is False
    assert len(facts['commit']) == 40


def test_a_config_that_is_not_committed_is_a_change(repository, tmp_path_factory):
    new = repository / 'configs' / 'new.py'
    new.write_text("_base_ = './base.py'\n")
    assert provenance.provenance()['dirty'] is False
    assert provenance.provenance(new)['dirty'] is True
    elsewhere = tmp_path_factory.mktemp('elsewhere') / 'config.py'
    elsewhere.write_text('a = 1\n')
    assert provenance.provenance(elsewhere)['dirty'] is True


def test_a_base_that_is_not_committed_is_a_change(repository):
    (repository / 'configs' / 'new.py').write_text('a = 1\n')
    own = repository / 'configs' / 'own.py'
    own.write_text("_base_ = './new.py'\n")
    subprocess.run(['git', '-C', repository, 'add', own], check=True)
    assert provenance.config_files(own) == {own, own.with_name('new.py')}
    assert provenance.provenance(own)['dirty'] is True


def test_a_row_that_a_study_records_is_no_change(repository):
    """Else all rows but the first of every study would count as changed."""
    records = repository / 'configs' / 'study' / 'one.results.json'
    records.parent.mkdir()
    records.write_text('{}')
    subprocess.run(['git', '-C', repository, 'add', '.'], check=True)
    who = ['-c', 'user.name=a', '-c', 'user.email=a@example.org']
    subprocess.run(['git', '-C', repository, *who, 'commit', '-qm', 'records'], check=True)
    records.write_text('{"runs": {}}')
    config = repository / 'configs' / 'own.py'
    assert provenance.provenance(config)['dirty'] is False
    (repository / 'configs' / 'base.py').write_text('a = 2\n')
    assert provenance.provenance(config)['dirty'] is True


def test_outside_a_repository_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path.parent))
    monkeypatch.setattr(provenance, 'REPO', tmp_path)
    config = tmp_path / 'a.py'
    config.write_text('')
    facts = provenance.provenance(config)
    assert (facts['commit'], facts['dirty']) == ('unknown', None)
