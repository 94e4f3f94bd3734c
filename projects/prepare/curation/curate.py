"""Curation of an archive for pretraining: each image is kept, or dropped with a written reason."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from projects.radiograph import inventory, listing, remote
from projects.radiograph.files import write_json, write_whole
from projects.radiograph.image import ImagingError
from projects.radiograph.store import find_store

from ..ledger import Ledger, UsageError
from ..resemblance import Looks
from ..scan import Scan, Scans
from . import diversity
from .features import read_features
from .settings import Settings
from .thin import near_groups

UNREADABLE, CALIBRATION, BLANK = 'unreadable', 'calibration frame', 'blank'
DUPLICATE, SERIES, SAMPLE = 'near duplicate', 'beyond its series share', 'not in the sample'
_FULL = dict(type='percentile', low=0, high=100)


class Curation:
    """The images of an archive: which are kept, and why the others are dropped.

    Attributes:
        names: Names of all images.
        reasons: Kind and detail of the reason, by the name of a dropped image.
    """

    def __init__(self, settings: Settings, names: Sequence[str]):
        self.settings, self.names = settings, list(names)
        self.reasons: dict[str, tuple[str, str]] = {}

    def kept(self) -> list[str]:
        """Return the kept images, in the order of the archive."""
        return [name for name in self.names if name not in self.reasons]

    def drop_calibration(self) -> None:
        """Drop frames by their name, before any is decoded."""
        pattern = re.compile(self.settings.calibration or '(?!)')
        for name in self.kept():
            if found := pattern.search(name):
                self.reasons[name] = CALIBRATION, f'name has {found[0]!r}'

    def drop_blank(self, scans: Scans) -> None:
        """Drop unreadable and blank images."""
        for name in self.kept():
            found = scans[self.path(name)]
            if found.error:
                self.reasons[name] = UNREADABLE, found.error
            elif self.settings.blank is not None:
                span = span_of(found)
                if found.low == found.high or span < self.settings.blank:
                    self.reasons[name] = BLANK, f'gray levels span {span:.2%} of the range'

    def thin(self, scans: Scans, workers: int) -> None:
        """Drop near duplicates: in each group, the images that resemble its first image most."""
        most = self.settings.near_duplicates
        names = [name for name in self.kept() if (found := scans[self.path(name)]).low != found.high]
        if most is None or not names:
            return
        found = [scans[self.path(name)] for name in names]
        stands, likeness = near_groups(Looks([s.small for s in found], [s.dhash for s in found]), workers)
        groups: dict[int, list[int]] = {}
        for k, first in enumerate(stands.tolist()):
            groups.setdefault(first, []).append(k)
        for first, members in groups.items():
            others = sorted((k for k in members if k != first), key=lambda k: (likeness[k], k))
            for k in others[most - 1 :]:
                self.reasons[names[k]] = DUPLICATE, f'of {names[first]}, correlation {likeness[k]:.4f}'

    def balance(self) -> None:
        """Keep an even selection of each series with more images than the limit."""
        most, groups = self.settings.series_most, {}
        if most is None:
            return
        pattern, unnamed = re.compile(self.settings.series_by), []
        for name in self.kept():
            found = pattern.search(name)
            if found is None:
                unnamed.append(name)
                continue
            groups.setdefault(found[min(1, pattern.groups)], []).append(name)
        if unnamed:
            raise UsageError(
                f'{len(unnamed)} images have no series by {self.settings.series_by!r}, such as {unnamed[0]}; '
                'correct series.by'
            )
        for series, names in groups.items():
            if len(names) > most:
                stay = set(np.linspace(0, len(names) - 1, most).round().astype(int).tolist())
                for k, name in enumerate(names):
                    if k not in stay:
                        self.reasons[name] = SERIES, f'series {series} has {len(names)} of at most {most}'

    def sample(self, progress: Callable[[int], None]) -> None:
        """Keep a diverse sample of the remaining images."""
        wanted, names = self.settings.sample, self.kept()
        if not wanted or len(names) <= wanted['count']:
            return
        by, seed = wanted.get('by', 'farthest'), wanted.get('seed', 0)
        features = read_features(wanted['features'], self.settings.archive, names, progress)
        clusters = wanted.get('clusters', diversity.CLUSTERS)
        stay = set(diversity.choose(features, wanted['count'], by, seed, clusters).tolist())
        for k, name in enumerate(names):
            if k not in stay:
                self.reasons[name] = SAMPLE, f'{wanted["count"]} of {len(names)} by {by}, seed {seed}'

    def path(self, name: str) -> str:
        """Return the path or URL of an image."""
        return remote.join(self.settings.archive.rstrip('/'), name)

    def ledger(self) -> Ledger:
        """Return the numbers of images found, kept, and dropped by reason."""
        ledger = Ledger(f'{self.settings.archive}, curated')
        counts = ledger['radiographs']
        counts.came, counts.went['kept'] = len(self.names), len(self.kept())
        for kind, _ in self.reasons.values():
            counts.left[kind] += 1
        ledger.check()
        return ledger


def curate(settings: Settings, workers: int, progress: Callable[[int], Callable[[int], None]]) -> Curation:
    """Curate an archive; see `Settings`.

    Args:
        settings: The rules.
        workers: Processes that decode, and threads of the search for near duplicates.
        progress: From the number of images, makes a function to call with the number of images done.

    Raises:
        UsageError: The archive has no radiograph, no image is kept, or a rule does not fit the names.
    """
    chosen = Curation(settings, archive_names(settings.archive))
    chosen.drop_calibration()
    tasks = {chosen.path(name): _FULL for name in chosen.kept()}
    if settings.blank is not None or settings.near_duplicates is not None:
        scans = Scans(tasks, workers, progress(len(tasks)))
        chosen.drop_blank(scans)
        chosen.thin(scans, workers)
        del scans
    chosen.balance()
    chosen.sample(progress(len(chosen.kept())))
    if not chosen.kept():
        raise UsageError(
            f'{settings.archive}: nothing stays: {chosen.ledger()["radiographs"]}; loosen the rules'
        )
    return chosen


def archive_names(archive: str) -> list[str]:
    """Return the radiographs of a folder, a packed store or a URL, as a pretraining data set lists them.

    Raises:
        UsageError: No radiograph, or a name that a text list cannot hold.
    """
    try:
        packed = find_store(archive)
        if packed:
            store, inner = packed
            names = [store.name(k) for k in store.below(inner)]
            names = [name.removeprefix(f'{inner}/') if inner else name for name in names]
        elif (known := inventory.load(archive)) is not None:
            names = inventory.radiographs(known)
        else:
            find = remote.list_radiographs if remote.is_url(archive) else listing.list_radiographs
            names = find(archive)[0]
    except ImagingError as error:
        raise UsageError(str(error)) from None
    if not names:
        raise UsageError(f'{archive}: no radiograph there; correct `archive`')
    if (odd := listing.unlistable(names)) is not None:
        raise UsageError(f'{archive}: {odd!r} is no name that a list can hold; rename the file')
    return names


def span_of(found: Scan) -> float:
    """Return the span of the middle 99 % of an image's gray levels, as a share of the file's range."""
    if np.issubdtype(np.dtype(found.dtype), np.floating):
        whole = max(abs(found.low), abs(found.high))  # a float file states no range
    else:
        whole = 2**found.bits - 1
    return (found.bright - found.dark) / whole if whole else 0.0


def write(chosen: Curation, out: Path) -> dict[str, Path]:
    """Write the list, the reasons and the ledger; return the paths by kind.

    The list is written last: if it exists, the others exist too.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    dropped, ledger = out.with_suffix('.dropped.csv'), out.with_suffix('.ledger.json')
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(('file', 'reason', 'because'))
    writer.writerows((name, *chosen.reasons[name]) for name in chosen.names if name in chosen.reasons)
    write_whole(dropped, text.getvalue())
    write_json(ledger, dict(settings=vars(chosen.settings), **chosen.ledger().as_dict()))
    write_whole(out, ''.join(f'{name}\n' for name in chosen.kept()))
    return dict(list=out, dropped=dropped, ledger=ledger)
