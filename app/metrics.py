"""What `/metrics` says, in the text format of Prometheus: totals that every process has added up in the database
(`store/measurements.py`), and figures of this moment from the ledger, the broker and the processes that are there.

Every API process says the same, for it says it of the whole installation: scrape one, or take the maximum over
several, never the sum. A part that is away costs its own figures and is told by `reelsense_part_up`; the page itself
always comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.pauses import paused
from app.readiness import Part, parts_of
from store import ledger_figures, measurements
from store.errors import PassingError, ReelsenseError

if TYPE_CHECKING:
    from app.operations import ReelSense

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Two who scrape at once cost one look.
FRESH_SECONDS = 2.0
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "reelsense_part_up": ("Whether a part answers: broker, database, store, workers.", ("part",)),
    "reelsense_queue_depth": ("Runs that wait, by the ledger.", ("queue",)),
    "reelsense_queue_oldest_age_seconds": ("How long the oldest waiting run has waited.", ("queue",)),
    "reelsense_queue_messages": ("Messages that wait in the broker.", ("queue",)),
    "reelsense_queue_paused": ("Whether an administrator has paused a queue.", ("queue",)),
    "reelsense_runs": ("Runs in the ledger, of all versions.", ("stage", "state")),
    "reelsense_dead_letters": ("Runs that failed and were not tried again.", ("stage", "code")),
    "reelsense_videos": ("Videos in the catalogue.", ()),
    "reelsense_processes": ("Processes heard of in the last minute.", ("kind",)),
    "reelsense_worker_memory_bytes": ("Resident memory of a worker process.", ("worker",)),
    "reelsense_scrape_seconds": ("What collecting these figures took.", ()),
}
STATES = ("queued", "running", "done", "failed", "dead")


class Scraper:
    """Makes the page, at most once in `FRESH_SECONDS`."""

    def __init__(self, reelsense: ReelSense) -> None:
        self.reelsense = reelsense
        self._lock = threading.Lock()
        self._page = b""
        self._made = -FRESH_SECONDS

    def page(self) -> bytes:
        """The text of `/metrics`."""
        with self._lock:
            if time.monotonic() - self._made >= FRESH_SECONDS:
                registry = CollectorRegistry(auto_describe=False)
                registry.register(_Collected(list(collect(self.reelsense))))
                self._page = generate_latest(registry)
                self._made = time.monotonic()
            return self._page


@dataclass(eq=False)
class _Collected(Collector):
    metrics: list[Metric]

    def collect(self) -> Iterable[Metric]:
        """What was collected."""
        return self.metrics


@dataclass
class _Gauges:
    """Values by name and labels."""

    values: dict[str, dict[tuple[str, ...], float]] = field(default_factory=lambda: {name: {} for name in GAUGES})

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set one."""
        self.values[name][labels] = value

    def families(self) -> Iterator[Metric]:
        """All of them. One without a value keeps its HELP line, so what is missing can be told from what is new."""
        for name, (text, labels) in GAUGES.items():
            family = GaugeMetricFamily(name, text, labels=labels)
            for given, value in sorted(self.values[name].items()):
                family.add_metric(given, value)
            yield family


def collect(reelsense: ReelSense) -> Iterator[Metric]:
    """Every metric family, in the order of its declaration."""
    started = time.monotonic()
    gauges = _Gauges()
    parts = parts_of(reelsense)
    for part in parts:
        gauges.set("reelsense_part_up", float(part.error is None), part.name)
    totals: list[measurements.Total] = []
    try:
        measurements.flush(reelsense.catalogue)
        totals = measurements.totals(reelsense.catalogue)
        _of_ledger(reelsense, gauges)
        _of_processes(reelsense, gauges)
    except PassingError:
        gauges.set("reelsense_part_up", 0.0, "database")
    _of_broker(reelsense, parts, gauges)
    gauges.set("reelsense_scrape_seconds", time.monotonic() - started)
    yield from _families(totals)
    yield from gauges.families()


def _of_ledger(reelsense: ReelSense, gauges: _Gauges) -> None:
    from workers.stages import STAGES

    found = ledger_figures.figures(reelsense.catalogue)
    now = time.time()
    for stage in STAGES:
        gauges.set("reelsense_queue_depth", found.runs.get((stage.name, "queued"), 0), stage.queue)
        oldest = found.oldest.get(stage.name)
        gauges.set("reelsense_queue_oldest_age_seconds", max(0.0, now - oldest) if oldest else 0.0, stage.queue)
        for state in STATES:
            gauges.set("reelsense_runs", found.runs.get((stage.name, state), 0), stage.name, state)
    for failures in found.failures[: measurements.MOST_LABEL_SETS]:
        gauges.set("reelsense_dead_letters", failures.runs, failures.stage, failures.code)
    gauges.set("reelsense_videos", found.videos)
    for queue, is_paused in paused(reelsense).items():
        gauges.set("reelsense_queue_paused", float(is_paused), queue)


def _of_processes(reelsense: ReelSense, gauges: _Gauges) -> None:
    kinds: dict[str, int] = {"worker": 0}
    for process in measurements.present(reelsense.catalogue):
        kinds[process.kind] = kinds.get(process.kind, 0) + 1
        if process.kind == "worker":
            # By the worker's name, not by its process: children are recycled, and names would add up.
            name = process.name.rpartition("-")[0]
            before = gauges.values["reelsense_worker_memory_bytes"].get((name,), 0.0)
            gauges.set("reelsense_worker_memory_bytes", before + process.memory_bytes, name)
    for kind, count in kinds.items():
        gauges.set("reelsense_processes", count, kind)


def _of_broker(reelsense: ReelSense, parts: Iterable[Part], gauges: _Gauges) -> None:
    if any(part.name == "broker" and part.error is not None for part in parts):
        return
    from workers.celery_app import queue_depths

    try:
        for queue, messages in queue_depths(reelsense.celery).items():
            gauges.set("reelsense_queue_messages", messages, queue)
    except ReelsenseError:
        gauges.set("reelsense_part_up", 0.0, "broker")


def _families(totals: Iterable[measurements.Total]) -> Iterator[Metric]:
    by_measure: dict[str, list[measurements.Total]] = {}
    for total in totals:
        by_measure.setdefault(total.measure.name, []).append(total)
    for measure in measurements.MEASURES:
        found = by_measure.get(measure.name, [])
        if measure.kind == "counter":
            counter = CounterMetricFamily(measure.name, measure.help, labels=measure.labels)
            for total in found:
                counter.add_metric(total.labels, total.value)
            yield counter
            continue
        histogram = HistogramMetricFamily(measure.name, measure.help, labels=measure.labels)
        for total in found:
            cumulated, buckets = 0.0, []
            for bound, count in zip((*measure.buckets, "+Inf"), total.buckets, strict=True):
                cumulated += count
                buckets.append((str(bound), cumulated))
            histogram.add_metric(total.labels, buckets, total.value)
        yield histogram


def names() -> set[str]:
    """The name of every sample that `/metrics` can have."""
    found = set(GAUGES)
    for measure in measurements.MEASURES:
        if measure.kind == "counter":
            found.add(measure.name)
        else:
            found |= {measure.name + suffix for suffix in ("_bucket", "_count", "_sum")}
    return found
