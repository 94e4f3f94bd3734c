"""Module names of version 0.1: they import until 0.3, say the new name, and are the module itself."""

import importlib
import sys

import pytest

from projects.xray.renamed import RENAMED


@pytest.mark.parametrize(('old', 'new'), RENAMED.items())
def test_an_old_name_is_the_new_module(old, new, monkeypatch):
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(FutureWarning, match=f'{old} is now {new}'):
        found = importlib.import_module(old)
    assert found is importlib.import_module(new)
    assert found.__spec__.name == new


def test_a_module_below_an_old_name_is_found(monkeypatch):
    monkeypatch.delitem(sys.modules, 'projects.xray.deploy.folder', raising=False)
    with pytest.warns(FutureWarning, match='projects.line.runtime.folder'):
        found = importlib.import_module('projects.xray.deploy.folder')
    assert found is importlib.import_module('projects.line.runtime.folder')


def test_a_name_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('projects.xray.deployed')
