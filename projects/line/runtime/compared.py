"""What two detectors said of the same radiographs and parts, read from the record of a shadow as it grows."""

import json
import threading
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

from projects.radiograph.parts import part_by_rule

KEPT = 20_000  # parts whose views are known one by one; of older ones the counts remain
DIFFERENT, ALIKE = 200, 50  # parts that are listed

WORST_FIRST = ('reject', 'unreadable', 'accept')  # a part is as bad as its worst view

Pair = tuple[str, str]


class Compared:
    """The verdicts of two detectors side by side; `told` may be called from several threads.

    Of a radiograph that was inspected again its last verdicts count, and of a part the worst of its views.
    What the record has of another pair of detectors, or of another threshold, than its last line is left out.

    Args:
        path: The record that `Shadow` writes; it need not be there yet.
        rule: Of the data set, which finds a part's id in a name; None where there is none: each radiograph is
            a part then.
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
            `record` (its path), `by_part` (whether parts are known), `first` and `second` {folder, threshold}
            or None before there is a line, `parts` and `radiographs` [{first, second, count}], `different`
            and `alike`, the last parts on which they differ and agree: {part, first, second, views [{name,
            time, first, second {verdict, risk, reason}}]}, newest first.
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
        """Take in the lines that have been added; one that is being written waits for its end."""
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
            return  # none yet, or the share is away: what was read remains

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
    """Return what each detector says of a part."""
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
