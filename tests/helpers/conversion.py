"""Calls of tools/convert_dataset.py, and the files that they read."""

import json
import re

from tools.convert_dataset import main


def run(capsys, *argv):
    """Exit code, standard output and standard error of one call."""
    code = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return code, out, err


def ledger_of(out):
    """What became of each image, box and file of a conversion, and what was repaired, as on record."""
    return json.loads((out / 'train.json').read_text())['info']['ledger']


def refused(capsys, code, match, *argv):
    got, out, err = run(capsys, *argv)
    assert got == code, err
    assert re.search(match, err), err
    assert err.count('\n') == 1 and 'Traceback' not in err
    return err


def labelme_file(folder, name, path, labels=('crack',)):
    """A labelme file that names an image."""
    corners = [[8, 4], [24, 20]]
    shapes = [dict(label=k, shape_type='rectangle', points=corners) for k in labels]
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(dict(imagePath=path, shapes=shapes)))
