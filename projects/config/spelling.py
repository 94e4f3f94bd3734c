"""Misspelt keys of a config or of `--cfg-options`, which mmengine would silently ignore."""

import difflib
import inspect
from collections.abc import Mapping, Sequence

from mmengine import registry
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

# Top-level keys that the Runner or a tool reads.
RUNNER = tuple(name for name in inspect.signature(Runner.__init__).parameters if name not in ('self', 'cfg'))
TOP = (
    *RUNNER,
    *('auto_scale_lr', 'custom_imports', 'runner_type', 'data_preprocessor', 'tta_model', 'tta_pipeline'),
    *('compile', 'efficient_conv_bn_eval', 'activation_checkpointing'),
)
# Keys of the containers without a `type`, by the function or class that takes them.
CONTAINERS = {
    'train_dataloader': ('batch_size', 'num_workers', 'dataset', 'sampler', 'batch_sampler', 'collate_fn')
    + ('pin_memory', 'persistent_workers', 'drop_last', 'prefetch_factor', 'timeout', 'worker_init_fn'),
    'train_cfg': ('by_epoch', 'max_epochs', 'max_iters', 'val_begin', 'val_interval', 'dynamic_intervals'),
    'randomness': ('seed', 'deterministic', 'diff_rank_seed'),
    'auto_scale_lr': ('enable', 'base_batch_size'),
    'default_hooks': ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
    + ('visualization',),
}
CONTAINERS |= {f'{split}_dataloader': CONTAINERS['train_dataloader'] for split in ('val', 'test')}
REGISTRIES = (
    *('MODELS', 'DATASETS', 'TRANSFORMS', 'HOOKS', 'METRICS', 'OPTIM_WRAPPERS', 'OPTIMIZERS'),
    *('PARAM_SCHEDULERS', 'DATA_SAMPLERS', 'LOOPS', 'VISUALIZERS', 'VISBACKENDS', 'TASK_UTILS'),
)
ALIKE = 0.75
# Endings of the names of variables in the published recipes of mmdet and mmpretrain.
VARIABLES = ('_pipeline', '_pipelines', '_type', '_root', '_backends', '_args', '_view')


def misspelt_top(cfg: Config) -> str | None:
    """Return a message about a top-level key that is nearly a key of the Runner; None without such a key.

    Keys that resemble no key of the Runner are variables, as in published recipes.
    """
    for key in cfg:
        if key in TOP or key.startswith('xray_') or key.endswith(VARIABLES):
            continue
        near = difflib.get_close_matches(key, TOP, 1, 0.85)
        if near and abs(len(near[0]) - len(key)) <= 2:
            return f'`{key}` is read by nothing; did you mean `{near[0]}`?'
    return None


def absent_part(cfg: Config, key: str) -> tuple[str, ...] | None:
    """Return the path of the first part of an option's key that the config does not have.

    Args:
        cfg: The config, before any option is merged.
        key: Such as `optim_wrapper.optimizer.lr`.

    Returns:
        The parts up to and including the missing one; None if the whole key exists, or its parent is no dict.
    """
    node: object = cfg._cfg_dict
    parts = key.split('.')
    for place, part in enumerate(parts):
        if isinstance(node, Mapping):
            if part not in node:
                return tuple(parts[: place + 1])
            node = node[part]
        elif isinstance(node, Sequence) and not isinstance(node, str) and part.isdigit():
            if int(part) >= len(node):
                return None  # the merge says what is wrong
            node = node[int(part)]
        else:
            return None  # a value in whose place a dict is put
    return None


def misspelt(cfg: Config, added: Sequence[str]) -> str | None:
    """Return a message about a key that an option has added, if no class takes such a key.

    Args:
        cfg: The config with all options merged, since one option may set the `type` that takes the key of
            another option.
        added: See `absent_part`.

    Returns:
        A clause with the remedy; None if the key is right, or the class that takes it is not known.
    """
    *path, part = added
    if not path:
        near = difflib.get_close_matches(part, TOP, 1, 0.6)
        return None if part in TOP else _clause(part, 'the config', near)
    node = cfg._cfg_dict
    for step in path:
        node = node[int(step)] if isinstance(node, Sequence) else node[step]
    place = '.'.join(path)
    known = {*node, *CONTAINERS.get(place, ())} - {part}
    takes_more, name = True, place
    if kind := node.get('type'):
        name = f'{kind if isinstance(kind, str) else kind.__name__} ({place})'
        arguments, takes_more = _arguments(kind, cfg.get('default_scope'))
        known = {*arguments} if arguments else known
    if part in {*known, *CONTAINERS.get(place, ())}:
        return None
    near = difflib.get_close_matches(part, sorted(known), 1, ALIKE if takes_more else 0.5)
    return None if takes_more and not near else _clause(part, name, near)


def _clause(part: str, place: str, near: list[str]) -> str:
    remedy = f'did you mean `{near[0]}`?' if near else 'look its keys up with tools/diff_config.py'
    return f'`{part}` is no key of {place}; {remedy}'


def _arguments(kind: object, scope: str | None) -> tuple[list[str], bool]:
    """Names of the arguments of a class that a config names, and whether it takes any others (**kwargs)."""
    found = kind if inspect.isclass(kind) else _find(str(kind), scope)
    if not inspect.isclass(found):
        return [], True
    names = ['type', '_scope_', 'init_cfg', 'priority']
    for cls in found.__mro__[:-1]:
        if '__init__' not in vars(cls):
            continue
        parameters = inspect.signature(cls.__init__).parameters.values()
        names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names, False
    return names, True


def _find(name: str, scope: str | None) -> object:
    with DefaultScope.overwrite_default_scope(scope):
        for registered in REGISTRIES:
            found = getattr(registry, registered).get(name)
            if found is not None:
                return found
    return None
