"""Families of recipes trained, tested and resumed on ranks, through the scripts that a user starts."""

import json
import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from safetensors import safe_open

from .families import Family, tiny

UNLABELLED, LABELLED, BATCH = 70, 10, 2  # neither number divides by four ranks


def runner_of_scripts(repo: Path, folder: Path) -> Callable[..., str]:
    """Return a function that runs a script of tools/ in `folder`, where it must end well within an hour."""

    def run(name, *arguments, **environment):
        done = subprocess.run(
            [repo / 'tools' / name, *map(str, arguments)],
            cwd=folder,
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            check=False,
            timeout=3600,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr
        assert 'Traceback' not in done.stderr
        return done.stdout

    return run


def check_family(run: Callable[..., str], family: Family, ranks: int, data: Path, folder: Path) -> str:
    """Train a family's recipe for an epoch, test it, resume it for another; returns what the first run said.

    Args:
        run: Of `runner_of_scripts`.
        family: Its recipe is made tiny.
        ranks: Number of ranks.
        data: A drawn set with `UNLABELLED` and `LABELLED` radiographs.
        folder: Where everything is written.
    """
    config = tiny(family, folder, data, BATCH)
    result = run('dist_train.sh', config, ranks, '--work-dir', 'run')
    recipe = Config.fromfile(config)
    images = math.ceil((LABELLED if family.kind in ('detector', 'probe') else UNLABELLED) / ranks)
    steps = images // BATCH if recipe.train_dataloader.get('drop_last') else math.ceil(images / BATCH)
    first = torch.load(folder / 'run' / 'epoch_1.pth', map_location='cpu')
    assert first['meta']['iter'] == steps
    assert all(torch.isfinite(value).all() for value in first['state_dict'].values())

    if any(hook['type'] == 'BackboneHook' for hook in recipe.custom_hooks):
        with safe_open(folder / 'run' / 'backbone.safetensors', 'pt') as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        assert tensors
        assert all(torch.equal(value, first['state_dict'][key]) for key, value in tensors.items())
    if recipe.get('test_dataloader'):
        run('dist_test.sh', config, 'run/epoch_1.pth', ranks, '--work-dir', 'tested')
        assert json.loads((folder / 'tested' / 'test.json').read_text())['metrics']

    further = ('--resume', '--cfg-options', 'train_cfg.max_epochs=2')
    assert 'resumes run/epoch_1.pth' in run('dist_train.sh', config, ranks, '--work-dir', 'run', *further)
    second = torch.load(folder / 'run' / 'epoch_2.pth', map_location='cpu')
    assert second['meta']['iter'] == 2 * steps
    before = first['state_dict']
    assert any(not torch.equal(value, before[key]) for key, value in second['state_dict'].items())
    assert (folder / 'run' / 'student.pth').exists() == (family.method in ('pkd', 'cwd'))
    return result


def one_update(
    run: Callable[..., str], family: Family, ranks: int, data: Path, folder: Path, images: int
) -> dict[str, torch.Tensor]:
    """Return the weights and statistics after one update with all images of an archive, shared by ranks."""
    folder = folder / f'ranks{ranks}'
    folder.mkdir()
    config = tiny(family, folder, data, images // ranks)
    run('dist_train.sh', config, ranks, '--work-dir', folder / 'run')
    checkpoint = torch.load(folder / 'run' / 'epoch_1.pth', map_location='cpu')
    assert checkpoint['meta']['iter'] == 1
    return checkpoint['state_dict']
