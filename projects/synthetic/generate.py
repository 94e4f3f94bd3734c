"""A folder of generated radiographs: images, COCO files, and what lets an interrupted run go on.

The same parameters give the same bytes on the same machine, whatever the number of processes.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from projects.radiograph.files import write_json, write_whole
from projects.xray.classes import CASTINGS

from . import physics, plan
from .view import Defect

# What the images depend on; kept beside them.
FLAGS = ('unlabeled', 'labeled', 'size', 'bits', 'depth', 'extra', 'seed')
SPLITS = ('train', 'val', 'test')
LABELED, UNLABELED = 0, 1
# Noise hardly compresses: run lengths alone take two thirds of the time and give smaller files.
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]


def version() -> str:
    """Return a digest of the generator's code: another version draws other images."""
    code = b''.join(path.read_bytes() for path in sorted(Path(__file__).parent.glob('*.py')))
    return hashlib.sha256(code).hexdigest()[:16]


def claim(out: Path, parameters: Mapping[str, Any]) -> str | None:
    """Make `out` the folder of this generation; returns a line that says why it cannot be, else None."""
    mark = out / 'synthetic.json'
    if out.exists() and not out.is_dir():
        return f'{out}: expected a folder, found a file; name another OUT'
    if mark.is_file():
        try:
            found = json.loads(mark.read_text())
        except ValueError:
            return f'{mark}: expected the parameters of an earlier run; delete the folder or name another OUT'
        if found != parameters:
            other = [k for k in parameters if not isinstance(found, dict) or found.get(k) != parameters[k]]
            return (
                f'{out}: holds another generation (differs in {", ".join(other) or "extra keys"});'
                ' delete the folder or name another OUT'
            )
        return None
    if out.exists() and any(out.iterdir()):
        return f'{out}: expected an empty folder, found other files; name another OUT'
    out.mkdir(parents=True, exist_ok=True)
    write_json(mark, parameters, indent=None)
    return None


def generate(out: Path, parameters: Mapping[str, Any], workers: int) -> None:
    """Draw what is missing in a claimed folder and print what it then holds.

    Args:
        out: Folder.
        parameters: Values of FLAGS.
        workers: Processes.

    Raises:
        OSError: The folder cannot be written.
    """
    seed, extra = parameters['seed'], parameters['extra']
    labeled = plan.plan(parameters['labeled'], seed, LABELED, extra)
    unlabeled = plan.plan(parameters['unlabeled'], seed, UNLABELED, extra)
    annotated = all((out / f'{split}.json').is_file() for split in SPLITS)
    tasks = [(LABELED, v) for v in labeled if not _image_path(out, LABELED, v).is_file()
             or not annotated and not _notes_path(out, v).is_file()]  # fmt: skip
    tasks += [(UNLABELED, v) for v in unlabeled if not _image_path(out, UNLABELED, v).is_file()]
    if not tasks and annotated:
        print(f'{out}: complete already')
        return
    for name in ('images', 'unlabeled', '.partial'):
        (out / name).mkdir(exist_ok=True)
    draw = partial(_draw, out=out, **{key: parameters[key] for key in ('seed', 'size', 'bits', 'depth')})
    total, done = len(labeled) + len(unlabeled), len(labeled) + len(unlabeled) - len(tasks)
    with tqdm(total=total, initial=done, unit='image', desc=str(out), disable=None) as bar:
        if workers == 1 or len(tasks) < 2:
            for task in tasks:
                draw(task)
                bar.update()
        else:
            with ProcessPoolExecutor(min(workers, len(tasks)), get_context('spawn')) as pool:
                for _ in pool.map(draw, tasks, chunksize=max(1, min(8, len(tasks) // workers))):
                    bar.update()
    if not annotated:
        files = _annotations(out, labeled, parameters)
        for split in SPLITS:
            write_json(out / f'{split}.json', files[split], indent=None)
    shutil.rmtree(out / '.partial')
    counts = ', '.join(f'{sum(v.split == split for v in labeled)} {split}' for split in SPLITS)
    print(f'{out}: {len(labeled)} labelled images ({counts}), {len(unlabeled)} unlabelled')


def _draw(task: tuple[int, plan.View], out: Path, seed: int, size: int, bits: int, depth: float) -> None:
    """Draw one image and write it; a labelled one leaves its annotations in OUT/.partial beside."""
    kind, view = task
    cv2.setNumThreads(1)
    radiograph = plan.draw(view, seed, kind, size, bits, depth)
    encoded = cv2.imencode('.png', radiograph.pixels, PNG)[1]
    write_whole(_image_path(out, kind, view), encoded.tobytes())
    if kind == LABELED:
        annotations = [
            dict(
                category_id=list(CASTINGS).index(defect.type) + 1,
                bbox=[float(value) for value in defect.bbox],
                area=int(defect.mask.sum()),
                iscrowd=0,
                segmentation=_segmentation(defect, size),
                contrast=round(defect.contrast, 4),
                flaw=f'p{view.part:05d}/{defect.flaw}',
            )
            for defect in radiograph.defects
        ]
        write_json(_notes_path(out, view), annotations, indent=None)


def _segmentation(defect: Defect, size: int) -> dict[str, Any]:
    """The footprint as compressed COCO run lengths over the whole image."""
    x, y, width, height = defect.bbox
    full = np.zeros((size, size), np.uint8, order='F')
    full[y : y + height, x : x + width] = defect.mask
    run_lengths = coco_mask.encode(full)
    return dict(size=[size, size], counts=run_lengths['counts'].decode())


def _image_path(out: Path, kind: int, view: plan.View) -> Path:
    return out / ('images', 'unlabeled')[kind] / f'{"pu"[kind]}{view.part:05d}_v{view.view}.png'


def _notes_path(out: Path, view: plan.View) -> Path:
    return out / '.partial' / f'p{view.part:05d}_v{view.view}.json'


def _annotations(
    out: Path, views: Sequence[plan.View], parameters: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The three COCO files, {name: content}, from the images' notes."""
    categories = [
        dict(id=number, name=name, supercategory=severity)
        for number, (name, severity) in enumerate(CASTINGS.items(), 1)
    ]
    flags = ' '.join(f'--{key} {parameters[key]}' for key in FLAGS)
    info = dict(
        description='Generated radiographs of castings',
        converter=f'tools/make_synthetic.py {flags}',
        bits=parameters['bits'],
        pitch_mm=physics.PITCH,
    )
    files = {split: dict(info=info, images=[], annotations=[], categories=categories) for split in SPLITS}
    for number, view in enumerate(views, 1):
        coco = files[view.split]
        size = parameters['size']
        coco['images'].append(
            dict(
                id=number,
                file_name=_image_path(out, LABELED, view).name,
                width=size,
                height=size,
                part=f'p{view.part:05d}',
                view=view.view,
            )
        )
        for note in json.loads(_notes_path(out, view).read_text()):
            coco['annotations'].append(dict(id=len(coco['annotations']) + 1, image_id=number, **note))
    return files
