"""Hand-over of weights: comparing a model's tensors with a file's, and finding the origin of a file."""

import ast
import copy
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from projects.config import names
from projects.config.variables import dicts
from projects.errors import MMXrayError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


# Keys that may differ in a hand-over. Integer buffers are not learnt: `num_batches_tracked` counts batches,
# `relative_position_index` follows from the window size.
ALLOWED_UNEXPECTED = re.compile(r'mask_token|fc\..*|head\..*')


ALLOWED_MISSING = re.compile(r'norm([0-2])\.(weight|bias)|mask_token')


NOT_LEARNT = ('num_batches_tracked', 'relative_position_index')


class HandoverError(MMXrayError, ValueError):
    """A run would start from other weights than its config states; one line with the remedy."""


@dataclass
class Handover:
    """A comparison of a model's tensors with a file's; keys are relative to the module."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]
    different: list[str]


def compare(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> Handover:
    """Compare a module's tensors with a file's.

    The module's own loading code loads the file into a copy. Tensors that this code converts (old names,
    tables of another window size) are therefore compared after conversion. The module itself is only read.

    Args:
        module: The module before training.
        state: Tensors of the file under the module's own names.

    Returns:
        Keys by result: `matched` (equal values), `missing` (not in the file), `unexpected` (only in the
            file), `mismatched` (other shape) and `different` (other values).
    """
    duplicate = copy.deepcopy(module).cpu()
    missing, unexpected, errors = [], [], []

    def load(part, tensors, prefix):
        part._load_from_state_dict(tensors, prefix, {}, True, missing, unexpected, errors)
        for name, child in part.named_children():
            inner = f'{prefix}{name}.'
            load(child, {k: v for k, v in tensors.items() if k.startswith(inner)}, inner)

    load(duplicate, dict(state), '')
    mismatched = [match[1] for match in (re.match(r'size mismatch for (\S+):', e) for e in errors) if match]
    loaded = duplicate.state_dict()
    matched, different = [], []
    for key, tensor in module.state_dict().items():
        if key.endswith(NOT_LEARNT) or key in missing or key in mismatched:
            continue
        (matched if torch.equal(tensor.cpu(), loaded[key]) else different).append(key)
    return Handover(
        matched,
        [k for k in missing if not k.endswith(NOT_LEARNT)],
        [k for k in unexpected if not k.endswith(NOT_LEARNT)],
        [k for k in mismatched if not k.endswith(NOT_LEARNT)],
        different,
    )


def refuse_untrained(checkpoint: str, meta: dict) -> None:
    """Refuse weights without an update, since random weights look like trained ones.

    Args:
        checkpoint: Its path, for the message.
        meta: Metadata of a checkpoint (`iter`) or of `backbone.safetensors` (`iteration`).

    Raises:
        HandoverError: The file was written before the first update.
    """
    if str(meta.get('iter', meta.get('iteration'))) == '0':
        raise HandoverError(
            f'{checkpoint}: written by a run without an update (iteration 0), expected trained weights; '
            'train again, with a batch size that the data can fill'
        )
    if meta.get('unchanged'):
        raise HandoverError(
            f'{checkpoint}: written before the first update, since mixed precision had skipped all, '
            'expected trained weights; take a later checkpoint'
        )


def fingerprint(module: torch.nn.Module) -> str:
    """Return 12 hexadecimal digits of the SHA-256 of a module's learnt tensors, in any order."""
    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        if not key.endswith(NOT_LEARNT):
            digest.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def command_for(checkpoint: str) -> str | None:
    """Return the command that trains a checkpoint, or None if no config has the name of its folder."""
    for folder in reversed(Path(checkpoint).parent.parts):
        for config in sorted(CONFIGS.glob(f'**/{folder}.py')):
            return train_command(config)
    return None


def train_command(config: Path) -> str:
    """Return the command that trains a config of the repository on the number of GPUs in its name."""
    name, gpus = config.relative_to(CONFIGS.parent), names.gpus_of(config.stem)
    return f'tools/dist_train.sh {name} {gpus}' if (gpus or 1) > 1 else f'python tools/train.py {name}'


def loading_of(config: dict) -> dict | None:
    """Return the loading settings of a config's training radiographs; None without LoadXray.

    Args:
        config: Config; only `train_dataloader` and the first `data_preprocessor` with a mean are used.

    Returns:
        `window`, `dtype`, `mean` and `std`; the size of shrunk radiographs is left out, since it may differ.
    """
    loads = (d for d in dicts(config.get('train_dataloader')) if d.get('type') == 'LoadXray')
    load = next(loads, None)
    norms = (d.get('data_preprocessor') for d in dicts(config))
    norm = next((d for d in norms if isinstance(d, dict) and d.get('mean') is not None), {})
    return load and _loading(load, norm.get('mean') or (), norm.get('std') or ())


def _loading(load: dict, mean: Sequence[float], std: Sequence[float]) -> dict:
    window = dict(load.get('window') or dict(type='full'))
    return dict(
        window={key: value for key, value in window.items() if (key, value) != ('log', False)},
        dtype=load.get('dtype', 'uint8'),
        mean=[round(float(value), 4) for value in mean],
        std=[round(float(value), 4) for value in std],
    )


def loading_of_file(meta: dict) -> dict | None:
    """Return the loading settings of the run that wrote a file; None if the file does not state them.

    Args:
        meta: Text of `backbone.safetensors`, or `meta` of a checkpoint, whose dumped config is parsed but
            never run.
    """
    try:
        if meta.get('load'):
            load = _value_of(ast.parse(meta['load'], mode='eval').body)
            return _loading(load, json.loads(meta['mean']), json.loads(meta['std'])) if load else None
        statements = ast.parse(meta.get('cfg') or '').body
        config = {
            s.targets[0].id: _value_of(s.value)
            for s in statements
            if isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Name)
        }
        return loading_of(config)
    # In a file of another origin, `cfg` and `mean` can be anything.
    except (SyntaxError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _value_of(node: ast.expr):
    """Value of an expression in a dumped config: dicts in both forms, lists, constants; None for others."""
    if isinstance(node, ast.Call):
        named = {k.arg: _value_of(k.value) for k in node.keywords}
        return named | (named.pop(None, None) or {})  # `**{…}` holds keys that are no names
    if isinstance(node, ast.Dict):
        return {_value_of(k): _value_of(v) for k, v in zip(node.keys, node.values)}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value_of(element) for element in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
