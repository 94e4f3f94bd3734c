"""Configs: read, flattened into tables of dotted keys, compared; the data sets that they name."""

import importlib.util
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from mmengine.config import Config

from projects.errors import MMXrayError

# Fragments export variables with this prefix. Only the configs that copy their values read them.
VARIABLE = 'xray_'


class _Absent:
    """The value of a key that is missing in one of two configs."""

    def __repr__(self):
        return '(absent)'


ABSENT = _Absent()


class ConfigError(MMXrayError, ValueError):
    """A config cannot be read; one line with its name, what was expected and the remedy."""


def load_config(name: str | Path) -> Config:
    """Read a config without importing the modules it names.

    Args:
        name: Path of a .py, .yaml or .json config, also of a dumped config, or `pkg::path` for a config of an
            installed package, such as `mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py`.

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
    """Return the data sets inside wrappers such as RepeatDataset, or the data set itself without one."""
    inner = dataset.get('dataset') or dataset.get('datasets')
    if not inner:
        return [dataset]
    return [leaf for one in ([inner] if isinstance(inner, Mapping) else inner) for leaf in leaves(one)]


def flatten(config: Mapping) -> dict[str, object]:
    """Flatten a config into dotted keys, with list items as numbers: `param_scheduler.1.end`.

    Lists and tuples count as equal, since no class of the libraries distinguishes them. Empty containers are
    values. The fragments' `xray_*` variables are left out: the keys that use their values are in the table.

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


@dataclass(frozen=True)
class Row:
    """One line of a comparison, for printing.

    Attributes:
        key: Dotted key. A list item is named by its `type`; the second item of the same type gets `#2`.
        a, b: The values; `ABSENT` where one config has no such key.
        keys: The key in `a` and the key in `b`, with list items as numbers.
        moved: Whether only the position in a list changed; `a` and `b` are then the positions.
    """

    key: str
    a: object
    b: object
    keys: tuple[str, ...]
    moved: bool = False

    @property
    def differs(self) -> bool:
        """Whether the two configs differ here."""
        return self.moved or type(self.a) is not type(self.b) or self.a != self.b


def align(a: Mapping, b: Mapping) -> list[Row]:
    """Compare two configs key by key, lists of typed items by their types.

    An added hook or transform is one row: the items after it are not reported as changed. An item that both
    lists hold in a different order is reported as moved.

    Returns:
        All keys in the order of `a`, then the keys that only `b` has; equal rows are included.
    """
    rows: list[Row] = []
    left, right = ({k: v for k, v in c.items() if not k.startswith(VARIABLE)} for c in (a, b))
    _align(left, right, '', ('', ''), rows)
    return rows


def _align(a, b, key, keys, rows, item=False) -> None:
    # An item missing from one list is one row. A mapping missing on one side is compared key by key.
    if not item and isinstance(a, Mapping) + isinstance(b, Mapping) + (ABSENT in (a, b)) == 2 and (a or b):
        a, b = ({} if node is ABSENT else node for node in (a, b))
        for name in [*a, *(name for name in b if name not in a)]:
            _align(a.get(name, ABSENT), b.get(name, ABSENT), _join(key, name), _below(keys, name, name), rows)
    elif _is_list(a) and _is_list(b) and (a or b):
        names_a, names_b = _names(a), _names(b)
        if names_a is None or names_b is None:
            names_a, names_b = [*map(str, range(len(a)))], [*map(str, range(len(b)))]
        matcher = SequenceMatcher(None, names_a, names_b, autojunk=False)
        kept = {names_a[i + k] for i, _, size in matcher.get_matching_blocks() for k in range(size)}
        for name in [*names_a, *(name for name in names_b if name not in names_a)]:
            i = names_a.index(name) if name in names_a else None
            j = names_b.index(name) if name in names_b else None
            below = _below(keys, i, j)
            if i is not None and j is not None and name not in kept:
                rows.append(Row(_join(key, name), i, j, below, moved=True))
            one, other = ABSENT if i is None else a[i], ABSENT if j is None else b[j]
            _align(one, other, _join(key, name), below, rows, item=ABSENT in (one, other))
    else:
        rows.append(Row(key, _plain(a), _plain(b), keys))


def _join(key: str, name: object) -> str:
    return f'{key}.{name}' if key else str(name)


def _below(keys: tuple[str, ...], i: object, j: object) -> tuple[str, ...]:
    return tuple(_join(key, name) for key, name in zip(keys, (i, j), strict=True))


def _is_list(node: object) -> bool:
    return isinstance(node, Sequence) and not isinstance(node, str)


def _names(items: Sequence) -> list[str] | None:
    """Names of a list's items by their types; None if an item has no type."""
    if not all(isinstance(item, Mapping) and isinstance(item.get('type'), str) for item in items):
        return None
    seen: Counter[str] = Counter()
    names = []
    for item in items:
        seen[item['type']] += 1
        count = seen[item['type']]
        names.append(item['type'] + (f'#{count}' if count > 1 else ''))
    return names


def _plain(node: object) -> object:
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(value) for value in node] if _is_list(node) else node


def under(key: str, prefixes: Iterable[str]) -> bool:
    """Whether a dotted key equals one of the prefixes or lies below it."""
    return any(key == prefix or key.startswith(f'{prefix}.') for prefix in prefixes)
