"""Drift: gray levels, scores and rejects of the line against those of the proof, and when to requalify.

The charts of `charts.py` take the radiographs in the order of their inspection. The reference is in the
exported folder (`Exported.reference`); the state is in `drift.json` of OUT, whole or not at all.
"""

import argparse
import json
import math
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from projects.radiograph.files import write_whole
from projects.radiograph.image import ImagingError
from projects.radiograph.parts import part_by_rule

from .archive import ArchiveError
from .charts import GUARD, RUN_LENGTH, Chart, share_chart, value_chart
from .inspector import Inspection, Inspector

STATE = 'drift.json'
FORMAT = 1
FEWEST = 10
"""Least number of parts (radiographs if the parts are unknown) of the proof for a reference."""
VALUE_WEIGHT, SHARE_WEIGHT, PART_WEIGHT = 0.05, 0.01, 0.1
"""Weight of the newest radiograph: in charts of values, of the share rejected, of the rare reference part."""
GRAYS = {'p50': 'median gray level', 'contrast': 'contrast', 'noise': 'noise'}
"""Statistics of `gray_levels.measure` that have a chart, and their names in words."""
WORDS = GRAYS | {
    'accepted': 'scores of accepted radiographs',
    'rejected': 'scores of rejected radiographs',
    'rejects': 'share rejected',
    'reference_part': 'false calls on the reference part',
}
SAVE_SECONDS = 1.0  # between two writings of the state; a call is written at once
_HISTORY = 240  # averages of a chart that are kept for drawing
_RECENT = 5_000  # radiographs that are remembered, so that a repeated one counts once
_DIGITS = 12  # of the SHA-256 of a remembered radiograph


@dataclass
class Standing:
    """The state of a chart.

    Attributes:
        average: The EWMA.
        count: Number of radiographs in the average.
        called: The first call of the chart: `time` (UTC), `side` ('low' or 'high'), `average`, `count`; empty
            before it. A call stays until the charts begin again.
        history: The last averages.
    """

    average: float
    count: int = 0
    called: dict[str, Any] = field(default_factory=dict)
    history: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Line:
    """Facts about a line.

    Attributes:
        reference_part: Id of a sound part that is radiographed again and again. Its radiographs have their
            own chart and are in no other. The data set's rule finds the id in a radiograph's name.
        critical_share: Share of the radiographs that show a critical defect; None for the share of the
            validation set, which is usually larger.
        requalified: Begin all charts again; their old state is kept in a file named by the time.
    """

    reference_part: str = ''
    critical_share: float | None = None
    requalified: bool = False

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        """Add the options for these facts to a command line."""
        group = parser.add_argument_group('drift against the proof')
        group.add_argument(
            '--reference-part',
            default='',
            metavar='ID',
            help='a sound part that is radiographed again and again',
        )
        group.add_argument(
            '--critical-share',
            type=float,
            metavar='S',
            help="share of the line's radiographs with a critical defect (that of the validation set)",
        )
        group.add_argument(
            '--requalified',
            action='store_true',
            help='the detector was qualified again: begin all charts again',
        )

    @classmethod
    def of(cls, args: argparse.Namespace) -> 'Line':
        """Return the facts from parsed arguments.

        Raises:
            ArchiveError: The share is not in [0, 1).
        """
        if args.critical_share is not None and not 0 <= args.critical_share < 1:
            raise ArchiveError(f'--critical-share {args.critical_share}: expected a share, 0 to below 1')
        return cls(args.reference_part, args.critical_share, args.requalified)


