"""Of several ranks that end, the one that failed first is told, in one line with its exit code."""

import json
import subprocess
import sys

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from projects.runs import running
from tools import launch


@pytest.fixture
def rank(tmp_path, monkeypatch, capsys):
    """Let a rank fail with an error, or end with an exit code; returns torchrun's record of it."""

    def end(number, error=None, exitcode=None):
        file = tmp_path / f'{number}.json'
        monkeypatch.setenv('XRAY_LAUNCHED', '1')
        monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', str(file))
        if error is not None:

            def fails(argv):
                raise error

            exitcode = running.one_line_errors(fails)([])
            assert capsys.readouterr() == ('', '')  # four ranks that print would interleave
        return ProcessFailure(local_rank=number, pid=1, exitcode=exitcode, error_file=str(file))

    return end


LOST = RuntimeError('[/gloo/transport/tcp/pair.cc:525] Connection closed by peer [127.0.0.1]:1234')


def test_a_rank_with_a_reason_comes_before_those_that_lost_it(rank):
    failures = {0: rank(0, LOST), 1: rank(1, running.UsageError('a.py: no such config')), 2: rank(2, LOST)}
    assert launch.first_failure(failures)[0] == 1
    text = launch.describe(failures, 4, 4, left=0)
    assert text == 'error: a.py: no such config (rank 1 of 4, exit code 2)'


def test_a_fault_of_the_code_keeps_the_traceback_of_one_rank(rank):
    failures = {0: rank(0, RuntimeError('boom')), 1: rank(1, RuntimeError('boom later')), 2: rank(2, LOST)}
    *trace, last = launch.describe(failures, 3, 3, left=1).splitlines()
    assert trace[0] == 'Traceback (most recent call last):'
    assert trace.count(trace[0]) == 1
    assert trace[-1] == 'RuntimeError: boom'
    assert last == 'error: RuntimeError: boom (rank 0 of 3, exit code 1; all ranks start again)'


@pytest.mark.parametrize(
    ('exitcode', 'expected', 'code'),
    [
        (-9, 'killed (SIGKILL), as by a system that runs out of memory; --resume goes on', 137),
        (-11, 'ended by SIGSEGV; --resume goes on', 139),
        (3, 'ended without giving a reason; look above', 3),
    ],
)
def test_a_rank_that_says_nothing_is_told_from_those_it_took_down(rank, exitcode, expected, code):
    failures = {
        0: rank(0, LOST),
        1: rank(1, exitcode=-6),
        2: rank(2, exitcode=exitcode),
        3: rank(3, exitcode=-15),
    }
    assert launch.describe(failures, 4, 4, left=0) == f'error: {expected} (rank 2 of 4, exit code {code})'
    assert launch.exit_code(failures[2]) == code


def test_ranks_that_were_all_stopped_name_the_remedy(rank):
    failures = {0: rank(0, exitcode=143), 1: rank(1, exitcode=-15)}
    result = launch.describe(failures, 2, 2, left=0)
    assert result == 'error: stopped by SIGTERM; --resume goes on (rank 0 of 2, exit code 143)'


def test_a_node_whose_ranks_only_lost_others_refers_to_them(rank):
    result = launch.describe({1: rank(1, torch.distributed.DistBackendError('NCCL timed out'))}, 4, 2, left=0)
    assert result.startswith('error: no connection to another rank (NCCL timed out); another node says why')


def test_another_launcher_gets_the_error_printed(monkeypatch, capsys):
    monkeypatch.delenv('XRAY_LAUNCHED', raising=False)
    monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', 'unused.json')

    def fails(argv):
        raise running.UsageError('no such config')

    assert running.one_line_errors(fails)([]) == 2
    assert capsys.readouterr().err == 'error: no such config\n'


@pytest.mark.parametrize(
    ('tool', 'arguments', 'code'),
    [
        ('train', ['a.py', '--bogus'], 2),
        ('train', ['a.py', '--help'], 0),
        ('test', ['a.py', 'b.pth', '--out', 'x'], 2),
    ],
)
def test_wrong_use_of_a_tool_is_said_once(repo, tool, arguments, code):
    command = [sys.executable, repo / 'tools' / 'launch.py', '--standalone', '--nproc-per-node', '4']
    command += [repo / 'tools' / f'{tool}.py', *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == code
    printed = done.stdout + done.stderr
    assert printed.count('usage:') == 1
    assert 'rank' not in done.stderr


def test_the_note_of_an_error_is_torchruns(rank, tmp_path):
    rank(0, RuntimeError('boom'))
    content = json.loads((tmp_path / '0.json').read_text())
    assert content['message']['extraInfo']['py_callstack'].endswith('RuntimeError: boom\n')
