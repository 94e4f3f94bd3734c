"""Virtual flaws: a test set of known flaws in a plant's own radiographs, for the probability of detection.

Virkkunen et al., J. Nondestruct. Eval. 40:4, 2021: real flaws of known size are few; drawn ones are as many
as a POD curve needs. Unlike those of a training set they reach below what can be seen, since a curve wants
misses too.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from projects.radiograph.files import whole_folder
from projects.radiograph.image import ImagingError
from projects.radiograph.parts import PartError, part_of
from projects.radiograph.read import read
from projects.radiograph.recipe import prepare
from projects.xray.classes import CASTINGS

from .drawn import Drawn, Recipe, draw_flaws


def draw_virtual(
    folder: Path,
    names: Sequence[str],
    out: Path,
    recipe: Recipe,
    seed: int = 0,
    window: dict | None = None,
    film: bool = False,
    label: str | None = None,
    group: str | None = None,
    progress: Callable[[Iterable], Iterator] = iter,
) -> dict:
    """Write `out/images/NAME.png` and `out/test.json`.

    Each image depends on the seed and its own name alone. Written is what LoadXray shows: the windowed image,
    in 8 bits where the file has no more, else in 16; it is read with `window=dict(type='full')`.

    Args:
        folder: Of the radiographs; sound ones, since a real flaw without a box would count as a false call.
        names: Files below it.
        out: New or empty folder; an error leaves nothing in it.
        recipe: Which flaws.
        seed: Another one draws other flaws.
        window: See `radiograph.window.apply_window`.
        film: Less metal is darker.
        label: The one class of all flaws; None: their types.
        group: See `part_of`; None: each image is its own part.
        progress: Wraps what is iterated over.

    Returns:
        The COCO file: `contrast` (e^(mu·d) - 1 at the peak), `cnr`, `detectability`, mask and `flaw`.

    Raises:
        ImagingError: A file is no readable radiograph, a name leads out of `folder` or is written twice, or
            `group` finds no part in it; or no flaw found a place.
    """
    written = _written(names)
    parts = _parts(names, group)
    window = dict(window or dict(type='full'))
    types = [label] if label else list(CASTINGS)
    coco = dict(
        info=dict(description='Flaws drawn into real radiographs', seed=seed),
        images=[],
        annotations=[],
        categories=[dict(id=number, name=name) for number, name in enumerate(types, 1)],
    )
    with whole_folder(out):
        for number, name in enumerate(progress(names), 1):
            image, flaws = _draw(folder / name, name, recipe, seed, window, film)
            path = out / 'images' / written[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode('.png', image)[1].tobytes())
            height, width = image.shape
            coco['images'].append(
                dict(id=number, file_name=written[name], width=width, height=height, part=parts[name])
            )
            for flaw in flaws:
                kind = 1 if label else types.index(flaw.type) + 1
                count = len(coco['annotations']) + 1
                coco['annotations'].append(
                    dict(id=count, image_id=number, category_id=kind, flaw=f'{name}/{count}', drawn=flaw.type)
                    | _annotation(flaw, image.shape)
                )
        if not coco['annotations']:
            raise ImagingError(
                f'{folder}: no flaw found a place in {len(names)} images; give --air, --film or another '
                '--pitch'
            )
        (out / 'test.json').write_text(json.dumps(coco) + '\n')
    return coco


def _draw(
    path: Path, name: str, recipe: Recipe, seed: int, window: dict, film: bool
) -> tuple[np.ndarray, list[Drawn]]:
    """Return a windowed radiograph (H, W) uint8 or uint16 with flaws, and these."""
    radiograph = read(path)
    image = prepare(radiograph, window, 'uint8' if radiograph.bits <= 8 else 'uint16', 0)
    # As bytes of a hash, so that neither the order nor the number of the images matters.
    place = hashlib.blake2b(name.encode(), digest_size=8).digest()
    rng = np.random.default_rng([seed, int.from_bytes(place, 'little')])
    white = np.iinfo(image.dtype).max
    drawn, flaws = draw_flaws(white - image if film else image, rng, recipe)
    return white - drawn if film else drawn, flaws


def _written(names: Sequence[str]) -> dict[str, str]:
    """Return the name below `out/images` of each image: one of its own, below that folder."""
    written, owners = {}, {}
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or '..' in path.parts:
            raise ImagingError(f'{name}: expected a file below SRC, by its path from there; correct the list')
        written[name] = str(path.with_suffix('.png'))
        owner = owners.setdefault(written[name], name)
        if owner != name:
            raise ImagingError(f'{name}: is written to the same file as {owner}; rename one of them')
    if len(written) < len(names):
        twice = next(name for name in written if list(names).count(name) > 1)
        raise ImagingError(f'{twice}: listed twice; list each radiograph once')
    return written


def _parts(names: Sequence[str], group: str | None) -> dict[str, str | None]:
    """Return the part of each image; without `group` the image itself."""
    parts = {}
    for name in names:
        try:
            parts[name] = name if group is None else part_of(name, group)
        except PartError as error:
            raise ImagingError(f'{name}: {error}') from None
    return parts


def _annotation(flaw: Drawn, shape: tuple[int, int]) -> dict:
    """Return a flaw's box, area, mask as run lengths over the image, and how well it is seen."""
    x, y, width, height = flaw.bbox
    full = np.zeros(shape, np.uint8, order='F')
    full[y : y + height, x : x + width] = flaw.mask
    runs = coco_mask.encode(full)
    return dict(
        bbox=[float(value) for value in flaw.bbox],
        area=int(flaw.mask.sum()),
        iscrowd=0,
        segmentation=dict(size=list(shape), counts=runs['counts'].decode()),
        contrast=round(flaw.contrast, 5),
        detectability=round(flaw.detectability, 3),
        cnr=round(flaw.cnr, 4),
    )
