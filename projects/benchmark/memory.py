"""The peak memory of a process."""

from pathlib import Path


def peak_memory(process: int | str = 'self') -> int:
    """Return the peak resident memory of a process in bytes.

    `ru_maxrss` of `getrusage` would include what the parent held when it started the process.

    Args:
        process: Its id; default this process.
    """
    status = Path(f'/proc/{process}/status').read_text()
    return 1024 * int(status.partition('VmHWM:')[2].split()[0])
