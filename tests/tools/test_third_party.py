"""THIRD_PARTY.md names what the lock pins, with licences read from the packages."""

import re
from pathlib import Path

from tools import third_party

REPO = Path(__file__).resolve().parents[2]

PAGE = REPO / 'THIRD_PARTY.md'


def test_the_page_names_what_the_lock_pins():
    rows = dict(re.findall(r'^\| ([\w.-]+) \| (\d[^ |]*) \|', PAGE.read_text(), re.MULTILINE))
    assert rows == third_party.pinned(REPO / 'requirements.lock')


def test_licences_and_purposes_are_read_from_the_packages():
    assert third_party.licence_of('numpy').startswith('BSD-3-Clause')
    assert third_party.licence_of('no-such-package') == '–'
    kept = third_party.runtime()
    assert {'numpy', 'torch', 'pydicom', 'snakemake'} <= kept
    assert not {'pytest', 'moto', 'playwright', 'ruff'} & kept


def test_nothing_under_gpl_or_agpl_is_installed_to_run():
    rows = re.findall(r'^\| ([\w.-]+) \| [^|]+ \| ([^|]+) \| run \|', PAGE.read_text(), re.MULTILINE)
    assert len(rows) > 100
    # Several licences apart by commas are of different files, or for the user to choose from.
    free = ('BSD', 'MIT', 'Apache', 'Public Domain', 'Lesser', 'LGPL')
    found = [(name, case) for name, case in rows if re.search('GPL|General Public', case)]
    assert [row for row in found if not any(word in row[1] for word in free)] == []


def test_a_stale_page_fails_the_check(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(third_party, 'FILE', tmp_path / 'THIRD_PARTY.md')
    assert third_party.main(['--check']) == 1
    assert capsys.readouterr().err.count('\n') == 1
