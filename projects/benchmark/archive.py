"""What an archive costs as it grows: the search for near duplicates on look-alikes of one casting design."""

import time

import cv2
import numpy as np

from projects.prepare.resemblance import Looks, near_matches
from projects.prepare.scan import difference_hash


def look_alikes(count: int, seed: int, noise: float = 1.0) -> Looks:
    """Draw frames of one casting design: turned, shifted, magnified a little, with flaws and noise.

    Args:
        count: how many.
        seed: of their pose, flaws and noise; the design is always the same.
        noise: standard deviation in gray levels of the 32 x 32 px copies.
    """
    design, rng = np.random.default_rng(1234), np.random.default_rng(seed)
    base = sum(
        cv2.resize(design.random((k, k), np.float32), (96, 96), interpolation=cv2.INTER_CUBIC)
        for k in (3, 7, 15)
    )
    base = (base - base.min()) / (base.max() - base.min()) * 200 + 20
    small = np.empty((count, 32, 32), np.uint8)
    for image in small:
        pose = cv2.getRotationMatrix2D((48, 48), rng.normal(0, 1.5), rng.normal(1, 0.01))
        pose[:, 2] += rng.normal(0, 1.5, 2)
        frame = cv2.warpAffine(base, pose, (96, 96), borderMode=cv2.BORDER_REFLECT)
        for _ in range(rng.integers(4)):
            centre = tuple(int(v) for v in rng.integers(10, 86, 2))
            cv2.circle(frame, centre, int(rng.integers(2, 7)), float(rng.integers(20, 220)), -1)
        frame = cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA)
        image[:] = np.clip(frame + rng.normal(0, noise, frame.shape), 0, 255)
    return Looks(list(small), [difference_hash(image) for image in small])


def measure_leaks(count: int, workers: int) -> dict[str, float]:
    """Search `count` look-alikes for near duplicates of a fifth as many.

    Returns:
        'images', 'searched', 'found', processor seconds 'cpu_s' and 'wall_s' of the search.
    """
    left, right = look_alikes(count, 0), look_alikes(max(count // 5, 1), 1)
    wall, cpu = time.perf_counter(), time.process_time()
    found = near_matches(left, right, workers)
    return dict(
        images=count,
        searched=len(right),
        found=int((found.index >= 0).sum()),
        cpu_s=time.process_time() - cpu,
        wall_s=time.perf_counter() - wall,
    )


def leaks_table(rows: list[dict[str, float]]) -> str:
    """Show the growth beside n log n, from the first row on."""
    lines = ['near duplicates: images x searched for   found   processor s   growth   n log n']
    first = rows[0]
    for row in rows:
        bound = row['images'] * np.log(row['images']) / (first['images'] * np.log(first['images']))
        pair = f'{row["images"]:,} x {row["searched"]:,}'
        lines.append(
            f'{pair:>40} {row["found"]:7,} {row["cpu_s"]:13.2f} {row["cpu_s"] / first["cpu_s"]:7.1f}x '
            f'{bound:8.1f}x'
        )
    return '\n'.join(lines)
