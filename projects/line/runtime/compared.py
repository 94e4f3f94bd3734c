"""The verdicts of two detectors on the same radiographs and parts, read from a shadow's growing record."""

import json
import threading
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

from projects.radiograph.parts import part_by_rule

KEPT = 20_000  # parts whose views are kept in memory; older parts remain in the counts
DIFFERENT, ALIKE = 200, 50  # numbers of listed parts

WORST_FIRST = ('reject', 'unreadable', 'accept')  # the worst view decides about a part

Pair = tuple[str, str]


class Compared:
    """The verdicts of two detectors side by side; `told` may be called from several threads.

    The last verdicts of a radiograph count, and the worst view of a part. Lines of another pair of detectors
    or another threshold than those of the last line are left out.

    Args:
        path: The record that `Shadow` writes; it need not exist yet.
        rule: The data set's rule, which finds a part's id in a name; without a rule (None), each radiograph
            is a part.
    """

    def __init__(self, path: Path, rule: str | None):
        self.path, self.rule = path, rule
        self._lock = threading.Lock()
        self._read = 0  # bytes
        self._begin(())

    def _begin(self, detectors: tuple[Any, ...]) -> None:
        self._detectors = detectors
        self._radiographs: Counter[Pair] = Counter()
        self._counts: Counter[Pair] = Counter()
        self._parts: OrderedDict[str, dict[str, dict[str, Any]]] = OrderedDict()  # the last seen at the end

    def told(self) -> dict[str, Any]:
        """Return both detectors' verdicts so far.

        Returns:
            `record`, its path; `by_part`, whether parts are known; `first` and `second` {folder, threshold},
            None before the first line; `parts` and `radiographs` [{first, second, count}]; `different` and
            `alike`, the last parts on which the detectors differ and agree, newest first: {part, first,
            second, views [{name, time, first, second {verdict, risk, reason}}]}.
        """
        with self._lock:
            self._update()
            different: list[dict[str, Any]] = []
            alike: list[dict[str, Any]] = []
            for part in reversed(self._parts):
                views = self._parts[part]
                first, second = _verdicts_of(views)
                listed, most = (alike, ALIKE) if first == second else (different, DIFFERENT)
                if len(listed) < most:
                    listed.append(dict(part=part, first=first, second=second, views=list(views.values())))
            return dict(
                record=str(self.path),
                by_part=self.rule is not None,
                **_detectors_in(self._detectors),
                parts=_rows(self._counts),
                radiographs=_rows(self._radiographs),
                different=different,
                alike=alike,
            )

    def _update(self) -> None:
        """Read the added lines; an incomplete last line is left for the next call."""
        try:
            if self.path.stat().st_size < self._read:  # another file
                self._read = 0
                self._begin(())
            with self.path.open('rb') as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b'\n'):
                        return
                    self._read += len(line)
                    self._take(line)
        except OSError:
            return  # no record yet, or the share is away: the lines read so far remain

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            first, second = row['first'], row['second']
            detectors = tuple((said['folder'], said['threshold']) for said in (first, second))
            view = dict(name=row['name'], time=row['time'], first=_facts(first), second=_facts(second))
        except (ValueError, KeyError, TypeError):
            return  # torn by a full disk
        if detectors != self._detectors:
            self._begin(detectors)
        part = part_by_rule(self.rule, row['name']) or row['name']
        views = self._parts.pop(part, {})
        if views:
            self._counts[_verdicts_of(views)] -= 1
        if before := views.get(row['name']):
            self._radiographs[_pair(before)] -= 1
        views[row['name']] = view
        self._radiographs[_pair(view)] += 1
        self._counts[_verdicts_of(views)] += 1
        self._parts[part] = views
        if len(self._parts) > KEPT:
            self._parts.popitem(last=False)


def _facts(said: dict[str, Any]) -> dict[str, Any]:
    if said['verdict'] not in WORST_FIRST:
        raise ValueError(said['verdict'])
    return dict(verdict=said['verdict'], risk=said['risk'], reason=said.get('reason', ''))


def _pair(view: dict[str, Any]) -> Pair:
    return view['first']['verdict'], view['second']['verdict']


def _verdicts_of(views: dict[str, dict[str, Any]]) -> Pair:
    """Return each detector's verdict on a part."""
    pairs = [_pair(view) for view in views.values()]
    first, second = (min((pair[k] for pair in pairs), key=WORST_FIRST.index) for k in (0, 1))
    return first, second


def _detectors_in(detectors: tuple[Any, ...]) -> dict[str, Any]:
    if not detectors:
        return dict(first=None, second=None)
    first, second = (dict(folder=folder, threshold=threshold) for folder, threshold in detectors)
    return dict(first=first, second=second)


def _rows(counts: Counter[Pair]) -> list[dict[str, Any]]:
    return [
        dict(first=first, second=second, count=count)
        for (first, second), count in sorted(counts.items())
        if count
    ]
