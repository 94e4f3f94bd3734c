"""Write THIRD_PARTY.md: name, version and licence of every package in requirements.lock.

Example:
    python tools/third_party.py --check
"""

import argparse
import itertools
import re
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from projects.arguments import ToolParser  # noqa: E402

FILE = REPO / 'THIRD_PARTY.md'
HEADER = """# Third-party software

MMXray's own code is Apache-2.0. `make setup` installs the packages below, which keep their licences; none of
them is part of this repository. `python tools/third_party.py` writes this page from their metadata.

Worth knowing: the `nvidia-*` packages, which PyTorch's default build brings, are NVIDIA's proprietary
libraries under their own terms. OpenCV's wheel contains FFmpeg (LGPL-2.1). Packages under the MPL-2.0 keep
that licence for their own files. docutils, which Snakemake needs, is in the public domain except for a few
files under other licences. pylibjpeg-libjpeg, under the GPL, is installed for tests alone.

| package | version | licence | installed for |
|---|---|---|---|
"""
LONGEST = 60  # characters; some packages put the whole text of a licence into the field


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits 2 on wrong use."""
    parser = ToolParser(
        description=__doc__.splitlines()[0], epilog='example: python tools/third_party.py --check'
    )
    parser.add_argument('--check', action='store_true', help='exit 1 if the page is out of date')
    return parser.parse_args(argv)


def pinned(path: Path) -> dict[str, str]:
    """Return name -> version of the packages that a lock file pins."""
    return dict(re.findall(r'^([A-Za-z0-9._-]+)==([^\s;]+)', path.read_text(), re.MULTILINE))


def needed(names: list[str]) -> set[str]:
    """Return the canonical names of packages and of their dependencies on this machine."""
    found, todo = set(), [Requirement(name) for name in names]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        found.add(name)
        try:
            inner = [Requirement(line) for line in metadata.requires(name) or ()]
        except metadata.PackageNotFoundError:
            continue
        extras = requirement.extras or {''}
        todo += [r for r in inner if not r.marker or any(r.marker.evaluate(dict(extra=e)) for e in extras)]
    return found


def runtime() -> set[str]:
    """Return the canonical names of the packages that are not for tests and lint alone."""
    project = tomllib.loads((REPO / 'pyproject.toml').read_text())
    extras = itertools.chain(*project['project']['optional-dependencies'].values())
    return needed([*project['project']['dependencies'], *extras, *project['dependency-groups']['study']])


def licence_of(name: str) -> str:
    """Return the licence in an installed package's metadata; '–' if it is not installed here."""
    try:
        facts = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return '–'
    if facts.get('License-Expression'):
        return facts['License-Expression']
    classified = [
        line.rsplit(' :: ', 1)[-1].removesuffix(' License')
        for line in facts.get_all('Classifier') or ()
        if line.startswith('License :: ') and not line.endswith('OSI Approved')
    ]
    stated = ' '.join((facts.get('License') or '').split())
    if classified:
        return ', '.join(dict.fromkeys(classified))
    return stated if 0 < len(stated) <= LONGEST else 'see the package'


def page() -> str:
    """Return the content of the page."""
    kept = runtime()
    everything = pinned(REPO / 'requirements.lock')
    rows = []
    for name, version in sorted(everything.items(), key=lambda item: item[0].lower()):
        licence = licence_of(name).replace('|', '/')
        purpose = 'run' if canonicalize_name(name) in kept else 'tests'
        purpose = 'other platforms' if licence == '–' else purpose
        rows.append(f'| {name} | {version} | {licence} | {purpose} |')
    return HEADER + '\n'.join(rows) + '\n'


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = parse_args(argv)
    text = page()
    if not args.check:
        FILE.write_text(text)
        print(f'written: {FILE.relative_to(REPO)}')
        return 0
    if not FILE.is_file() or FILE.read_text() != text:
        print(
            'third_party: THIRD_PARTY.md is not what is installed; run python tools/third_party.py',
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
