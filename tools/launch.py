"""Start the ranks of a tool with torchrun; if one fails, the last line gives its reason and exit code.

dist_train.sh and dist_test.sh use this tool. Each rank writes its error to a file (running.one_line_errors),
like torchrun's workers, and does not print it. The first failure causes the others, so only its reason is
printed. SIGTERM is passed on to the ranks: a training writes a checkpoint after its iteration. torchrun kills
ranks that have not ended after 30 s. The exit code is 143 in both cases.
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

# A restart resumes from checkpoints of this run only, not from older ones (running.choose_start).
os.environ['XRAY_LAUNCHED'] = str(time.time())
# A separate store per attempt: with the shared store, restarted ranks read the addresses of the earlier ranks
# (pytorch/pytorch#135712), and torchrun waits half an hour for them. torch reads this at import.
os.environ['TORCH_DISABLE_SHARE_RDZV_TCP_STORE'] = '1'
# The defaults of torchrun (OMP) and mmengine (MKL), set here to avoid two lines of warnings per rank.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MKL_NUM_THREADS', '1')

ENDED_WITH_OTHERS = (-signal.SIGTERM, -signal.SIGABRT, 128 + signal.SIGTERM)
"""Exit codes of ranks that torchrun has ended, or that the end of another rank aborted (gloo: SIGABRT)."""


def first_failure(failures: dict) -> tuple:
    """Return the global rank and the failure of the rank that failed first and caused the others.

    A rank with its own recorded reason comes first. A rank ended by a signal comes before ranks that lost
    their connection to it: these may end before torchrun polls, so the times do not show the order.

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
    """Return a rank's record of its error with `message`, `trace`, `time` and `lost`; {} without one."""
    message = failure.error_file_data.get('message')
    if not isinstance(message, dict):
        return {}
    extra = message.get('extraInfo', {})
    return dict(extra, message=message.get('message'), trace=extra.get('trace', ''))


def exit_code(failure: 'ProcessFailure') -> int:
    """Return the exit code of a failed rank; a signal counts as 128 + signal, as in shells.

    A rank with a recorded reason has failed, even if the end of another rank killed it before its exit.
    """
    if noted(failure) and failure.exitcode in (-signal.SIGTERM, 128 + signal.SIGTERM):
        return 1
    return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode


def describe(failures: dict, ranks: int, here: int, left: int) -> str:
    """Return one line about failed ranks, after a traceback if the code is at fault.

    Args:
        failures: torchrun's ProcessFailure by global rank.
        ranks: Number of ranks on all nodes.
        here: Number of ranks on this node.
        left: Number of restarts that are left.
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
    """Let the tool parse its arguments, so that --help and wrong use are answered once, before ranks start.

    Args:
        arguments: Options of torchrun, the tool's file, and the tool's arguments.
    """
    files = [i for i, word in enumerate(arguments) if word.endswith('.py') and Path(word).is_file()]
    if files:
        spec = importlib.util.spec_from_file_location('tool', arguments[files[0]])
        if 'def parse_args' in Path(arguments[files[0]]).read_text():
            tool = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(tool)
            sys.argv[0] = arguments[files[0]]  # its name in messages
            tool.parse_args(arguments[files[0] + 1 :])


def launch(arguments: list[str]) -> int:
    """Start the ranks and wait for them.

    Args:
        arguments: Options of torchrun, the tool's file, and the tool's arguments.

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
        """Prints why ranks failed, also before a restart; torchrun raises an error only at the end."""

        def _monitor_workers(self, worker_group: Any) -> Any:
            result = super()._monitor_workers(worker_group)
            if result.is_failed():
                workers, left = worker_group.workers, self._remaining_restarts
                text = describe(result.failures, workers[0].world_size, len(workers), left)
                print(text, file=sys.stderr, flush=True)
            return result

    launcher.LocalElasticAgent = Agent
    # These loggers report a failed rank in several lines; `describe` does so in one line.
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
