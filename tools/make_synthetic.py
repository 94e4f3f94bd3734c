"""Generate radiographs of castings with 19 types of defects: images, boxes and masks, split by part.

Example:
    python tools/make_synthetic.py data/synthetic --labeled 400 --unlabeled 800 --size 1024 --bits 16

writes data/synthetic/images/*.png with {train,val,test}.json (COCO; `part` and `view` per image; mask,
`contrast` and `flaw`, the physical defect, per box) and data/synthetic/unlabeled/*.png from other parts. The
same arguments give the same bytes on the same machine, whatever --workers; an interrupted run is taken up
where it stopped.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects import __version__  # noqa: E402
from projects.radiograph.files import write_json, write_whole  # noqa: E402
from projects.synthetic import physics, plan  # noqa: E402
from projects.xray.classes import CASTINGS  # noqa: E402

BITS = (8, 12, 14, 16)
# What the images depend on; kept beside them.
FLAGS = ('unlabeled', 'labeled', 'size', 'bits', 'depth', 'extra', 'seed')
SPLITS = ('train', 'val', 'test')
LABELED, UNLABELED = 0, 1
# Noise hardly compresses: run lengths alone take two thirds of the time and give smaller files.
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]


def parse_args(argv=None):
    """Read the command line; wrong values end the program with status 2."""
    head, example = __doc__.split('\n\n', 1)
    parser = argparse.ArgumentParser(
        description=head, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=Path, metavar='OUT', help='folder to write, new or of an interrupted run')
    parser.add_argument(
        '--unlabeled', type=int, default=600, metavar='N', help='images without annotation (600)'
    )
    parser.add_argument('--labeled', type=int, default=300, metavar='N', help='annotated images (300)')
    parser.add_argument(
        '--size', type=int, default=1024, metavar='PX', help='side of the square images (1024)'
    )
    parser.add_argument('--bits', type=int, default=16, choices=BITS, help='levels of the digitiser (16)')
    parser.add_argument(
        '--depth', type=float, default=1.0, metavar='F', help='deepen defects F times; 3: for all to see (1)'
    )
    parser.add_argument(
        '--extra', type=int, default=0, metavar='N', help='more defects in each defective part (0)'
    )
    parser.add_argument('--seed', type=int, default=0, help='another seed draws other parts (0)')
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count(), metavar='N', help='processes (all cores)'
    )
    parser.add_argument('--version', action='version', version=f'mmxray {__version__}')
    args = parser.parse_args(argv)
    for name, low, high in (
        ('labeled', 0, 10**6),
        ('unlabeled', 0, 10**6),
        ('size', 128, 4096),
        ('depth', 0.1, 10),
        ('extra', 0, 20),
        ('seed', 0, 2**63 - 1),
        ('workers', 1, 1024),
    ):
        value = getattr(args, name)
        if not low <= value <= high:
            parser.error(f'--{name} {value}: expected a number from {low} to {high}')
    if args.labeled + args.unlabeled == 0:
        parser.error('nothing to draw: --labeled or --unlabeled must be above 0')
    return args


def _segmentation(defect, size):
    """The footprint as compressed COCO run lengths over the whole image."""
    x, y, width, height = defect.bbox
    full = np.zeros((size, size), np.uint8, order='F')
    full[y : y + height, x : x + width] = defect.mask
    run_lengths = coco_mask.encode(full)
    return dict(size=[size, size], counts=run_lengths['counts'].decode())


def _draw(task, out, seed, size, bits, depth):
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


def _image_path(out, kind, view):
    return out / ('images', 'unlabeled')[kind] / f'{"pu"[kind]}{view.part:05d}_v{view.view}.png'


def _notes_path(out, view):
    return out / '.partial' / f'p{view.part:05d}_v{view.view}.json'


def _claim(out, parameters):
    """Make OUT this generation's folder, or say in a line why it cannot be; returns that line or None."""
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


def _annotations(out, views, parameters):
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


def main(argv=None):
    """Run the tool; returns the exit status."""
    args = parse_args(argv)
    parameters = {key: getattr(args, key) for key in FLAGS}
    # another version of the generator draws other images: the two must not be mixed in one folder
    code = b''.join(path.read_bytes() for path in sorted(Path(physics.__file__).parent.glob('*.py')))
    parameters['generator'] = hashlib.sha256(code).hexdigest()[:16]
    try:
        problem = _claim(args.out, parameters)
        if problem:
            print(f'make_synthetic: {problem}', file=sys.stderr)
            return 2
        return _generate(args, parameters)
    except OSError as error:
        where = error.filename or args.out
        print(
            f'make_synthetic: {where}: {error.strerror}; free the disk or name another OUT', file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print('make_synthetic: interrupted; the same command takes it up again', file=sys.stderr)
        return 130


def _generate(args, parameters):
    out = args.out
    labeled = plan.plan(args.labeled, args.seed, LABELED, args.extra)
    unlabeled = plan.plan(args.unlabeled, args.seed, UNLABELED, args.extra)
    annotated = all((out / f'{split}.json').is_file() for split in SPLITS)
    tasks = [(LABELED, v) for v in labeled if not _image_path(out, LABELED, v).is_file()
             or not annotated and not _notes_path(out, v).is_file()]  # fmt: skip
    tasks += [(UNLABELED, v) for v in unlabeled if not _image_path(out, UNLABELED, v).is_file()]
    if not tasks and annotated:
        print(f'{out}: complete already')
        return 0
    for name in ('images', 'unlabeled', '.partial'):
        (out / name).mkdir(exist_ok=True)
    draw = partial(_draw, out=out, seed=args.seed, size=args.size, bits=args.bits, depth=args.depth)
    total, done = len(labeled) + len(unlabeled), len(labeled) + len(unlabeled) - len(tasks)
    with tqdm(total=total, initial=done, unit='image', desc=str(out), disable=None) as bar:
        if args.workers == 1 or len(tasks) < 2:
            for task in tasks:
                draw(task)
                bar.update()
        else:
            with ProcessPoolExecutor(min(args.workers, len(tasks)), get_context('spawn')) as pool:
                for _ in pool.map(draw, tasks, chunksize=max(1, min(8, len(tasks) // args.workers))):
                    bar.update()
    if not annotated:
        files = _annotations(out, labeled, parameters)
        for split in SPLITS:
            write_json(out / f'{split}.json', files[split], indent=None)
    shutil.rmtree(out / '.partial')
    counts = ', '.join(f'{sum(v.split == split for v in labeled)} {split}' for split in SPLITS)
    print(f'{out}: {len(labeled)} labelled images ({counts}), {len(unlabeled)} unlabelled')
    return 0


if __name__ == '__main__':
    sys.exit(main())
