"""Start the ranks of a tool with torchrun; a failed rank ends in its own line and its own exit code.

Used by dist_train.sh and dist_test.sh. torchrun alone prints a page of traceback under the rank's message
and always exits with 1. SIGTERM reaches the ranks, of which training writes a checkpoint after its iteration;
torchrun kills what has not ended 30 s later. The exit code is 143 in either case.
"""

import os
import sys
import time

# A restart goes on with what this run has written, not with what it found (running.choose_start).
os.environ['XRAY_LAUNCHED'] = str(time.time())
# A store per attempt: with the shared one, ranks that start again read where those before them listened
# (pytorch/pytorch#135712), and torchrun waits half an hour for the dead. Read by torch when imported.
os.environ['TORCH_DISABLE_SHARE_RDZV_TCP_STORE'] = '1'

from torch.distributed.elastic.multiprocessing.api import SignalException  # noqa: E402
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: E402
from torch.distributed.run import main  # noqa: E402

if __name__ == '__main__':
    if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
        print(f'{__doc__}\nexample:\n  python tools/launch.py --nproc-per-node 2 tools/train.py CONFIG')
        sys.exit(0 if len(sys.argv) > 1 else 2)
    try:
        main(sys.argv[1:])
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        sys.exit(code if code > 0 else 128 - code)
    except SignalException as error:
        sys.exit(128 + error.sigval)
