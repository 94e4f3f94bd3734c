"""Benchmark of a watched folder whose process is killed at random times: radiographs lost or repeated.

Without arguments it uses a drawn radiograph and a stand-in detector that takes no time.

Example:
    python -m projects.benchmark.watched
    python -m projects.benchmark.watched exported/castings part.png --radiographs 10000 --kills 20
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from projects.arguments import one_line_for_bad_input

from .stand_in import SIDE, add_arguments, chosen


@one_line_for_bad_input
def main(argv: list[str] | None = None) -> int:
    """Print the numbers of lost and repeated radiographs; returns 1 unless both are 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    add_arguments(parser)
    parser.add_argument('--radiographs', type=int, default=10_000, metavar='N', help='that arrive (10,000)')
    parser.add_argument('--kills', type=int, default=20, metavar='N', help='at random times (20)')
    parser.add_argument('--every', type=float, default=0.02, metavar='S', help='between two arrivals (0.02)')
    parser.add_argument('--seed', type=int, default=0, help='of the times of the kills (0)')
    args = parser.parse_args(argv)
    rng, told, begin = random.Random(args.seed), [], time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        root, out = Path(place, 'arriving'), Path(place, 'found')
        root.mkdir()
        model, images = chosen(parser, args, Path(place), SIDE)
        command = [sys.executable, '-m', 'projects.line.runtime.command', str(model), str(root)]
        command += ['--out', str(out), '--watch', '--settle', '0.2']
        arriving = threading.Thread(target=_arrive, args=(images[0], root, args.radiographs, args.every))
        arriving.start()
        kept = (out / 'results').glob
        for k in range(1, args.kills + 1):
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                reader = threading.Thread(target=lambda p=process: told.extend(p.stdout))
                reader.start()
                # Spreads the kills over the work: each after a further share of the results and a random
                # delay.
                goal = args.radiographs * k // (args.kills + 1)
                while sum(1 for _ in kept('*.json')) < goal and process.poll() is None:
                    time.sleep(0.5)
                time.sleep(rng.uniform(0, 0.5))
                process.kill()
                reader.join()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            reader = threading.Thread(target=lambda: told.extend(process.stdout))
            reader.start()
            while sum(1 for _ in kept('*.json')) < args.radiographs and process.poll() is None:
                time.sleep(0.5)
            process.terminate()
            reader.join()
        arriving.join()
        results = [json.loads(path.read_text()) for path in kept('*.json')]
    names = [line.partition(':')[0] for line in told if line.endswith((': accept\n', ': reject\n'))]
    lost, twice = args.radiographs - len({r['name'] for r in results}), len(names) - len(set(names))
    print(
        f'{args.radiographs} radiographs, {args.kills} kills, {time.monotonic() - begin:.0f} s: {lost} lost, '
        f'{twice} told twice, {sum(r["verdict"] == "unreadable" for r in results)} unreadable'
    )
    return 1 if lost or twice else 0


def _arrive(image: Path, root: Path, count: int, every: float) -> None:
    for k in range(count):
        draft = root / f'{k}{image.suffix}.part'
        shutil.copyfile(image, draft)
        draft.rename(root / f'{k}{image.suffix}')
        time.sleep(every)


if __name__ == '__main__':
    sys.exit(main())
