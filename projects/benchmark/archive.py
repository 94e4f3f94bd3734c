"""Benchmark of the searches for near duplicates and crops, over archives of growing size."""

import time
from collections.abc import Sequence

import cv2
import numpy as np

from projects.prepare.crop_index import CropIndex, find_points
from projects.prepare.resemblance import Looks, near_matches
from projects.prepare.scan import difference_hash

from .memory import peak_memory


def look_alikes(count: int, seed: int, noise: float = 1.0) -> Looks:
    """Draw frames of one casting design, each slightly rotated, shifted and scaled, with flaws and noise.

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
    """Search `count` look-alikes for near duplicates of `count` / 5 others.

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


def leaks(counts: Sequence[int], workers: int) -> tuple[list[dict[str, float]], float]:
    """Return `measure_leaks` of each count, and the largest memory of this process in GiB."""
    return [measure_leaks(count, workers) for count in counts], peak_memory() / 2**30


def crops(counts: Sequence[int]) -> tuple[list[dict[str, float]], float]:
    """Return `measure_crops` of each count, and the largest memory of this process in GiB."""
    return [measure_crops(count) for count in counts], peak_memory() / 2**30


def leaks_table(rows: list[dict[str, float]], what: str = 'near duplicates') -> str:
    """Return a table of the growth beside n log n, both relative to the first row."""
    lines = [f'{what}: images x searched for   found   processor s   growth   n log n']
    first = rows[0]
    for row in rows:
        bound = row['images'] * np.log(row['images']) / (first['images'] * np.log(first['images']))
        pair = f'{row["images"]:,} x {row["searched"]:,}'
        lines.append(
            f'{pair:>40} {row["found"]:7,} {row["cpu_s"]:13.2f} {row["cpu_s"] / first["cpu_s"]:7.1f}x '
            f'{bound:8.1f}x'
        )
    return '\n'.join(lines)


def crop_set(
    count: int, seed: int, side: int = 192
) -> tuple[list[np.ndarray], list[np.ndarray], list[tuple[int, int, int]]]:
    """Draw radiographs of one casting design with grain, and cut a crop from every fifth radiograph.

    Args:
        count: How many radiographs.
        seed: Of their pose and grain; the design is always the same.
        side: In px.

    Returns:
        The radiographs, (side, side) uint8 each; the crops; for each crop (number of its radiograph, x, y).
    """
    design, rng = np.random.default_rng(1234), np.random.default_rng(seed)
    base = sum(
        cv2.resize(design.random((k, k), np.float32), (side + 32,) * 2, interpolation=cv2.INTER_CUBIC)
        for k in (3, 7, 15)
    )
    base = (base - base.min()) / (base.max() - base.min()) * 200 + 20
    images, crops, truth = [], [], []
    for number in range(count):
        x, y = rng.integers(0, 32, 2)
        grain = rng.standard_normal((side, side), np.float32) * 6
        images.append(np.clip(base[y : y + side, x : x + side] + grain, 0, 255).astype(np.uint8))
        if number % 5 == 0:
            h, w = rng.integers(side // 2, side * 2 // 3, 2)
            x, y = int(rng.integers(0, side - w)), int(rng.integers(0, side - h))
            crops.append(images[-1][y : y + h, x : x + w])
            truth.append((number, x, y))
    return images, crops, truth


def measure_crops(count: int) -> dict[str, float]:
    """Search `count` radiographs of one design for crops of a fifth of them.

    Returns:
        'images', 'searched', 'found', processor seconds 'cpu_s' of index and search without key points, and
        'points_s' of finding the key points.
    """
    hosts, parts, truth, points_s = [], [], [], 0.0
    for start in range(0, count, 1000):  # keeps the pixels of 1000 images in memory
        images, crops, places = crop_set(min(1000, count - start), start)
        begin = time.process_time()
        hosts += [find_points(image) for image in images]
        parts += [find_points(crop) for crop in crops]
        points_s += time.process_time() - begin
        truth += [(start + number, x, y) for number, x, y in places]
    begin = time.process_time()
    index = CropIndex(hosts)
    found = sum(place in index.candidates(part) for part, place in zip(parts, truth, strict=True))
    cpu = time.process_time() - begin
    return dict(images=count, searched=len(parts), found=found, cpu_s=cpu, points_s=points_s)
