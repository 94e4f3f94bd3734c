"""Run a script of mmdet or mmpretrain on configs of this repository."""

import argparse
import importlib.util
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ('mmdet', 'mmpretrain')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script in this process, which can import the project's modules and mmcv's operators."""
    parser = argparse.ArgumentParser(
        prog='python -m projects.runs.stock',
        description=__doc__,
        epilog='example: python -m projects.runs.stock mmdet test.py CONFIG CHECKPOINT --tta',
    )
    parser.add_argument('package', choices=PACKAGES)
    parser.add_argument('script', help='path in the tools of the package, such as test.py')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help='arguments of the script')
    args = parser.parse_args(argv)
    try:
        scripts = folder(args.package)
    except ModuleNotFoundError as error:
        parser.error(str(error))
    known = sorted(file.relative_to(scripts).as_posix() for file in scripts.rglob('*.py'))
    if args.script not in known:
        parser.error(f'{args.script}: no such script of {args.package}, expected one of {", ".join(known)}')
    path = scripts / args.script
    sys.argv = [str(path), *args.arguments]
    runpy.run_path(str(path), run_name='__main__')
    return 0


def folder(package: str) -> Path:
    """Return the folder with the scripts that a package brings; the package is not imported.

    Raises:
        ModuleNotFoundError: The package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f'{package}: not installed for {sys.executable}; run `make setup`, then `. .venv/bin/activate`',
            name=package,
        )
    return Path(spec.origin).parent / '.mim/tools'


if __name__ == '__main__':
    sys.exit(main())