class Drift:
    """The charts of one line.

    Args:
        inspector: The detector.
        out: Folder that keeps the state.
        line: Facts about the line.

    Attributes:
        charts: Charts by name.
        standings: State of each chart by name.
        notes: Reasons why some charts are missing.

    Raises:
        ArchiveError: The state is damaged, or the folder has no rule to find a reference part in names.
    """

    def __init__(self, inspector: Inspector, out: Path, line: Line | None = None):
        line = line or Line()
        self.path = out / STATE
        self.rule = inspector.exported.origin.get('part_rule')
        self.reference_part = reference_part = line.reference_part
        if reference_part and not self.rule:
            raise ArchiveError(
                f'reference part {reference_part!r}: the folder has no rule that finds parts in names; '
                'export it from data that were converted with --group'
            )
        self.charts, self.notes = charts_of(inspector, line.critical_share, bool(reference_part))
        self._of = dict(
            format=FORMAT,
            folder=inspector.digest,
            threshold=inspector.threshold,
            critical_share=line.critical_share,
            reference_part=reference_part,
        )
        self.standings = {name: Standing(chart.centre) for name, chart in self.charts.items()}
        self._recent: dict[str, None] = {}
        self._lock = threading.Lock()
        self._saved = 0.0
        self._stale = False
        self._load(line.requalified)

    @property
    def requalify(self) -> list[str]:
        """Return in words which charts have called; empty while no chart shows a drift from the proof."""
        return [
            f'{WORDS[name]} {standing.called["side"]} since {standing.called["time"]}'
            for name, standing in self.standings.items()
            if standing.called
        ]

    def update(self, name: str, digest: str, outcome: Inspection | ImagingError) -> list[str]:
        """Add an inspected radiograph to the charts.

        Args:
            name: Name of the radiograph, which holds the part's id.
            digest: SHA-256 of its file; a file among the last 5,000 does not count again.
            outcome: Result of `Inspector.attempt`; an unreadable radiograph has no values.

        Returns:
            Names of the charts that call for the first time.
        """
        if not isinstance(outcome, Inspection) or not self.charts:
            return []
        with self._lock:
            key = digest[:_DIGITS]
            if key and key in self._recent:
                return []
            if key:
                self._recent[key] = None
                if len(self._recent) > _RECENT:
                    del self._recent[next(iter(self._recent))]
            calling = [
                chart for chart, value in self._values(name, outcome).items() if self._add(chart, value)
            ]
            self._stale = True
            if calling or time.monotonic() - self._saved > SAVE_SECONDS:
                with suppress(OSError):  # a full disk: the next radiograph or the end tries again
                    self._save()
            return calling

    def _values(self, name: str, outcome: Inspection) -> dict[str, float]:
        rejected = float(outcome.verdict == 'reject')
        if self.reference_part and part_by_rule(self.rule, name) == self.reference_part:
            return dict(reference_part=rejected)
        values = {key: outcome.levels[key] for key in GRAYS}
        return values | {'rejected' if rejected else 'accepted': outcome.risk, 'rejects': rejected}

    def _add(self, name: str, value: float) -> bool:
        """Add a value to a chart; returns whether it calls for the first time."""
        if name not in self.charts:
            return False
        chart, now = self.charts[name], self.standings[name]
        now.average = chart.next(now.average, chart.score(value))
        now.count += 1
        now.history = [*now.history[1 - _HISTORY :], round(now.average, 4)]
        side = chart.side(now.average)
        if not side or now.called:
            return False
        at = datetime.now(UTC).isoformat(timespec='seconds').replace('+00:00', 'Z')
        now.called = dict(time=at, side=side, average=round(now.average, 4), count=now.count)
        return True

    def told(self) -> dict[str, Any]:
        """Return data to draw on a page: charts with limits, averages and words, and reasons to requalify."""
        with self._lock:
            charts = [
                dict(
                    name=name,
                    words=WORDS[name],
                    unit='share' if not chart.values else 'score',
                    centre=chart.centre,
                    lower=chart.lower,
                    upper=chart.upper,
                    weight=chart.weight,
                    **asdict(self.standings[name]),
                )
                for name, chart in self.charts.items()
            ]
            return dict(requalify=self.requalify, notes=self.notes, run_length=RUN_LENGTH, charts=charts)

    def close(self) -> None:
        """Write the state if it has changed since the last writing.

        Raises:
            ArchiveError: The state cannot be written.
        """
        with self._lock:
            try:
                if self._stale:
                    self._save()
            except OSError as error:
                raise ArchiveError(
                    f'{self.path}: not written ({error.strerror or error}); make room there, or the charts '
                    'go on from where they were'
                ) from None

    def _save(self) -> None:
        self._saved = time.monotonic()
        charts = {name: asdict(standing) for name, standing in self.standings.items()}
        content = dict(self._of, requalify=self.requalify, recent=list(self._recent), charts=charts)
        write_whole(self.path, json.dumps(content) + '\n', durable=True)
        self._stale = False

    def _load(self, requalified: bool) -> None:
        try:
            content = json.loads(self.path.read_bytes())
            other = {key: content.get(key) for key in self._of} != self._of
            if not other and not requalified:
                self.standings |= {
                    name: _standing(standing)
                    for name, standing in content['charts'].items()
                    if name in self.charts
                }
                self._recent = dict.fromkeys(content['recent'])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ArchiveError(
                f'{self.path}: expected the state of the drift charts, found a damaged file; take it away, '
                'and the charts begin again'
            ) from None
        if other or requalified:
            # Keep the state as evidence: it belongs to another detector or threshold, or to the time before.
            stamp = datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')
            self.path.rename(self.path.with_name(f'drift-{stamp}.json'))


