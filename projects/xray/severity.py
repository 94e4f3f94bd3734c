"""Severity maps: from annotated defect types to the classes that a detector learns."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from projects.radiograph.safe_parse import FormatError, parse_yaml

from .classes import CASTINGS, SEVERITY_MAPS
from .errors import DatasetError


def read_severity(
    severity: str | Mapping | None, classes: Sequence[str] | None = None
) -> dict[str, str] | None:
    """Read a severity map.

    Args:
        severity: name of a map in `classes.SEVERITY_MAPS`, a dict, the path of a YAML or JSON file, or None
            if the annotated types are the classes.
        classes: names of the allowed classes; None allows any.

    Returns:
        Defect type -> class, or None.

    Raises:
        DatasetError: the name is unknown, the file cannot be read, a type occurs twice, or a type or class is
            no text.
    """
    if severity is None:
        return None
    if isinstance(severity, Mapping):
        return _check(dict(severity), 'severity map', classes)
    if severity in SEVERITY_MAPS:
        return _check(dict(SEVERITY_MAPS[severity]), named(severity), classes)
    path = Path(severity)
    if path.suffix.lower() not in ('.yaml', '.yml', '.json') or not path.is_file():
        raise DatasetError(
            f'{named(severity)}: expected one of {sorted(SEVERITY_MAPS)}, a dict, or an existing YAML or '
            'JSON file that maps each defect type to a class; correct `severity`'
        )
    return read_severity_file(path, classes)


def read_severity_file(path: Path, classes: Sequence[str] | None = None) -> dict[str, str]:
    """Read a severity map from a YAML or JSON file, whatever its suffix; see `read_severity`."""
    try:
        table = parse_yaml(path.read_bytes())  # JSON is a subset of YAML
    except OSError as error:
        raise DatasetError(
            f'{path}: expected a YAML file of severities ({error.strerror}); write one'
        ) from None
    except FormatError as error:
        raise DatasetError(
            f'{named(str(path))}: expected YAML lines such as `crack: critical`, one for each type, found no '
            f'{error}; correct the file'
        ) from None
    return _check(table, named(str(path)), classes)


def _check(table, name: str, classes: Sequence[str] | None) -> dict[str, str]:
    """Check a map and return it."""
    wanted = 'a map such as `crack: critical`, one type a line'
    if classes:
        wanted = 'YAML lines ' + ' or '.join(f'`type: {label}`' for label in classes)
    if not isinstance(table, dict) or not table:
        raise DatasetError(f'{name}: expected {wanted}, found none; write them')
    for kind, label in table.items():
        if not isinstance(kind, str) or not isinstance(label, str) or (classes and label not in classes):
            quotes = '' if isinstance(kind, str) else ': put the type in quotes'
            raise DatasetError(f'{name}: expected {wanted}, found {kind!r}: {label!r}{quotes}; correct it')
    return table


def named(severity: str | Mapping) -> str:
    """Return the name of a severity map for messages."""
    if isinstance(severity, Mapping):
        return 'severity map'
    return f"severity map '{severity}'" if severity in SEVERITY_MAPS else f'severity map {severity}'


def flaw_labels(classes: Sequence[str], severity: str | Mapping | None = None) -> dict[str, int]:
    """Return the label of every type that `DrawFlaws` can draw and that has a class.

    Args:
        classes: Names of the classes, in label order.
        severity: See `read_severity`. With None each type is a class, or a single class takes all types.

    Raises:
        DatasetError: The map names an unknown class.
    """
    table = read_severity(severity)
    if table is None:
        table = dict.fromkeys(CASTINGS, classes[0]) if len(classes) == 1 else {name: name for name in classes}
    wrong = {kind: label for kind, label in table.items() if label not in classes}
    if wrong:
        raise DatasetError(
            f'{named(severity)}: {wrong} is not among the classes {list(classes)}; correct the map'
        )
    return {kind: list(classes).index(table[kind]) for kind in CASTINGS if kind in table}
