"""The `xray_*` variables that `--cfg-options` reaches: how radiographs are loaded, and a user's own data.

mmengine copies a fragment's variable to the keys that use it while it reads the config, so a later change of
the variable has no effect. `xray_load.…` is therefore written into every LoadXray. `xray_own.…`, the settings
in the fragment of an experiment in `configs/own/`, is changed while that fragment is read, as if a user had
edited it.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from mmengine.config import Config

from projects.errors import MMXrayError

OWN = 'xray_own'


class VariableError(MMXrayError, ValueError):
    """An option that would have no effect; one line with the remedy."""


@contextmanager
def own_data(options: Sequence[tuple[str, object]]) -> Iterator[None]:
    """Read configs in this context as if a user had edited `xray_own` in their fragment.

    Args:
        options: Dotted keys such as `xray_own.root`, with their values.

    Raises:
        VariableError: The config has no such variable.
    """
    if not options:
        yield
        return
    reached: set[str] = set()
    original = Config._file2dict

    def read(*args, **kwargs):
        content, text, environment = original(*args, **kwargs)
        for key, value in options:
            if OWN in content:
                _set(content[OWN], key, value)
                reached.add(key)
        return content, text, environment

    Config._file2dict = staticmethod(read)
    try:
        yield
    finally:
        Config._file2dict = staticmethod(original)
    missed = [key for key, _ in options if key not in reached]
    if missed:
        raise VariableError(
            f"--cfg-options: '{missed[0]}' works only with the configs in configs/own/, which "
            'tools/new_experiment.py writes; name one of them'
        )


def _set(node: dict, key: str, value: object) -> None:
    _, *parts = key.split('.')
    for place, part in enumerate(parts):
        # An option may add an argument to `resize` or `load`; a new part is a typing error.
        if not isinstance(node, dict) or (place == 0 and part not in node):
            near = difflib.get_close_matches(part, list(node), 1) if isinstance(node, dict) else []
            known = f'did you mean {OWN}.{near[0]}?' if near else f'expected one of {", ".join(node)}'
            raise VariableError(f"--cfg-options: '{key}' is not in the fragment; {known}")
        if place + 1 < len(parts):
            node = node[part]
        else:
            node[part] = value
    if not parts:
        raise VariableError(
            f"--cfg-options: '{key}' is the whole fragment, expected a part such as {OWN}.root"
        )


def set_load(cfg: Config, key: str, value: object) -> None:
    """Write a part of `xray_load` into every LoadXray, since no class reads the variable itself.

    Raises:
        VariableError: The key is another `xray_*` variable or another part, or the config has no LoadXray.
    """
    name, *parts = key.split('.')
    if name != 'xray_load':
        raise VariableError(
            f"--cfg-options: '{key}' would change nothing, since xray_* variables are copied to other keys "
            'while a config is read; set these keys, or edit the variable itself'
        )
    if not parts or parts[0] not in ('window', 'dtype', 'size'):
        raise VariableError(
            f"--cfg-options: '{key}' is no argument of LoadXray, expected xray_load.window.type and the "
            'like, xray_load.dtype or xray_load.size; correct the key'
        )
    loads = [node for node in dicts(cfg._cfg_dict) if node.get('type') == 'LoadXray']
    if not loads:
        raise VariableError(
            f"--cfg-options: '{key}' has no LoadXray to go to in {cfg.filename}; name a config that loads "
            'radiographs'
        )
    for load in loads:
        for part in parts[:-1]:
            if part not in load:
                load[part] = {}
            load = load[part]
        load[parts[-1]] = value


def dicts(node: object) -> Iterator[dict]:
    """Yield every dict of a config."""
    if isinstance(node, dict):
        yield node
        node = node.values()
    if not isinstance(node, str) and isinstance(node, Iterable):
        for value in node:
            yield from dicts(value)