def _standing(kept: dict[str, Any]) -> Standing:
    """Return the kept state of a chart.

    Raises:
        ValueError, TypeError: `Drift` does not write such a state.
    """
    found = Standing(**kept)
    numbers = [found.average, *found.history]
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        raise ValueError('an average that is not a finite number')
    if type(found.count) is not int or not isinstance(found.called, dict):
        raise TypeError('a count or a call of another type')
    if found.called and not {'time', 'side', 'average', 'count'} <= found.called.keys():
        raise ValueError('a call without its time')
    return found


def charts_of(
    inspector: Inspector, critical_share: float | None = None, reference_part: bool = False
) -> tuple[dict[str, Chart], list[str]]:
    """Return the charts for which an exported folder has a reference, and why the others are missing."""
    reference = inspector.exported.reference
    if not reference:
        return {}, [
            'no drift charts: the folder has no reference, which needs 10 validation parts; export again'
        ]
    units = float(reference['units'])
    charts = {
        name: value_chart(name, VALUE_WEIGHT, values['quantiles'], [1.0] * len(values['quantiles']), units)
        for name, values in reference['gray'].items()
    }
    if inspector.threshold != inspector.exported.threshold:
        return charts, ["no charts of scores and rejects: the threshold is not the folder's"]
    notes: list[str] = []
    groups, each = reference['risk'], units / reference['radiographs']
    counts = {kind: group['count'] for kind, group in groups.items()}
    share = counts['critical'] / sum(counts.values()) if critical_share is None else critical_share
    of_kind = dict(sound=1 - share, critical=share)
    missing = [kind for kind, part in of_kind.items() if part > 0 and not counts[kind]]
    if missing:
        return charts, [f'no charts of scores and rejects: no validation radiograph is {missing[0]}']
    for verdict in ('accepted', 'rejected'):
        chart = _mixed(verdict, groups, of_kind, each)
        if chart:
            charts[verdict] = chart
        else:
            notes.append(f'no chart of the {WORDS[verdict]}: the proof has too few')
    shares = {
        kind: (
            _wilson(groups[kind]['rejected']['count'] * each, counts[kind] * each)
            if counts[kind]
            else (0.0,) * 3
        )
        for kind in groups
    }
    mixed = [sum(of_kind[kind] * shares[kind][k] for kind in groups) for k in range(3)]
    charts['rejects'] = share_chart('rejects', SHARE_WEIGHT, *mixed)
    if reference_part:
        charts['reference_part'] = share_chart('reference_part', PART_WEIGHT, *shares['sound'])
    return charts, notes


def _mixed(verdict: str, groups: dict[str, Any], of_kind: dict[str, float], each: float) -> Chart | None:
    """Chart the scores of one verdict, with sound and critical radiographs mixed in the line's shares."""
    values: list[float] = []
    weights: list[float] = []
    total = squares = 0.0
    for kind, group in groups.items():
        measured = group[verdict]
        if not measured['count'] or not of_kind[kind]:
            continue
        one = of_kind[kind] / group['count']  # weight of one radiograph
        values += measured['quantiles']
        weights += [one * measured['count'] / len(measured['quantiles'])] * len(measured['quantiles'])
        total, squares = total + one * measured['count'], squares + one**2 * measured['count']
    units = each * total**2 / squares if squares else 0.0
    return value_chart(verdict, VALUE_WEIGHT, values, weights, units) if units >= FEWEST else None


def _wilson(events: float, units: float) -> tuple[float, float, float]:
    """Return a share and its lower and upper bound (Wilson 1927), at 95 % on either side."""
    share, z2 = events / units, GUARD**2
    middle = (share + z2 / (2 * units)) / (1 + z2 / units)
    half = GUARD / (1 + z2 / units) * math.sqrt(share * (1 - share) / units + z2 / (4 * units**2))
    return share, max(middle - half, 0.0), min(middle + half, 1.0)
