"""What is counted and timed, added up in the catalogue's database: the counters and histograms of `/metrics`.

Stages run in children that are recycled, on several machines; uploads come over HTTP, from buckets and from the command
line. A counter that lives in a process dies with it, and files of dead processes (prometheus-client's multi-process
mode) pile up and are seen on one machine only. So each process notes what happened in its memory and now and then
*adds* that to rows of one table, in one transaction: the rows are totals of the installation over all its processes,
alive and dead. They never fall, need no file, no port for each worker and no tidying. A process that is killed loses
what it noted since it last wrote (`workers/reporting.py`: seconds).

Names follow the conventions of Prometheus: base units, `_total` for counters. No label takes unbounded values: no
video, no user, no message; beyond `MOST_LABEL_SETS` sets of labels of a measure in a process the rest is `other`.
"""

from __future__ import annotations

import bisect
import json
import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel

from store.catalogue import Catalogue, _insert
from store.errors import PassingError
from store.own_tables import create_tables, transaction

# A process that has not been heard of for so long is not there.
SILENT_SECONDS = 60.0
FORGOTTEN_SECONDS = 3600.0
MOST_LABEL_SETS = 200
OTHER = "other"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_WAITS = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_RATIOS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Measure:
    """One counter or histogram: name in `/metrics`, what it says, its labels, and the upper bounds of its buckets."""

    name: str
    kind: Literal["counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


MEASURES: tuple[Measure, ...] = (
    Measure("reelsense_stage_seconds", "histogram", "Wall seconds of one run of a stage.", ("stage",), _SECONDS),
    Measure(
        "reelsense_stage_realtime_ratio",
        "histogram",
        "Seconds computed for each second of video, of one run of a stage.",
        ("stage",),
        _RATIOS,
    ),
    Measure("reelsense_stage_video_seconds_total", "counter", "Seconds of video that a stage has read.", ("stage",)),
    Measure("reelsense_stage_failures_total", "counter", "Runs that failed for good, by error.", ("stage", "code")),
    Measure(
        "reelsense_stage_retries_total",
        "counter",
        "Runs begun again after an attempt without an end (attempt), or handed back for a passing error (passing).",
        ("stage", "reason"),
    ),
    Measure("reelsense_stage_cache_hits_total", "counter", "Messages whose artifact was there already.", ("stage",)),
    Measure("reelsense_tokens_total", "counter", "Tokens written into artifacts.", ("stage",)),
    Measure("reelsense_model_load_seconds", "histogram", "Seconds to load an encoder.", ("place",), _SECONDS),
    Measure(
        "reelsense_store_operation_seconds",
        "histogram",
        "Seconds of one operation of the object store.",
        ("operation",),
        _SHORT,
    ),
    Measure("reelsense_store_errors_total", "counter", "Operations of the store that failed.", ("operation", "code")),
    Measure("reelsense_uploads_accepted_total", "counter", "Uploads taken in, by what they were.", ("outcome",)),
    Measure("reelsense_uploads_refused_total", "counter", "Uploads refused, by error.", ("code",)),
    Measure("reelsense_publish_seconds", "histogram", "Seconds from a video's upload to its first feed.", (), _WAITS),
    Measure("reelsense_feed_seconds", "histogram", "Seconds to make a viewer's feed.", (), _SHORT),
    Measure("reelsense_http_requests_total", "counter", "Requests answered by the API.", ("method", "route", "status")),
    Measure("reelsense_http_request_seconds", "histogram", "Seconds to answer a request.", ("route",), _SHORT),
    Measure("reelsense_http_errors_total", "counter", "Requests answered with an error, by its code.", ("code",)),
)
BY_NAME: Mapping[str, Measure] = {measure.name: measure for measure in MEASURES}

tables = sa.MetaData()

measurements = sa.Table(
    "measurements",
    tables,
    sa.Column("measure", sa.String(64), primary_key=True),
    sa.Column("labels", sa.String(400), primary_key=True),
    # A counter's is empty; a histogram has `sum`, and the upper bound of each bucket that something fell into.
    sa.Column("part", sa.String(16), primary_key=True),
    sa.Column("value", sa.Float, nullable=False),
)

processes = sa.Table(
    "processes",
    tables,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("memory_bytes", sa.BigInteger, nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
)

_Row = tuple[str, str, str]


class Process(BaseModel):
    """A process that writes here: `kind` is worker, api, ...; `seen_at` seconds since the epoch."""

    name: str
    kind: str
    memory_bytes: int
    seen_at: float


@dataclass(frozen=True)
class Total:
    """One set of labels of a measure: a counter's `value`, or a histogram's `value` (its sum) and how many values fell
    into each bucket, by upper bound, the last one `+Inf`; not cumulated."""

    measure: Measure
    labels: tuple[str, ...]
    value: float
    buckets: tuple[float, ...] = ()


class _Noted:
    """What this process has noted and not yet written."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rows: dict[_Row, float] = {}
        self.label_sets: dict[str, set[str]] = {}

    def add(self, measure: Measure, labels: Mapping[str, str], parts: Mapping[str, float]) -> None:
        assert tuple(labels) == measure.labels, f"{measure.name} has the labels {measure.labels}"
        with self.lock:
            text = json.dumps(list(labels.values()))
            known = self.label_sets.setdefault(measure.name, set())
            if text not in known and len(known) >= MOST_LABEL_SETS:
                text = json.dumps([OTHER] * len(labels))
            known.add(text)
            for part, value in parts.items():
                row = (measure.name, text, part)
                self.rows[row] = self.rows.get(row, 0.0) + value

    def take(self) -> dict[_Row, float]:
        with self.lock:
            rows, self.rows = self.rows, {}
        return rows

    def give_back(self, rows: Mapping[_Row, float]) -> None:
        with self.lock:
            for row, value in rows.items():
                self.rows[row] = self.rows.get(row, 0.0) + value


_noted = _Noted()
_made: weakref.WeakSet[Catalogue] = weakref.WeakSet()


def _forget() -> None:
    """A forked child starts from nothing: what its parent noted, the parent writes."""
    global _noted
    _noted = _Noted()


os.register_at_fork(after_in_child=_forget)


def count(name: str, number: float = 1.0, **labels: str) -> None:
    """Add to a counter."""
    _noted.add(BY_NAME[name], labels, {"": number})


def observe(name: str, value: float, **labels: str) -> None:
    """Note a value of a histogram."""
    measure = BY_NAME[name]
    at = bisect.bisect_left(measure.buckets, value)
    bound = repr(measure.buckets[at]) if at < len(measure.buckets) else "+Inf"
    _noted.add(measure, labels, {"sum": value, bound: 1.0})


@contextmanager
def timed(name: str, **labels: str) -> Iterator[None]:
    """Note how long the block takes, however it ends."""
    started = time.monotonic()
    try:
        yield
    finally:
        observe(name, time.monotonic() - started, **labels)


def flush(catalogue: Catalogue) -> None:
    """Add what was noted to the totals. Raises `database.unavailable`, and then it goes with the next."""
    rows = _noted.take()
    if not rows:
        return
    try:
        _make_tables(catalogue)
        with transaction(catalogue) as connection:
            # In one order everywhere, so that two processes never wait for each other's rows.
            for (measure, labels, part), value in sorted(rows.items()):
                insert = _insert(connection, measurements).values(
                    measure=measure, labels=labels, part=part, value=value
                )
                connection.execute(
                    insert.on_conflict_do_update(
                        index_elements=["measure", "labels", "part"],
                        set_={"value": measurements.c.value + insert.excluded.value},
                    )
                )
    except PassingError:
        _noted.give_back(rows)
        raise


def totals(catalogue: Catalogue) -> list[Total]:
    """All that was ever written, by measure in the order of MEASURES and by labels."""
    _make_tables(catalogue)
    found: dict[tuple[str, str], dict[str, float]] = {}
    with transaction(catalogue) as connection:
        for row in connection.execute(sa.select(measurements)):
            found.setdefault((row.measure, row.labels), {})[row.part] = row.value
    result = []
    for measure in MEASURES:
        for (name, text), parts in sorted(found.items()):
            labels = tuple(json.loads(text))
            if name != measure.name or len(labels) != len(measure.labels):
                continue
            bounds = [repr(bound) for bound in measure.buckets] + ["+Inf"]
            buckets = tuple(parts.get(bound, 0.0) for bound in bounds) if measure.kind == "histogram" else ()
            result.append(Total(measure, labels, parts.get("sum" if buckets else "", 0.0), buckets))
    return result


def announce(catalogue: Catalogue, process: Process) -> None:
    """Write a process's row; rows of those that have long been gone are dropped with it."""
    _make_tables(catalogue)
    row = process.model_dump()
    with transaction(catalogue) as connection:
        insert = _insert(connection, processes).values(row)
        connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=row))
        connection.execute(sa.delete(processes).where(processes.c.seen_at < process.seen_at - FORGOTTEN_SECONDS))


def leave(catalogue: Catalogue, name: str) -> None:
    """Drop the row of a process that ends."""
    with transaction(catalogue) as connection:
        connection.execute(sa.delete(processes).where(processes.c.name == name))


def present(catalogue: Catalogue) -> list[Process]:
    """The processes that were heard of lately, by name."""
    _make_tables(catalogue)
    query = sa.select(processes).where(processes.c.seen_at > time.time() - SILENT_SECONDS).order_by(processes.c.name)
    with transaction(catalogue) as connection:
        return [Process.model_validate(row._asdict()) for row in connection.execute(query)]


def _make_tables(catalogue: Catalogue) -> None:
    if catalogue not in _made:
        create_tables(catalogue, tables)
        _made.add(catalogue)
