"""Start the ranks of a tool with torchrun; a failed rank ends in its own line and its own exit code.

Used by dist_train.sh and dist_test.sh. torchrun alone prints a page of traceback under the rank's message
and always exits with 1. SIGTERM reaches the ranks; training writes a checkpoint, and the exit code is 143.
"""

import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

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
