"""The settings of a curation, from a YAML file: its rules and their limits."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from projects.radiograph.safe_parse import FormatError, parse_yaml

from ..ledger import UsageError


@dataclass
class Settings:
    """The rules that drop images from an archive, in this order; a missing rule drops nothing.

    Attributes:
        archive: Folder of radiographs, packed store, or the URL of either.
        calibration: Regular expression, searched in the name of an image; a match is a calibration frame,
            which shows no part.
        blank: An image is blank if the middle 99 % of its gray levels span less than this share of the range
            of its file. Constant images are blank at 0, too.
        near_duplicates: Number of images that stay of a group of near duplicates.
        series_by: Regular expression whose first group, or match, is the series of a name.
        series_most: Number of images that stay of a series, evenly spaced.
        sample: `count` and `by` ('farthest' or 'kmeans'), `seed` and `clusters`, and `features`: an `.npz`
            file with `names` (n,) and `features` (n, d), or a map of `config` and `checkpoint`.
    """

    archive: str
    calibration: str | None = None
    blank: float | None = None
    near_duplicates: int | None = None
    series_by: str | None = None
    series_most: int | None = None
    sample: dict[str, Any] = field(default_factory=dict)


_EXPECTED = 'see "Curate an archive" in docs/data.md'


def read_settings(path: Path) -> Settings:
    """Read a YAML file of settings.

    Raises:
        UsageError: The file cannot be read, or a setting is unknown or of the wrong type.
    """
    try:
        content = parse_yaml(path.read_bytes())
    except OSError as error:
        raise UsageError(f'{path}: expected a YAML file of settings ({error.strerror}); write one') from None
    except FormatError as error:
        raise UsageError(f'{path}: expected {error}; correct it') from None
    if not isinstance(content, dict):
        raise UsageError(f'{path}: expected a map of settings, found none; {_EXPECTED}')
    content = dict(content)
    series = content.pop('series', {})
    sample = content.pop('sample', {})
    known = {
        'the file': (content, {'archive', 'calibration', 'blank', 'near_duplicates'}),
        'series': (series, {'by', 'most'}),
        'sample': (sample, {'count', 'by', 'seed', 'clusters', 'features'}),
    }
    for where, (table, keys) in known.items():
        if not isinstance(table, dict) or set(table) - keys:
            found = sorted(map(str, set(table) - keys)) if isinstance(table, dict) else table
            raise UsageError(f'{path}: expected in {where} {sorted(keys)}, found {found}; {_EXPECTED}')
    if series and set(series) != {'by', 'most'}:
        raise UsageError(f'{path}: expected `by` and `most` in series; {_EXPECTED}')
    settings = Settings(
        archive=content.get('archive'),
        calibration=content.get('calibration'),
        blank=content.get('blank'),
        near_duplicates=content.get('near_duplicates'),
        series_by=series.get('by'),
        series_most=series.get('most'),
        sample=dict(sample),
    )
    _check(path, settings)
    return settings


def _check(path: Path, settings: Settings) -> None:
    """Raise UsageError for a value of the wrong type."""
    sample = settings.sample
    rules = {
        'archive': (isinstance(settings.archive, str) and bool(settings.archive), 'a folder or URL'),
        'calibration': (_pattern(settings.calibration), 'a regular expression'),
        'blank': (_within(settings.blank, 0, 1), 'a share from 0 to 1'),
        'near_duplicates': (_whole(settings.near_duplicates), 'a whole number from 1'),
        'series.by': (_pattern(settings.series_by), 'a regular expression'),
        'series.most': (_whole(settings.series_most), 'a whole number from 1'),
    }
    if sample:
        features = sample.get('features')
        rules |= {
            'sample.count': (sample.get('count') is not None and _whole(sample['count']), 'a whole number'),
            'sample.by': (sample.get('by', 'farthest') in ('farthest', 'kmeans'), 'farthest or kmeans'),
            'sample.clusters': (_whole(sample.get('clusters')), 'a whole number from 1'),
            'sample.seed': (type(sample.get('seed', 0)) is int and sample.get('seed', 0) >= 0, 'a number'),
            'sample.features': (
                isinstance(features, str)
                or (isinstance(features, dict) and set(features) == {'config', 'checkpoint'}),
                'an .npz file, or `config` and `checkpoint`',
            ),
        }
    for name, (right, expected) in rules.items():
        if not right:
            raise UsageError(f'{path}: {name}: expected {expected}; {_EXPECTED}')


def _pattern(value: object) -> bool:
    if value is None:
        return True
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except re.error:
        return False


def _whole(value: object) -> bool:
    return value is None or (type(value) is int and value >= 1)


def _within(value: object, low: float, high: float) -> bool:
    return value is None or (type(value) in (int, float) and low <= value <= high)
