"""Benchmark of the memory of the page's server during simultaneous uploads of large radiographs.

Without arguments it uses a drawn film of 200 MB (10,000 x 10,000 px of 16 bits, the largest that the server
accepts) and a stand-in detector that takes no time and almost no memory.

Example:
    python -m projects.benchmark.uploads
    python -m projects.benchmark.uploads exported/castings film.tif --count 8
"""

import argparse
import http.client
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from projects.arguments import one_line_for_bad_input

from .memory import peak_memory
from .stand_in import add_arguments, chosen

STARTED = re.compile(r'http://([\d.]+):(\d+)/')


@one_line_for_bad_input
def main(argv: list[str] | None = None) -> int:
    """Print the peak memory of the server's process; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    add_arguments(parser)
    parser.add_argument('--side', type=int, default=10_000, metavar='PX', help='of a drawn film (10,000)')
    parser.add_argument('--count', type=int, default=8, metavar='N', help='sent at once (8)')
    parser.add_argument('--port', type=int, default=8099, help='to serve on (8099)')
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as place:
        model, images = chosen(parser, args, Path(place), args.side)
        command = [sys.executable, '-m', 'projects.line.page.command', str(model)]
        command += ['--out', str(Path(place, 'out')), '--port', str(args.port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                address = _started(server)
                before = peak_memory(server.pid)
                answers: list[int] = []
                senders = [
                    threading.Thread(target=lambda k=k: answers.append(_send(address, images[0], k)))
                    for k in range(args.count)
                ]
                for sender in senders:
                    sender.start()
                for sender in senders:
                    sender.join()
                after = peak_memory(server.pid)
            finally:
                server.terminate()
        size = images[0].stat().st_size
    print(
        f'{args.count} radiographs of {size / 1e6:.0f} MB ({size / 2**20:.0f} MiB) at once, answers '
        f'{sorted(set(answers))}: {after / 1e6:.0f} MB at most, {before / 1e6:.0f} MB before'
    )
    return 0 if set(answers) == {200} else 1


def _started(server: subprocess.Popen) -> tuple[str, int]:
    """Wait until a server answers; returns its host and port."""
    for line in server.stdout or ():
        if match := STARTED.search(line):
            address = match[1], int(match[2])
            while server.poll() is None:
                try:
                    http.client.HTTPConnection(*address, timeout=10).connect()
                except OSError:
                    time.sleep(0.1)
                else:
                    return address
    raise SystemExit('the server did not start')


def _send(address: tuple[str, int], image: Path, number: int) -> int:
    """Send a radiograph under a unique name; returns the status of the answer."""
    connection = http.client.HTTPConnection(*address, timeout=600)
    headers = {'X-Inspect': 'page', 'Content-Length': str(image.stat().st_size)}
    with image.open('rb') as file:
        connection.request('POST', f'/v1/inspect?keep=true&name={number}{image.suffix}', file, headers)
    status = connection.getresponse().status
    connection.close()
    return status


if __name__ == '__main__':
    sys.exit(main())
