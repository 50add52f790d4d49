"""Events in files: read from CSV, JSON Lines and Parquet in a stream, and written as Parquet, a folder for each day.

What a file holds is a stranger's word: a line is bounded, a batch of a Parquet file too, and each line that makes no
sense is told by its number while the others are taken.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ranker.events import Event
from store.catalogue import StoredEvent
from store.errors import InputError
from store.event_log import EventLog

Format = Literal["csv", "jsonl", "parquet"]
SUFFIXES: dict[str, Format] = {
    ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
LINE_BYTES = 64 * 1024
BATCH = 5_000
# A row group is decoded at once: refused when it says that it is larger.
ROW_GROUP_BYTES = 512 * 2**20
ROWS_OF_A_GROUP = 65_536
FILE_NAME = "events.parquet"
FIELDS = frozenset((*Event.model_fields, "watched"))
_NEEDED = ("user", "video", "kind")
_NUMBERS = frozenset(("at", "watched", "watched_seconds", "loops"))
_TEXTS = FIELDS - _NUMBERS - {"kind"}

Line = tuple[int, Any]


def form_of(path: Path) -> Format:
    """The format by the file's name. Raises `event.file_unreadable`."""
    _no_folder(path)
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise _unreadable(f"The name {path.name[:60]!r} does not say what it is.", "Use --format.") from None


def _no_folder(path: Path) -> None:
    if path.is_dir():
        hint = f"Name one file; an export has one for each day, such as day=2026-01-31/{FILE_NAME}."
        raise _unreadable(f"{path.name[:60]!r} is a folder.", hint)


def read_lines(path: Path, form: Format) -> Iterator[tuple[list[Line], list[str]]]:
    """Batches of numbered lines (lines of the file, or rows of Parquet, from 1), each an object, or an error where the
    line is none; and the columns that are passed over. Raises `event.file_unreadable`."""
    _no_folder(path)
    if not path.is_file():
        raise _unreadable(f"There is no file {path.name[:60]!r}.", "")
    readers = {"csv": _csv_lines, "jsonl": _json_lines, "parquet": _parquet_lines}
    try:
        yield from readers[form](path)
    except OSError as error:
        raise _unreadable(f"The file cannot be read: {error.strerror or type(error).__name__}.", "") from None


