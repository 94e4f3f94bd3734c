"""Rules of CONTRIBUTING.md that no linter knows."""

import ast
import functools
import re

import pytest


@pytest.fixture(scope='module')
def files(repo):
    """The Python files below folders."""
    return lambda *folders: [path for folder in folders for path in sorted((repo / folder).rglob('*.py'))]


@pytest.fixture(scope='module')
def trees(files):
    """The syntax tree of each Python file below folders, read once."""
    parse = functools.cache(lambda path: ast.parse(path.read_bytes()))
    return lambda *folders: {path: parse(path) for path in files(*folders)}


def test_no_test_module_imports_another(trees):
    found = trees('tests')
    modules = {path.stem for path in found if path.name.startswith(('test_', 'conftest'))}
    for path, tree in found.items():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ''] if isinstance(node, ast.ImportFrom) else []
            imported = {part for name in names for part in name.split('.')} & modules
            assert not imported, (
                f'{path}:{node.lineno} imports {imported}: what tests share is in tests/helpers/'
            )


def test_no_function_is_longer_than_80_lines(trees):
    """What `make lint` measures of a function is its branches, not its length."""
    for path, tree in trees('projects', 'tools', 'tests').items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 80, f'{path}:{node.lineno} {node.name} has {length} lines'


def test_a_file_over_500_lines_says_why_in_its_first_line(files):
    for path in files('projects', 'tools', 'configs'):
        first, *rest = path.read_text().splitlines() or ['']
        assert len(rest) < 500 or 'lines' in first, f'{path} has {len(rest) + 1} lines'


def test_the_picture_of_the_packages_has_each_of_them(repo):
    picture, page = (repo / name for name in ('resources/architecture.svg', 'docs/architecture.md'))
    packages = {path.parent.name for path in (repo / 'projects').glob('*/__init__.py')}
    assert packages == {*re.findall(r'>(\w+)/<', picture.read_text())} - {'tools'}
    assert packages == {*re.findall(r'\.\./projects/(\w+)\)', page.read_text())}


def test_each_test_file_has_a_name_of_its_own(files):
    """Two of one name cannot be collected together."""
    names = [path.name for path in files('tests') if path.name != 'conftest.py']
    assert [name for name in names if names.count(name) > 1] == []


def test_each_module_stands_in_the_readme_of_its_package(repo):
    for page in (repo / 'projects').glob('*/README.md'):
        named = set(re.findall(r'`(?:\w+/)?(\w+)\.py`', page.read_text()))
        modules = {path.stem for path in page.parent.glob('*.py')} - {'__init__'}
        assert modules <= named, f'{page.parent.name}: {modules - named}'
