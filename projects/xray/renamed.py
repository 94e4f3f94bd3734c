"""Module names of version 0.1 as aliases, so that old dumped configs and line scripts still work.

Version 0.3 removes them. A finder imports the new module only when code imports the old name, so that this
package does not import packages above it.
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
    """Returns the new module for an old name, so that both names are the same module."""

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
        # The import system has set the old name's spec on the module; this restores its own.
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Make the old names importable; a second call does nothing."""
    if not any(isinstance(finder, _Renamed) for finder in sys.meta_path):
        # Placed first: the path of a package under its old name would import its modules a second time.
        sys.meta_path.insert(0, _Renamed())
