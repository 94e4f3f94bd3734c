"""Metrics for Prometheus: verdicts, latency by stage, gray levels, scores, decisions, drift."""

import logging
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from projects import __version__
from projects.line.runtime.drift import Drift
from projects.line.runtime.inspector import Inspection, Inspector
from projects.line.runtime.last import read_kept
from projects.radiograph.image import ImagingError

from .served import Served

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SHARES = tuple(k / 20 for k in range(1, 21))
GRAYS = tuple(range(16, 257, 16))

log = logging.getLogger('mmxray.service')


class Metrics:
    """Metrics of one process since its start.

    Args:
        inspector: The detector.
        drift: The drift charts.
        served: Tells whether the detector's path now leads to another detector.
        watched: OUT of a process that watches a folder; None without such a process.
    """

    def __init__(self, inspector: Inspector, drift: Drift, served: Served, watched: Path | None = None):
        self.registry = CollectorRegistry()
        shared: dict[str, Any] = dict(registry=self.registry, namespace='mmxray')
        detector = Info('detector', 'The exported folder that is served', **shared)
        detector.info(dict(folder=inspector.digest, engine=inspector.engine, version=__version__))
        Gauge('threshold', 'Lowest score that counts', **shared).set(inspector.threshold)
        self._verdicts = Counter(
            'radiographs', 'Radiographs by verdict; an unreadable one has none', ['verdict'], **shared
        )
        for verdict in ('accept', 'reject', 'unreadable'):
            self._verdicts.labels(verdict)
        self._flagged = Counter('flagged', 'Flagged by the second opinion', ['verdict'], **shared)
        self._seconds = Histogram('stage_seconds', 'Time of each stage', ['stage'], buckets=SECONDS, **shared)
        self._risk = Histogram(
            'risk', 'Highest score of a rejecting class of each radiograph', buckets=SHARES, **shared
        )
        self._gray = Histogram(
            'mean_gray', 'Mean gray level after the window, 0 to 255', buckets=GRAYS, **shared
        )
        self._decisions = Counter('decisions', 'Decisions of inspectors', ['verdict'], **shared)
        Gauge('requalify', '1 while a drift chart has called', **shared).set_function(
            lambda: float(bool(drift.requalify))
        )
        Gauge('detector_replaced', "1 while the detector's path leads to another one", **shared).set_function(
            lambda: float(bool(served.replaced()))
        )
        if watched is not None:
            Gauge('watched_runs', '1 while a process inspects the watched folder', **shared).set_function(
                lambda: float(read_kept(watched)['runs'])
            )
        gauges = {
            'average': Gauge('drift_average', 'EWMA of a drift chart', ['chart'], **shared),
            'count': Gauge('drift_count', 'Radiographs in a drift chart', ['chart'], **shared),
        }
        limit = Gauge('drift_limit', 'Limits of a drift chart', ['chart', 'side'], **shared)
        for name, chart in drift.charts.items():
            for key, gauge in gauges.items():
                gauge.labels(name).set_function(
                    lambda name=name, key=key: float(getattr(drift.standings[name], key))
                )
            for side, value in (('low', chart.lower), ('high', chart.upper)):
                if value is not None:
                    limit.labels(name, side).set(value)

    def count(self, name: str, outcome: Inspection | ImagingError) -> None:
        """Count an inspection, and log it."""
        if isinstance(outcome, ImagingError):
            self._verdicts.labels('unreadable').inc()
            log.info(
                'inspected', extra=dict(facts=dict(name=name, verdict='unreadable', reason=str(outcome)))
            )
            return
        self._verdicts.labels(outcome.verdict).inc()
        if outcome.flagged:
            self._flagged.labels(outcome.verdict).inc()
        self._risk.observe(outcome.risk)
        self._gray.observe(float(outcome.pixels.mean()) / (257 if outcome.pixels.dtype.itemsize == 2 else 1))
        for stage, seconds in outcome.seconds.items():
            self._seconds.labels(stage).observe(seconds)
        facts = dict(name=name, verdict=outcome.verdict, risk=outcome.risk, folder=outcome.folder)
        log.info('inspected', extra=dict(facts=facts | dict(seconds=sum(outcome.seconds.values()))))

    def call(self, chart: str) -> None:
        """Log that a drift chart calls."""
        log.warning('requalify', extra=dict(facts=dict(chart=chart)))

    def count_decision(self, verdict: str, name: str, by: str) -> None:
        """Count an inspector's decision, and log it."""
        self._decisions.labels(verdict).inc()
        log.info('decided', extra=dict(facts=dict(name=name, verdict=verdict, inspector=by)))

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)
