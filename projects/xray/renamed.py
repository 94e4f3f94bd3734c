"""Modules under their names of version 0.1, so that dumped configs and line scripts still import them.

They go with version 0.3. A finder does it, so that nothing in this package imports upwards: the new module is
imported only when somebody asks for the old name.
"""

import importlib
import importlib.abc
import importlib.util
import sys
import warnings

RENAMED = {
    'projects.xray.acceleration': 'projects.xray.hooks.channels_last',
    'projects.xray.resuming': 'projects.xray.hooks.resume',
    'projects.xray.monitors': 'projects.xray.hooks.collapse',
    'projects.xray.weights': 'projects.xray.hooks.backbone',
    'projects.xray.deploy': 'projects.line.runtime',
    'projects.xray.configs': 'projects.config.configs',
    'projects.xray.provenance': 'projects.runs.provenance',
    'projects.xray.running': 'projects.runs.running',
}


class _Renamed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers for an old name with the new module itself, so that both names are one module."""

    def find_spec(self, fullname, path=None, target=None):
        for old in RENAMED:
            if fullname == old or fullname.startswith(f'{old}.'):
                return importlib.util.spec_from_loader(fullname, self)
        return None

    def create_module(self, spec):
        old = next(old for old in RENAMED if spec.name == old or spec.name.startswith(f'{old}.'))
        new = RENAMED[old] + spec.name.removeprefix(old)
        warnings.warn(f'{spec.name} is now {new}', FutureWarning, stacklevel=2)
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module):
        # The import system has put the old name's spec on the module: it keeps its own.
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Make the old names importable; a second call does nothing."""
    if not any(isinstance(finder, _Renamed) for finder in sys.meta_path):
        # First, since a package under its old name has the path where its modules are found a second time.
        sys.meta_path.insert(0, _Renamed())
