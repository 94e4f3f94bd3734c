"""MMXray: the version, the check of the Python interpreter, operators for an mmcv without compiled ones."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

__version__ = '0.2.0'
# The checkout that holds this code, with configs, tools and git.
REPO = Path(__file__).resolve().parents[1]


class OperatorsFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives mmcv the functions of `projects.xray.operators` in place of its compiled operators.

    Python asks this finder last, so a compiled module has precedence. The finder is defined in this file
    because Python runs this file before any module of the project can import `mmcv.ops`.
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


def end_without_packages(main: Path) -> None:
    """End a tool in one line when a Python other than the one of `make setup` runs it.

    The check is in this file because every tool imports this file first. doctor.py goes on and lists what is
    missing.

    Args:
        main: The script that Python runs.
    """
    if main.parent == REPO / 'tools' and main.name != 'doctor.py' and not importlib.util.find_spec('cv2'):
        print(
            f'error: {sys.executable}: expected the Python of this checkout, with its packages; run `make '
            'setup` once, then `. .venv/bin/activate` in each terminal',
            file=sys.stderr,
        )
        sys.exit(2)


end_without_packages(Path(getattr(sys.modules['__main__'], '__file__', None) or '').resolve())
