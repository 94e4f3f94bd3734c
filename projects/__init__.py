"""MMXray: its version, and the operators that mmcv calls where it was installed without compiled ones."""

import importlib
import importlib.abc
import importlib.machinery
import sys
from types import ModuleType

__version__ = '0.2.0'


class OperatorsFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives mmcv the functions of `projects.xray.operators` as its module of compiled operators.

    Python asks this finder last, so a compiled module is taken where there is one. It stands here because
    every module of ours passes by here before it can import `mmcv.ops`, which needs the module.
    """

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for `mmcv._ext` and None for any other module."""
        return importlib.machinery.ModuleSpec(name, self) if name == 'mmcv._ext' else None

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module; torch is imported here and not before."""
        operators = importlib.import_module('projects.xray.operators')
        for name in operators.__all__:
            setattr(module, name, getattr(operators, name))
        vars(module)['__getattr__'] = operators.missing


if not any(type(finder).__name__ == OperatorsFinder.__name__ for finder in sys.meta_path):
    sys.meta_path.append(OperatorsFinder())
