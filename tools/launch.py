"""Start the ranks of a tool with torchrun; when one fails, its reason and exit code are the last line.

Used by dist_train.sh and dist_test.sh. Each rank writes its error to a file (running.one_line_errors), as
torchrun's workers do, and does not print it. Other ranks fail because of the first one that fails, so the
reason of the first is printed. SIGTERM reaches the ranks: a training writes a checkpoint after its iteration;
torchrun kills what has not ended 30 s later. The exit code is 143 in either case.
"""

import importlib.util
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

# A restart goes on with what this run has written, not with what it found (running.choose_start).
os.environ['XRAY_LAUNCHED'] = str(time.time())
# A store per attempt: with the shared one, ranks that start again read where those before them listened
# (pytorch/pytorch#135712), and torchrun waits half an hour for the dead. Read by torch when imported.
os.environ['TORCH_DISABLE_SHARE_RDZV_TCP_STORE'] = '1'
# As torchrun (OMP) and mmengine (MKL) set them where nobody has, which each rank says in two lines.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MKL_NUM_THREADS', '1')

ENDED_WITH_OTHERS = (-signal.SIGTERM, -signal.SIGABRT, 128 + signal.SIGTERM)
"""Exit codes of ranks that torchrun has ended, or that a rank gone took down with it (gloo: SIGABRT)."""


def first_failure(failures: dict) -> tuple:
    """Return global rank and failure of the rank that failed first, not of those that it took down.

    A rank that notes a reason of its own comes first. One that ended by a signal comes before those that
    lost their connection to it: these end while torchrun still looks away, at times that are no evidence.

    Args:
        failures: torchrun's ProcessFailure by global rank; at least one.
    """

    def order(entry: tuple[int, 'ProcessFailure']) -> tuple[int, float, int]:
        rank, failure = entry
        note = noted(failure)
        if note:
            weight = 3 if note.get('lost') else 0
        elif failure.exitcode in ENDED_WITH_OTHERS:
            weight = 4
        else:
            weight = 1 if failure.exitcode < 0 else 2
        return weight, float(note.get('time', failure.timestamp)), rank

    return min(failures.items(), key=order)


def noted(failure: 'ProcessFailure') -> dict:
    """Return what a rank has noted of its error: `message`, `trace`, `time` and `lost`; else nothing."""
    message = failure.error_file_data.get('message')
    if not isinstance(message, dict):
        return {}
    extra = message.get('extraInfo', {})
    return dict(extra, message=message.get('message'), trace=extra.get('trace', ''))


def exit_code(failure: 'ProcessFailure') -> int:
    """Return the exit code of a failed rank as a shell counts: 128 + signal.

    A rank that noted why it fails has failed, even if the end of another rank killed it before its exit.
    """
    if noted(failure) and failure.exitcode in (-signal.SIGTERM, 128 + signal.SIGTERM):
        return 1
    return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode


def describe(failures: dict, ranks: int, here: int, left: int) -> str:
    """Return the text about failed ranks: one line, after the traceback where it is a fault of the code.

    Args:
        failures: torchrun's ProcessFailure by global rank.
        ranks: Number of ranks on all nodes.
        here: Number of ranks on this node.
        left: So many times all ranks may still start again.
    """
    rank, failure = first_failure(failures)
    note, code = noted(failure), exit_code(failure)
    if note:
        reason = note['message']
        if note.get('lost') and here < ranks:
            reason += '; another node says why'
    elif failure.exitcode == -signal.SIGKILL:
        reason = 'killed (SIGKILL), as by a system that runs out of memory; --resume goes on'
    elif failure.exitcode < 0:
        reason = f'ended by {failure.signal_name()}; --resume goes on'
    elif code == 128 + signal.SIGTERM:
        reason = 'stopped by SIGTERM; --resume goes on'
    else:
        reason = 'ended without giving a reason; look above'
    again = '; all ranks start again' if left else ''
    return f'{note.get("trace", "")}error: {reason} (rank {rank} of {ranks}, exit code {code}{again})'


def check_arguments(arguments: list[str]) -> None:
    """Let the tool read its own arguments: --help and wrong use are answered once, before any rank starts.

    Args:
        arguments: Those of torchrun, then the tool's file, then its own.
    """
    files = [i for i, word in enumerate(arguments) if word.endswith('.py') and Path(word).is_file()]
    if files:
        spec = importlib.util.spec_from_file_location('tool', arguments[files[0]])
        if 'def parse_args' in Path(arguments[files[0]]).read_text():
            tool = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(tool)
            sys.argv[0] = arguments[files[0]]  # the name in its messages
            tool.parse_args(arguments[files[0] + 1 :])


def launch(arguments: list[str]) -> int:
    """Start the ranks and wait for them.

    Args:
        arguments: Of torchrun: its options, the tool's file, the tool's arguments.

    Returns:
        0, the exit code of the rank that failed first, or 128 + signal.
    """
    import torch.distributed.launcher.api as launcher
    from torch.distributed import DistNetworkError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.run import main

    class Agent(launcher.LocalElasticAgent):
        """Says why ranks failed, whether they start again or not; torchrun raises an error after the last."""

        def _monitor_workers(self, worker_group: Any) -> Any:
            result = super()._monitor_workers(worker_group)
            if result.is_failed():
                workers, left = worker_group.workers, self._remaining_restarts
                text = describe(result.failures, workers[0].world_size, len(workers), left)
                print(text, file=sys.stderr, flush=True)
            return result

    launcher.LocalElasticAgent = Agent
    # They report a failed rank in several lines, which `describe` does in one.
    for name in ('api', 'errors.error_handler'):
        logging.getLogger(f'torch.distributed.elastic.multiprocessing.{name}').setLevel(logging.CRITICAL)
    try:
        main(arguments)
    except ChildFailedError as error:
        return exit_code(first_failure(error.failures)[1])
    except SignalException as error:
        return 128 + error.sigval
    except (RendezvousError, DistNetworkError) as error:
        reason = ' '.join(str(error.__cause__ or error).split())
        print(
            f'error: the nodes do not come together ({reason}), expected the same line on each; look at '
            'NNODES, NODE_RANK, MASTER_ADDR and PORT',
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == '__main__':
    if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
        print(f'{__doc__}\nexample:\n  python tools/launch.py --nproc-per-node 2 tools/train.py CONFIG')
        sys.exit(0 if len(sys.argv) > 1 else 2)
    check_arguments(sys.argv[1:])
    sys.exit(launch(sys.argv[1:]))
