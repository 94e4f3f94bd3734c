"""Pretrained backbones as safetensors files: written at the end of a pretraining, loaded as checkpoints."""

import hashlib
import importlib.metadata
import json
from pathlib import Path

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from projects import __version__
from projects.radiograph.files import draft_of
from projects.xray.compat import CheckpointError
from projects.xray.handover import refuse_untrained
from projects.xray.seeding import leaf_datasets
from projects.xray.transforms import LoadXray

NAME = 'backbone.safetensors'
PREFIX = 'backbone.'
LIBRARIES = ('torch', 'torchvision', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmpretrain', 'onedl-mmdetection')


@CheckpointLoader.register_scheme(prefixes=r'.*\.safetensors$')
def load_from_safetensors(filename: str, map_location=None) -> dict:
    """Load a file of `BackboneHook`, so that it can be used like any checkpoint.

    Called by mmengine's CheckpointLoader for names that end in `.safetensors`.

    Args:
        filename: Local path.
        map_location: A device, or None for the CPU.

    Returns:
        `state_dict` with the tensors of the file and `meta` with its text.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: The file is no safetensors file, is truncated, or its tensors have changed.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(2, 'no such file', str(filename))
    device = str(map_location) if isinstance(map_location, str | torch.device) else 'cpu'
    try:
        with safe_open(path, 'pt', device=device) as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f'{filename}: not a readable safetensors file ({reason}), expected a whole {NAME}; copy it '
            'again, or take the epoch_N.pth beside it'
        ) from None
    found = digest(tensors)
    if meta.get('sha256', found) != found:
        raise CheckpointError(
            f'{filename}: its tensors are not those that were written (sha256 {found[:12]}, expected '
            f'{meta["sha256"][:12]}); copy it again, or take the epoch_N.pth beside it'
        )
    return dict(state_dict=tensors, meta=meta)


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and values, independent of the order."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        hashed.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def fingerprint_images(dataset) -> str:
    """Return the SHA-256 of the path (below the image folder) and size of each file in a training set.

    Contents are not read. For files without a known size (in a packed store, behind a URL) only the path
    counts.

    Args:
        dataset: Data set whose items have `img_path`, with or without wrappers.
    """
    hashed = hashlib.sha256()
    for leaf in leaf_datasets(dataset):
        root = str(leaf.img_prefix).rstrip('/') + '/'
        for index in range(len(leaf)):
            path = leaf.get_data_info(index)['img_path']
            try:
                size = Path(path).stat().st_size
            except OSError:
                size = ''
            hashed.update(f'{path.removeprefix(root)} {size}\n'.encode())
    return hashed.hexdigest()


@HOOKS.register_module()
class BackboneHook(Hook):
    """Writes `backbone.safetensors` into the work dir after the last epoch of a pretraining.

    The file contains the tensors of the last checkpoint whose names begin with `backbone.`, under the same
    names. Its text contains the experiment, epoch and iteration, the hashes of the config and of the list of
    training images, normalisation and window, library versions, and a checksum of the tensors.
    """

    priority = 'LOWEST'

    @master_only
    def after_train(self, runner) -> None:
        """Write the file atomically, like checkpoints.

        Raises:
            HandoverError: The run made no update.
        """
        last = runner.message_hub.get_info('last_ckpt')
        checkpoint = CheckpointLoader.load_checkpoint(last, map_location='cpu', logger='silent')
        refuse_untrained(last, checkpoint['meta'])
        tensors = {
            k: v.clone(memory_format=torch.contiguous_format)  # as safetensors requires
            for k, v in checkpoint['state_dict'].items()
            if k.startswith(PREFIX)
        }
        path = Path(runner.work_dir) / NAME
        with draft_of(path, durable=True) as draft:
            save_file(tensors, draft, describe(runner, checkpoint['meta'], tensors))
        runner.logger.info(f'Backbone: {len(tensors)} tensors of {last} in {path}')


def describe(runner, meta: dict, tensors: dict) -> dict[str, str]:
    """Return the text of the file for a finished run.

    Args:
        runner: The run's Runner.
        meta: `meta` of the checkpoint with the tensors.
        tensors: Tensors by name.
    """
    config = runner.cfg.copy()
    # Output paths do not belong to a run's identity.
    for key in ('work_dir', 'resume', 'load_from', 'launcher'):
        config.pop(key, None)
    dataset = runner.train_dataloader.dataset
    leaves = leaf_datasets(dataset)
    steps = [step for step in leaves[0].pipeline.transforms if isinstance(step, LoadXray)]
    preprocessor = getattr(runner.model, 'module', runner.model).data_preprocessor
    text = dict(
        format='pt',
        sha256=digest(tensors),
        experiment_name=meta['experiment_name'],
        epoch=str(meta['epoch']),
        iteration=str(meta['iter']),
        config_sha256=hashlib.sha256(
            json.dumps(config.to_dict(), sort_keys=True, default=str).encode()
        ).hexdigest(),
        images=str(sum(map(len, leaves))),
        images_sha256=fingerprint_images(dataset),
        mean=json.dumps([round(v, 4) for v in preprocessor.mean.flatten().tolist()]),
        std=json.dumps([round(v, 4) for v in preprocessor.std.flatten().tolist()]),
        load=repr(steps[0]) if steps else 'not said',
    )
    return text | dict(mmxray=__version__) | {name: importlib.metadata.version(name) for name in LIBRARIES}
