"""Small label sets as labelling tools write them, and their conversion."""

import json

import cv2
import numpy as np
import pytest

from tools.convert_dataset import main

HEIGHT, WIDTH = 96, 128
SEVERITY = 'crack: critical\npore: minor\n'
SPLITS = ('train', 'val', 'test')


@pytest.fixture
def src(tmp_path):
    """A folder with six radiographs `images/s1.png` …, no two alike."""
    for k in range(1, 7):
        draw(tmp_path / 'src' / 'images' / f's{k}.png', k)
    return tmp_path / 'src'


def draw(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 65535, (HEIGHT, WIDTH), np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode('.png', pixels)[1].tobytes())


@pytest.fixture
def convert(src, capsys):
    """Convert `src`; exit code, standard output, standard error, and annotations by image stem."""

    def call(kind, *options, severity=SEVERITY):
        out, sheet = src.parent / 'out', src.parent / 'severity.yaml'
        sheet.write_text(severity, encoding='utf-8')
        code = main([kind, str(src), str(out), '--severity', str(sheet), *options])
        captured, err = capsys.readouterr()
        assert 'Traceback' not in err
        return code, captured, err, read(out)

    return call


def read(out):
    """Per image stem its annotations, with the name of the type as `type`."""
    found = {}
    for split in SPLITS:
        if (out / f'{split}.json').is_file():
            coco = json.loads((out / f'{split}.json').read_text())
            types = {c['id']: c['name'] for c in coco['categories']}
            stems = {i['id']: i['file_name'].split('/')[-1].split('.')[0] for i in coco['images']}
            found |= {stem: [] for stem in stems.values()}
            for a in coco['annotations']:
                found[stems[a['image_id']]].append(a | dict(type=types[a['category_id']]))
    return found


def dump(path, value, encoding='utf-8'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding=encoding)


def coco(src, annotations, name='annotations/instances_default.json', categories=None, images=range(1, 7)):
    """A COCO file: annotations are (image number, type id, further fields)."""
    rows = [
        dict(id=k, image_id=i, category_id=c, iscrowd=0) | more
        for k, (i, c, more) in enumerate(annotations, 1)
    ]
    dump(
        src / name,
        dict(
            images=[dict(id=k, width=WIDTH, height=HEIGHT, file_name=f's{k}.png') for k in images],
            categories=categories or [dict(id=1, name='crack'), dict(id=2, name='pore')],
            annotations=rows,
        ),
    )


def rle(*boxes):
    """Uncompressed run lengths of a mask that marks some boxes x1, y1, x2, y2."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = True
    flat = mask.ravel(order='F')
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return dict(size=[HEIGHT, WIDTH], counts=np.diff(np.concatenate([[0], edges, [flat.size]])).tolist())


def boxes(annotations):
    return [(a['type'], a['bbox'], a['iscrowd']) for a in annotations]


PLAIN = [(k, 1 + k % 2, dict(bbox=[5.0, 5.0, 20.0, 10.0])) for k in range(2, 7)]
