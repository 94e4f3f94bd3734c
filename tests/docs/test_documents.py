"""What the documents name exists: files, headings, tools with their options, make targets."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

FILES = subprocess.run(
    ['git', '-C', REPO, 'ls-files', '--cached', '--others', '--exclude-standard', '*.md'],
    check=True,
    capture_output=True,
    text=True,
).stdout.split()
DOCUMENTS = [REPO / name for name in FILES if name != 'CHANGELOG.md' and (REPO / name).is_file()]
document = pytest.mark.parametrize('path', DOCUMENTS, ids=lambda p: str(p.relative_to(REPO)))
# What a reader replaces, or what a run writes, is not in the repository.
PLACE_HOLDER = re.compile(r'[A-Z]{3,}|NAME|STEM|[*<>{}…$\[\]]|\bk\b')


def anchors(path):
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r'^#+ (.+)$', path.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@document
def test_links_lead_somewhere(path):
    for target in re.findall(r'\]\(([^)\s]+)\)', path.read_text()):
        if target.startswith(('http://', 'https://', 'mailto:')):
            continue
        name, _, anchor = target.partition('#')
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f'{path.name}: {target}'
        if anchor and file.suffix == '.md':
            assert anchor in anchors(file), f'{path.name}: {target}'


@document
def test_paths_of_the_repository_exist(path):
    found = re.findall(
        r'(?<![\w/.:-])((?:configs|projects|tools|tests|docs|resources)/[\w./-]+\w)', path.read_text()
    )
    missing = [name for name in found if not PLACE_HOLDER.search(name) and not (REPO / name).exists()]
    assert [name for name in missing if not list(REPO.glob(f'{name}*'))] == []


def commands(path):
    """The command lines that a document shows: lines of fenced blocks, and inline code that begins as one."""
    text = path.read_text()
    fenced = re.findall(r'^[ ]*```\w*\n(.*?)^[ ]*```', text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in fenced for line in block.replace('\\\n', ' ').splitlines()]
    lines += re.findall(r'`((?:python |tools/|make )[^`]+)`', text)
    return [line for line in lines if re.match(r'(?:\w+=\S+ )*(?:python tools/|tools/\w+\.sh|make )', line)]


@functools.cache
def help_of(tool):
    return subprocess.run(
        [sys.executable, REPO / 'tools' / tool, '--help'], check=True, capture_output=True, text=True
    ).stdout


@document
def test_tools_have_the_options_that_documents_give_them(path):
    for line in commands(path):
        match = re.search(r'python tools/(\w+\.py)(.*)', line.split(' #')[0])
        if not match:
            continue
        tool, arguments = match.groups()
        assert (REPO / 'tools' / tool).is_file(), line
        for option in re.findall(r'(?<=\s)(--[a-z][\w-]*)', re.split(r'[|;]', arguments)[0]):
            # A tool with sub-commands prints the options of each only there.
            if tool == 'benchmark.py':
                assert option in (REPO / 'tools' / tool).read_text(), line
            else:
                assert option in help_of(tool), line


@document
def test_a_command_goes_on_after_one_backslash(path):
    """Two are a word of their own for the shell, and the next line a command of its own."""
    assert re.findall(r'^.*\\\\$', path.read_text(), re.MULTILINE) == []


@document
def test_make_knows_the_targets_that_documents_name(path):
    targets = set(re.findall(r'^([a-z-]+):', (REPO / 'Makefile').read_text(), re.MULTILINE))
    for line in commands(path):
        match = re.match(r'make ([a-z-]+)', line)
        assert not match or match[1] in targets, line


@document
def test_each_row_of_a_table_has_a_cell_in_each_column(path):
    text = re.sub(r'^[ ]*```.*?^[ ]*```', '', path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for table in re.findall(r'(?:^\|.*\n)+', text + '\n', re.MULTILINE):
        # A bar within code or behind a backslash does not part two cells.
        header, *rows = (re.sub(r'`[^`]*`|\\\|', '', row) for row in table.splitlines())
        assert [row for row in rows if row.count('|') != header.count('|')] == []


def test_the_readme_is_short():
    assert len((REPO / 'README.md').read_bytes()) <= 10_000
