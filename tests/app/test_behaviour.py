"""Behaviour through its faces: the command line on files, and forgetting everywhere with proof."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.event_files import read_lines, write_partitions
from app.forgetting import forget
from app.operations import ReelSense
from app.taking import MOST_LINES, import_file, parse_batch, summed, take_lines
from store.catalogue import Video
from store.errors import InputError
from store.event_log import EventLog
from store.journal import Journal
from store.records import MediaInfo, Metadata
from store.settings import load_settings
from tests.app.commands import reelsense
from tests.store.servers import new_database

MEDIA = MediaInfo(container="mp4", bytes=1, duration=20.0, width=2, height=2, video_codec="h264")
VIDEO, OTHER = "ab" * 16, "cd" * 16
NOON = 1_700_000_000.0
LINES: list[dict[str, Any]] = [
    {"user": "ann", "video": VIDEO, "kind": "view", "watched_seconds": 18.5, "loops": 0, "at": NOON, "session": "s1",
     "device": "Pixel 9", "os": "Android 16", "network": "wifi", "region": "DE", "language": "de", "id": "e1"},
    {"user": "ben", "video": OTHER, "kind": "like", "at": NOON + 86_400, "id": "e2"},
    {"user": "ann", "video": OTHER, "kind": "skip", "at": NOON + 9.0, "id": "e3"},
]  # fmt: skip


@pytest.fixture
def there(tmp_path: Path) -> Iterator[ReelSense]:
    """An installation with two videos."""
    yield from installation(tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ReelSense]:
    """The same on either database."""
    postgresql = request.param == "postgresql"
    yield from installation(tmp_path, new_database(request.getfixturevalue("postgresql")) if postgresql else "")


def installation(folder: Path, database: str = "") -> Iterator[ReelSense]:
    found = ReelSense(load_settings(data=folder / "data", database=database))
    for video in (VIDEO, OTHER):
        found.catalogue.put_video(
            Video(id=video, revision="r", file_name="a.mp4", metadata=Metadata(), media=MEDIA, uploaded_at=1.0)
        )
    yield found
    found.catalogue.close()


def write_csv(path: Path, lines: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, list(LINES[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


def write_jsonl(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_parquet(path: Path, lines: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(lines), path)
    return path


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


def rows(log: EventLog) -> list[dict[str, Any]]:
    return [event.model_dump(exclude={"sequence"}) for event in log.all()]


@pytest.mark.parametrize("form", WRITERS)
def test_each_format_says_the_same(anywhere: ReelSense, tmp_path: Path, form: str) -> None:
    path = WRITERS[form](tmp_path / f"events.{form}", LINES)
    document = import_file(anywhere, path)
    assert (document["lines"], document["new"], document["refused"]) == (3, 3, 0)
    first, _, last = rows(anywhere.event_log)
    assert first == {("user_id" if name == "user" else "video_id" if name == "video" else name): value
                     for name, value in LINES[0].items()}  # fmt: skip
    assert (last["user_id"], last["loops"], last["watched_seconds"], last["session"]) == ("ben", None, None, "")
    assert import_file(anywhere, path)["known"] == 3


@pytest.mark.parametrize("form", WRITERS)
def test_a_bad_line_costs_the_others_nothing(there: ReelSense, tmp_path: Path, form: str) -> None:
    bad = [
        LINES[0],
        {**LINES[1], "id": "b1", "at": -5.0},
        {**LINES[1], "id": "b2", "video": "f" * 32},
        {**LINES[1], "id": "b3", "kind": "teleport"},
        LINES[2],
    ]
    document = import_file(there, WRITERS[form](tmp_path / f"events.{form}", bad))
    assert (document["new"], document["set_aside"], document["refused"]) == (2, 1, 2)
    assert document["codes"] == {"event.invalid": 1, "video.unknown": 1}
    assert document["reasons"] == {"unknown_kind": 1}
    first = 3 if form == "csv" else 2  # the header is a line of the file
    assert [error["line"] for error in document["errors"]] == [first, first + 1]


def test_times_of_parquet_may_be_timestamps(there: ReelSense, tmp_path: Path) -> None:
    when = [datetime(2024, 5, 1, 12, tzinfo=UTC), datetime(2024, 5, 1, 13, tzinfo=UTC)]
    types = (pa.timestamp("us", tz="Europe/Berlin"), pa.timestamp("ms"))
    for number, kind in enumerate(types):
        times = [time if kind.tz else time.replace(tzinfo=None) for time in when]
        user = f"u{number}"
        table = pa.table(
            {"user": [user] * 2, "video": [VIDEO] * 2, "kind": ["like"] * 2, "at": pa.array(times, kind), "x": [1, 2]}
        )
        pq.write_table(table, tmp_path / f"{user}.parquet")
        document = import_file(there, tmp_path / f"{user}.parquet")
        assert (document["new"], document["ignored_columns"]) == (2, ["x"])
        assert [event.at for event in there.event_log.of(user)] == [time.timestamp() for time in when]


def test_ids_of_parquet_may_be_whole_numbers(there: ReelSense, tmp_path: Path) -> None:
    columns = {"user": [7, 2**63], "video": [VIDEO] * 2, "kind": ["like"] * 2, "at": [NOON] * 2, "id": [1, 2]}
    pq.write_table(pa.table({**columns, "user": pa.array(columns["user"], pa.uint64())}), tmp_path / "a.parquet")
    assert import_file(there, tmp_path / "a.parquet")["new"] == 2
    assert [event.id for user in ("7", str(2**63)) for event in there.event_log.of(user)] == ["1", "2"]
    pq.write_table(pa.table({**columns, "user": [7.5, 8.0], "id": [3, 4]}), tmp_path / "b.parquet")
    [error, _] = import_file(there, tmp_path / "b.parquet")["errors"]
    assert "must be text" in error["message"]


def test_a_folder_is_told_to_be_one(there: ReelSense, tmp_path: Path) -> None:
    for name, form in (("folder", None), ("folder", "csv"), ("day.parquet", None)):
        (tmp_path / name).mkdir(exist_ok=True)
        with pytest.raises(InputError, match="is a folder") as raised:
            import_file(there, tmp_path / name, form)  # type: ignore[arg-type]
        assert raised.value.code == "event.file_unreadable"


def test_a_row_group_that_is_too_large_is_refused_before_it_is_read(
    there: ReelSense, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path / "a.parquet", LINES)
    monkeypatch.setattr("app.event_files.ROW_GROUP_BYTES", 100)
    with pytest.raises(InputError) as raised:
        import_file(there, path)
    assert raised.value.code == "event.file_unreadable"
    assert rows(there.event_log) == []


def test_parquet_that_is_broken_is_coded(there: ReelSense, tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "whole.parquet", [{**LINES[0], "id": f"e{number}"} for number in range(300)])
    data = whole.read_bytes()
    dice = random.Random(3)
    broken = [b"", b"PAR1", b"PAR1" * 20, data[: len(data) // 2], data[:-1], data[:4] + data[40:]]
    for _ in range(40):
        copy = bytearray(data)
        for _ in range(3):
            copy[dice.randrange(len(copy))] ^= 1 << dice.randrange(8)
        broken.append(bytes(copy))
    path = tmp_path / "broken.parquet"
    refused = 0
    for content in broken:
        path.write_bytes(content)
        try:
            import_file(there, path)
        except InputError as error:
            assert error.code == "event.file_unreadable"
            refused += 1
    assert refused >= 6


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"user,video,kind\n"),
        ("a.csv", b""),
        ("a.csv", b"user,video\na,b\n"),
        ("a.csv", b"user,user,video,kind\n"),
        ("a.csv", b"user,video,kind\n\xff\xfe,b,like\n"),
        ("a.csv", b"user,video,kind\n" + b"x" * 70_000),
        ("none.csv", None),
    ],
)
def test_files_that_are_none_are_coded(there: ReelSense, tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as raised:
        import_file(there, tmp_path / name)
    assert raised.value.code == "event.file_unreadable"


def test_lines_that_are_no_json_or_csv_are_told_by_number(there: ReelSense, tmp_path: Path) -> None:
    good = json.dumps(LINES[0]).encode()
    lines = [good, b"{", b"", b'{"at": NaN}', b"[" * 60_000, b"x" * 70_000, b"\xff", json.dumps(LINES[2]).encode()]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    document = import_file(there, tmp_path / "a.jsonl")
    assert (document["new"], document["codes"]) == (2, {"event.invalid": 5})
    assert [error["line"] for error in document["errors"]] == [2, 4, 5, 6, 7]
    (tmp_path / "a.csv").write_text(f'user,video,kind,mood\nann,{VIDEO}\n"x"y,{VIDEO},like,\nann,{VIDEO},share,good\n')
    document = import_file(there, tmp_path / "a.csv")
    assert (document["new"], [error["line"] for error in document["errors"]]) == (1, [2, 3])
    assert document["ignored_columns"] == ["mood"]


def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    line = json.dumps(LINES[0]) + "\n"
    with path.open("w") as stream:
        for _ in range(8):
            stream.write(line * 5_000)
    count = 0
    tracemalloc.start()
    try:
        for batch, _ in read_lines(path, "jsonl"):
            count += len(batch)
            if count == 10_000:
                tracemalloc.reset_peak()
                start = tracemalloc.get_traced_memory()[0]
            if count >= 30_000:
                break
        grown = tracemalloc.get_traced_memory()[1] - start
    finally:
        tracemalloc.stop()
    assert grown < 30 * 2**20


def test_an_export_is_the_same_bytes_for_the_same_events_and_can_be_imported(
    anywhere: ReelSense, tmp_path: Path
) -> None:
    other = ReelSense(load_settings(data=tmp_path / "other"))
    for video in anywhere.catalogue.videos():
        other.catalogue.put_video(video)
    tied = [{**LINES[0], "id": f"t{number}", "user": f"u{number}"} for number in range(9)]
    for place, (where, lines) in enumerate(((anywhere, [*LINES, *tied]), (other, [*tied[::-1], *LINES[::-1]]))):
        assert summed(take_lines(where.catalogue, list(enumerate(lines))))["new"] == 12
        write_partitions(where.event_log, tmp_path / f"out{place}")
    digests = [
        {
            str(path.relative_to(tmp_path / folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((tmp_path / folder).rglob("*.parquet"))
        }
        for folder in ("out0", "out1")
    ]
    assert digests[0] == digests[1]
    assert list(digests[0]) == ["day=2023-11-14/events.parquet", "day=2023-11-15/events.parquet"]
    assert not list(tmp_path.rglob("*.aside"))
    table = pq.read_table(tmp_path / "out0")  # hive: the day is a column
    assert (table.num_rows, set(table["day"].to_pylist())) == (12, {"2023-11-14", "2023-11-15"})
    fresh = ReelSense(load_settings(data=tmp_path / "fresh"))
    for video in anywhere.catalogue.videos():
        fresh.catalogue.put_video(video)
    for path in sorted((tmp_path / "out0").rglob("*.parquet")):
        assert import_file(fresh, path)["refused"] == 0
    assert rows(fresh.event_log) == rows(anywhere.event_log)


def test_a_day_without_events_any_more_leaves_the_export(anywhere: ReelSense, tmp_path: Path) -> None:
    take_lines(anywhere.catalogue, list(enumerate(LINES)))
    write_partitions(anywhere.event_log, tmp_path / "out")
    forget(anywhere, "ben")
    assert write_partitions(anywhere.event_log, tmp_path / "out")["removed"] == ["2023-11-15"]
    assert "ben" not in str(pq.read_table(tmp_path / "out").to_pylist())


@pytest.mark.parametrize(
    "body", [b"", b"  ", b"[1,", b"[" * 100_000, b"[" + b"1," * MOST_LINES + b"1]", b"1\n" * (MOST_LINES + 1)]
)
def test_a_batch_that_is_none_is_coded(body: bytes) -> None:
    with pytest.raises(InputError) as raised:
        parse_batch(body)
    assert raised.value.code == "event.batch_invalid"


def test_a_viewer_is_forgotten_everywhere_with_proof(anywhere: ReelSense, tmp_path: Path) -> None:
    take_lines(anywhere.catalogue, list(enumerate(LINES)))
    take_lines(anywhere.catalogue, [(1, {"user": "ann", "video": VIDEO, "kind": "teleport", "at": NOON + 50})])
    journal = Journal(anywhere.objects, anywhere.catalogue)
    journal.write()
    journal.write()  # PostgreSQL: what was the highest sequence the last time
    proof = forget(anywhere, "ann")
    assert {place: count for place, count in proof["removed"].items() if place.startswith("database")} == {
        "database/events": 2, "database/set_aside_events": 1,
    }  # fmt: skip
    segments = {place: count for place, count in proof["removed"].items() if place.startswith("journal/")}
    assert sorted(segments.values()) == [1, 2]
    assert proof["found"] == {}
    assert '"ann"' not in json.dumps(proof)
    assert anywhere.event_log.of("ann") == []
    for item in anywhere.objects.list("journal/"):
        assert b"ann" not in anywhere.objects.get(item.key)
    again = import_file(anywhere, write_jsonl(tmp_path / "old.jsonl", LINES))
    assert (again["new"], again["known"], again["codes"]) == (0, 1, {"event.forgotten": 2})
    assert forget(anywhere, "ann")["removed"] == {}, "it may be run again"
    empty = ReelSense(load_settings(data=tmp_path / "empty", objects=str(anywhere.settings.objects_directory())))
    Journal(empty.objects, empty.catalogue).restore()
    assert [event.user_id for event in empty.event_log.all()] == ["ben"]


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201])
def test_a_name_that_is_none_is_not_forgotten(there: ReelSense, name: str) -> None:
    with pytest.raises(InputError) as raised:
        forget(there, name)
    assert raised.value.code == "request.invalid"


def test_the_commands(there: ReelSense, tmp_path: Path) -> None:
    data = there.settings.data
    path = write_csv(
        tmp_path / "e.csv", [*LINES, {**LINES[0], "id": "e9", "at": NOON + 0.5}, {**LINES[0], "id": "x", "at": "no"}]
    )
    answer = reelsense("events", "import", path, "--json", "--data", data)
    assert (answer.status, answer.json["new"], answer.json["set_aside"], answer.json["refused"]) == (1, 3, 1, 1)
    answer = reelsense("events", "set-aside", "--reason", "duplicate", "--json", "--data", data)
    assert answer.status == 0, answer.stdout
    assert [event["id"] for event in answer.json["events"]] == ["e9"]
    assert {row["reason"]: row["events"] for row in answer.json["reasons"]}["duplicate"] == 1
    assert "request.invalid" in reelsense("events", "set-aside", "--reason", "x", "--data", data).stderr
    assert reelsense("events", "export", tmp_path / "out", "--json", "--data", data).json["events"] == 3
    answer = reelsense("forget", "ann", "--data", data)
    assert answer.status == 0, answer.stderr
    assert "found        0 in 3 tables" in answer.stdout
    assert "ann" not in answer.stdout
