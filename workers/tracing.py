"""Traces (OpenTelemetry), from the upload through every stage to the publication. Optional: the setting `traces` names
where they go, and the extra `tracing` brings the library; with an empty setting nothing of it is imported.

The context travels in a header of the message (`traceparent`, W3C Trace Context): a stage is the child of the one that
sent it. A message that no stage sent (the first stages of an upload, what the sweep sends again) takes the context that
the upload left in the database; a day after, as in a re-embedding, it begins a trace of its own linked to the upload.

Pool children are recycled: the exporter is started in each (`worker_process_init`), and emptied after each task.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from store.catalogue import Catalogue, RunKey, _insert
from store.errors import PassingError, SettingsError
from store.own_tables import create_tables, transaction
from store.settings import Settings

HEADER = "traceparent"
EXPORT_SECONDS = 2.0
# An upload's own stages belong to its trace; what is computed for it later is another story.
SAME_TRACE_SECONDS = 86_400.0

tables = sa.MetaData()
traces = sa.Table(
    "traces",
    tables,
    sa.Column("video_id", sa.String(32), primary_key=True),
    sa.Column("traceparent", sa.String(55), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)
_made: weakref.WeakSet[Catalogue] = weakref.WeakSet()


class _Tracing:
    """The tracer of this process, None while nothing is traced."""

    tracer: Any = None
    provider: Any = None


def start(settings: Settings, service: str) -> None:
    """Trace from now on, if the settings ask for it. Raises `settings.invalid` where the library is not there."""
    if not settings.traces:
        return
    sdk, export, resources = (_library(f"opentelemetry.sdk.{name}") for name in ("trace", "trace.export", "resources"))
    provider = sdk.TracerProvider(resource=resources.Resource.create({"service.name": f"reelsense-{service}"}))
    provider.add_span_processor(export.BatchSpanProcessor(_exporter(settings.traces)))
    _Tracing.provider = provider
    _Tracing.tracer = provider.get_tracer("reelsense")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SettingsError(
            "settings.invalid",
            "The setting traces needs OpenTelemetry, which is not installed.",
            hint="pip install 'reelsense[tracing]'",
        ) from None


def _exporter(target: str) -> Any:
    if not target.startswith(("http://", "https://")):
        return _FileExporter(Path(target))
    otlp = _library("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    return otlp.OTLPSpanExporter(endpoint=target.rstrip("/") + "/v1/traces", timeout=EXPORT_SECONDS)


class _FileExporter:
    """A span exporter (by its form, so that the library is not needed to read this): spans as JSON lines, appended
    whole, for a machine without a collector."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def export(self, spans: Sequence[Any]) -> Any:
        """Write these spans."""
        result = _library("opentelemetry.sdk.trace.export").SpanExportResult
        lines = "".join(json.dumps(_as_json(span)) + "\n" for span in spans)
        try:
            with self.path.open("a") as stream:
                stream.write(lines)
        except OSError:
            return result.FAILURE
        return result.SUCCESS

    def shutdown(self) -> None:
        """Nothing is held."""

    def force_flush(self, _timeout_millis: int = 0) -> bool:
        """Nothing is held."""
        return True


def _as_json(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "trace_id": f"{span.context.trace_id:032x}",
        "span_id": f"{span.context.span_id:016x}",
        "parent_id": f"{span.parent.span_id:016x}" if span.parent else None,
        "links": [f"{link.context.trace_id:032x}" for link in span.links],
        "start": span.start_time / 1e9,
        "end": span.end_time / 1e9,
        "status": span.status.status_code.name,
        "attributes": dict(span.attributes),
        "service": span.resource.attributes["service.name"],
    }


def flush() -> None:
    """Send what has ended. A collector that is away costs at most `EXPORT_SECONDS`, and the spans."""
    if _Tracing.provider is not None:
        _Tracing.provider.force_flush(int(EXPORT_SECONDS * 1000))


def stop() -> None:
    """Send what has ended, and trace no more."""
    provider, _Tracing.provider, _Tracing.tracer = _Tracing.provider, None, None
    if provider is not None:
        provider.shutdown()


def headers() -> dict[str, str]:
    """The headers that carry the present span, none outside of any."""
    if _Tracing.tracer is None:
        return {}
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return {HEADER: _text(context)} if context.is_valid else {}


class Upload:
    """The span of an upload that is being taken in; without tracing, nothing."""

    def __init__(self, catalogue: Catalogue, span: Any = None) -> None:
        self.catalogue = catalogue
        self.span = span

    def taken(self, video_id: str, outcome: str) -> None:
        """The upload is this video. From here on its stages find the trace."""
        if self.span is None:
            return
        self.span.set_attributes({"reelsense.video": video_id, "reelsense.outcome": outcome})
        if outcome == "duplicate":
            return  # its stages have run, or are running, for the upload before
        row = {"video_id": video_id, "traceparent": _text(self.span.get_span_context()), "at": time.time()}
        _make_tables(self.catalogue)
        with transaction(self.catalogue) as connection:
            insert = _insert(connection, traces).values(row)
            connection.execute(insert.on_conflict_do_update(index_elements=["video_id"], set_=row))


@contextlib.contextmanager
def upload(catalogue: Catalogue) -> Iterator[Upload]:
    """Trace the taking in of one upload: where its trace begins."""
    if _Tracing.tracer is None:
        yield Upload(catalogue)
        return
    with _Tracing.tracer.start_as_current_span("upload") as span:
        yield Upload(catalogue, span)


@contextlib.contextmanager
def stage(key: RunKey, catalogue: Catalogue, received: Mapping[str, Any], task_id: str) -> Iterator[None]:
    """Trace one message: as a child of the stage that sent it, else of the upload."""
    if _Tracing.tracer is None:
        yield
        return
    from opentelemetry import trace

    parent, links = None, []
    found = received.get(HEADER)
    if found is None and (left := _of_upload(catalogue, key.video_id)) is not None:
        found, at = left
        if time.time() - at > SAME_TRACE_SECONDS:
            links, found = [trace.Link(_context(found))], None
    if found is not None:
        parent = trace.set_span_in_context(trace.NonRecordingSpan(_context(str(found))))
    attributes = {
        "reelsense.video": key.video_id,
        "reelsense.stage": key.stage,
        "reelsense.version": key.version,
        "reelsense.task": task_id,
    }
    try:
        with _Tracing.tracer.start_as_current_span(key.stage, context=parent, links=links, attributes=attributes):
            yield
    finally:
        flush()


def note(**attributes: str | float | int) -> None:
    """Say more of the present span, if there is one."""
    if _Tracing.tracer is not None:
        from opentelemetry import trace

        trace.get_current_span().set_attributes({f"reelsense.{name}": value for name, value in attributes.items()})


def _of_upload(catalogue: Catalogue, video_id: str) -> tuple[str, float] | None:
    try:
        _make_tables(catalogue)
        with transaction(catalogue) as connection:
            row = connection.execute(sa.select(traces).where(traces.c.video_id == video_id)).one_or_none()
    except PassingError:
        return None  # no trace is worth a stage
    return None if row is None else (row.traceparent, row.at)


def _make_tables(catalogue: Catalogue) -> None:
    if catalogue not in _made:
        create_tables(catalogue, tables)
        _made.add(catalogue)


def _text(context: Any) -> str:
    """A span's context as W3C Trace Context writes it."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def _context(text: str) -> Any:
    """The other way; an invalid context, which makes a new trace, for anything else."""
    from opentelemetry import trace

    try:
        _, trace_id, span_id, flags = text.split("-")
        return trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16)))
    except ValueError:
        return trace.INVALID_SPAN_CONTEXT