def parse_json_line(text: bytes | str) -> Any:
    """The object of one line; an error as a value where there is none."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return InputError("event.invalid", "The line is no JSON.")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _json_lines(path: Path) -> Iterator[tuple[list[Line], list[str]]]:
    with path.open("rb") as stream:
        batch: list[Line] = []
        number = 0
        while line := stream.readline(LINE_BYTES + 1):
            number += 1
            if len(line) > LINE_BYTES:
                # The rest of the line, without keeping it.
                while line and not line.endswith(b"\n"):
                    line = stream.readline(LINE_BYTES)
                batch.append((number, InputError("event.invalid", f"The line is longer than {LINE_BYTES} bytes.")))
            elif line.strip():
                batch.append((number, parse_json_line(line)))
            if len(batch) == BATCH:
                yield batch, []
                batch = []
        if batch:
            yield batch, []


def _csv_lines(path: Path) -> Iterator[tuple[list[Line], list[str]]]:
    with path.open("rb") as raw:
        rows = csv.reader(_bounded(raw), strict=True)
        try:
            header = [name.strip() for name in next(rows, [])]
        except csv.Error as error:
            raise _unreadable(f"The first line is no header: {error}.", "") from None
        ignored = _checked_columns(header)
        while batch := list(islice(_csv_rows(rows, header), BATCH)):
            yield batch, ignored


def _csv_rows(rows: Any, header: Sequence[str]) -> Iterator[Line]:
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield rows.line_num, InputError("event.invalid", f"The line is no CSV: {error}.")
            continue
        if not row:
            continue
        if len(row) != len(header):
            said = f"The line has {len(row)} fields, the header {len(header)}."
            yield rows.line_num, InputError("event.invalid", said)
            continue
        given = {name: text for name, text in zip(header, row, strict=True) if name in FIELDS and text != ""}
        yield rows.line_num, {name: _number(text) if name in _NUMBERS else text for name, text in given.items()}


def _number(text: str) -> Any:
    """A number of CSV; the text itself where it is none, to be refused with the line."""
    try:
        return float(text) if not text.strip().isdigit() else int(text)
    except ValueError:
        return text


def _bounded(raw: Any) -> Iterator[str]:
    """The lines of a CSV file. Raises `event.file_unreadable` where one never ends or is no UTF-8."""
    while line := raw.readline(LINE_BYTES + 1):
        if len(line) > LINE_BYTES:
            raise _unreadable(f"A line is longer than {LINE_BYTES} bytes.", "")
        try:
            yield line.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise _unreadable("The file is not UTF-8.", "") from None


def _parquet_lines(path: Path) -> Iterator[tuple[list[Line], list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=False) as file:
            names = list(file.schema_arrow.names)
            ignored = _checked_columns(names)
            for group in range(file.metadata.num_row_groups):
                if file.metadata.row_group(group).total_byte_size > ROW_GROUP_BYTES:
                    raise _unreadable("A row group is too large.", f"Write groups of at most {ROW_GROUP_BYTES} bytes.")
            number = 0
            columns = [name for name in names if name in FIELDS]
            for batch in file.iter_batches(batch_size=BATCH, columns=columns):
                rows = [
                    {name: _plain(name, value) for name, value in row.items() if value is not None}
                    for row in batch.to_pylist()
                ]
                yield list(enumerate(rows, number + 1)), ignored
                number += len(rows)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _unreadable(f"The Parquet file is damaged: {type(error).__name__}.", "") from None


def _plain(name: str, value: Any) -> Any:
    """Times become seconds since the epoch (those without a zone are UTC), whole numbers in columns of text their
    decimal text; bytes stay and are refused by the check."""
    if name in _TEXTS and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    return value


def _checked_columns(names: Sequence[str]) -> list[str]:
    """The columns that say nothing of an event. Raises `event.file_unreadable` when one is missing or twice there."""
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise _unreadable(f"There is no column {missing[0]!r}.", f"Columns: {', '.join(sorted(FIELDS))}.")
    if len(set(names)) < len(names):
        raise _unreadable("Two columns have the same name.", "")
    return sorted(name[:60] for name in names if name not in FIELDS)


def _unreadable(said: str, hint: str) -> InputError:
    return InputError("event.file_unreadable", said, hint=hint)


# --- writing ---------------------------------------------------------------------------------------------------------


def write_partitions(log: EventLog, folder: Path) -> dict[str, Any]:
    """Every event that counts, as `day=YYYY-MM-DD/events.parquet` (UTC), sorted by time and id: the same events give
    the same bytes (of one version of pyarrow). A day's file is replaced at once; that of a day that has no events any
    more is removed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("request.invalid", f"The folder {folder} cannot be made: {error.strerror}.") from None
    days: dict[str, int] = {}
    for day, _ in log.days().items():
        name = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).strftime("%Y-%m-%d")
        count = _write_day(log, day, folder / f"day={name}")
        if count:
            days[name] = count
    removed = []
    for path in sorted(folder.glob(f"day=*/{FILE_NAME}")):
        name = path.parent.name.removeprefix("day=")
        if name not in days:
            path.unlink()
            removed.append(name)
    return {"folder": str(folder), "events": sum(days.values()), "days": days, "removed": removed}


def _write_day(log: EventLog, day: int, folder: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True)
    text, number = pa.string(), pa.float64()
    types = {"at": number, "watched_seconds": number, "loops": pa.int32()}
    schema = pa.schema([pa.field(name, types.get(name, text)) for name in COLUMNS])
    aside = folder / f"{FILE_NAME}.aside"
    count = 0
    stored = log.between(day * 86_400.0, (day + 1) * 86_400.0)
    with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        while rows := [_exported(event) for event in islice(stored, ROWS_OF_A_GROUP)]:
            writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=ROWS_OF_A_GROUP)
            count += len(rows)
    os.replace(aside, folder / FILE_NAME)  # noqa: PTH105
    return count


# The fields of an event by the names by which they are sent, so that an export can be imported.
COLUMNS = tuple(Event.model_fields)


def _exported(event: StoredEvent) -> dict[str, Any]:
    renamed = {"user": "user_id", "video": "video_id"}
    return {name: getattr(event, renamed.get(name, name)) for name in COLUMNS}
