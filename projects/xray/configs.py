"""Configs as flat tables of dotted keys, what differs between two, and the data sets they read."""

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config

# Fragments export variables of this prefix; nothing reads them but the configs that use their values.
VARIABLE = 'xray_'


class _Absent:
    """The value of a key that one of two configs has not."""

    def __repr__(self):
        return '(absent)'


ABSENT = _Absent()


class ConfigError(ValueError):
    """A config cannot be read; one line that names it, what was expected and the remedy."""


def load_config(name: str | Path) -> Config:
    """Read a config without importing the modules it names.

    Args:
        name: Path of a .py, .yaml or .json config or of a dumped one, or `pkg::path` for one of an installed
            package, such as `mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py`.

    Returns:
        The resolved config.

    Raises:
        ConfigError: No such file or package, or its content is not a config.
    """
    name = str(name)
    package, _, inner = name.rpartition('::')
    if package:
        return _load_installed(package, inner)
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f'{name}: no such file, expected a config or pkg::path; check the path')
    if path.suffix not in ('.py', '.yaml', '.yml', '.json'):
        raise ConfigError(f'{name}: expected a .py, .yaml or .json config; name one')
    return _parse(path, name)


def _load_installed(package: str, inner: str) -> Config:
    name = f'{package}::{inner}'
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise ConfigError(f'{name}: no installed package {package!r}; install it or check the name')
    folder = Path(spec.origin).parent / '.mim' / 'configs'
    path = folder / inner
    if not path.is_file():
        raise ConfigError(f'{name}: no such file, expected one below {folder}; check the path')
    return _parse(path, name)


def _parse(path: Path, name: str) -> Config:
    try:
        return Config.fromfile(path, import_custom_modules=False)
    except (Exception, SystemExit) as error:  # the file is code: anything can come out of it
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f'{name}: not a valid config ({type(error).__name__}: {reason}); correct it'
        ) from error


def leaves(dataset: Mapping) -> list[Mapping]:
    """Return the data sets inside a RepeatDataset, ConcatDataset and the like, or the one given."""
    inner = dataset.get('dataset') or dataset.get('datasets')
    if not inner:
        return [dataset]
    return [leaf for one in ([inner] if isinstance(inner, Mapping) else inner) for leaf in leaves(one)]


def flatten(config: Mapping) -> dict[str, object]:
    """Flatten a config into dotted keys, with list items as numbers: `param_scheduler.1.end`.

    Lists and tuples are alike, as no class of the libraries tells them apart. Empty containers are values.
    The fragments' `xray_*` variables are left out: what uses them is there in its place.

    Args:
        config: mmengine Config or a nested dict.

    Returns:
        Dotted key -> value, in the config's order.
    """
    flat = {}

    def walk(node, key):
        if isinstance(node, Mapping) and node:
            for name, value in node.items():
                walk(value, f'{key}.{name}' if key else str(name))
        elif isinstance(node, Sequence) and not isinstance(node, str) and node:
            for index, value in enumerate(node):
                walk(value, f'{key}.{index}')
        else:
            flat[key] = list(node) if isinstance(node, tuple) else node

    walk({k: v for k, v in config.items() if not k.startswith(VARIABLE)}, '')
    return flat


def differences(a: Mapping, b: Mapping) -> dict[str, tuple[object, object]]:
    """Compare two configs.

    Returns:
        Dotted key -> (value in `a`, value in `b`), sorted; `ABSENT` where one has no such key.
    """
    a, b = flatten(a), flatten(b)
    pairs = {key: (a.get(key, ABSENT), b.get(key, ABSENT)) for key in sorted(a.keys() | b.keys())}
    return {key: (x, y) for key, (x, y) in pairs.items() if type(x) is not type(y) or x != y}


def under(key: str, prefixes: Iterable[str]) -> bool:
    """Whether a dotted key is one of the prefixes or lies below one."""
    return any(key == prefix or key.startswith(f'{prefix}.') for prefix in prefixes)
