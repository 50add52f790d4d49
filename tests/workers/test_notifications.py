"""Bucket notifications as bytes: what MinIO and AWS send, and what nobody should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as st

from store.errors import InputError
from store.settings import Settings, load_settings
from workers.notifications import MOST_BYTES, keys_of

OURS = load_settings(data=Path("/nowhere"), objects="s3://bucket")


@pytest.fixture
def settings() -> Settings:
    return OURS


def record(key: Any, event: Any = "s3:ObjectCreated:Put", bucket: Any = "bucket") -> dict[str, Any]:
    """One record as MinIO writes it; most of what is in it nobody here reads."""
    return {
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "eventName": event,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": "arn:aws:s3:::bucket"},
            "object": {"key": key, "size": 5, "eTag": "x", "sequencer": "17"},
        },
    }


def body(*records: Any) -> bytes:
    return json.dumps({"EventName": "s3:ObjectCreated:Put", "Key": "bucket/x", "Records": list(records)}).encode()


def test_several_records_with_encoded_keys(settings: Settings) -> None:
    found = keys_of(
        body(
            record("incoming%2Fa+b%2B1.mp4"),
            record("incoming/%C3%BC%F0%9F%8E%AC.mp4", "ObjectCreated:CompleteMultipartUpload"),  # AWS has no `s3:`
            record("incoming%2Fa+b%2B1.mp4", "s3:ObjectCreated:Copy"),
        ),
        settings,
    )
    assert found == ["incoming/a b+1.mp4", "incoming/ü🎬.mp4"]


def test_other_events_and_prefixes_are_ignored(settings: Settings) -> None:
    told = body(
        record("incoming/a.mp4", "s3:ObjectRemoved:Delete"),
        record("incoming/a.mp4", "s3:ObjectCreatedButNot"),
        record("incoming/a.mp4", "s3:SomethingNew:Of2030"),
        record("artifacts/vision/x"),
    )
    assert keys_of(told, settings) == []
    assert keys_of(b'{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"bucket"}', settings) == []


def test_the_form_of_minios_redis_target(settings: Settings) -> None:
    pushed = json.dumps([{"Event": [record("incoming/a.mp4")], "EventTime": "2026-11-25T00:00:00Z"}]).encode()
    assert keys_of(pushed, settings) == ["incoming/a.mp4"]


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"\xff",
        b"null",
        b"7",
        b"[1]",
        b"[{}]",
        b"{}",
        b'{"Records": 1}',
        b'{"Records": [null]}',
        b'{"Records": [{"s3": []}]}',
        b"[" * 50_000,
        b'{"Records": [' + b" " * MOST_BYTES + b"]}",
        body(record(5)),
        body(record("incoming/a.mp4", event=["x"])),
        body(record("")),
        body(record("incoming/%FF.mp4")),
        body(record("incoming/" + "a" * 1100)),
        body(record("incoming/\ud800.mp4")),
        body(*[record("incoming/a.mp4")] * 1001),
        body(record("incoming/a.mp4"), record("incoming/b.mp4", bucket="another")),
        body(record("incoming/a.mp4", bucket="Bucket")),
    ],
    ids=range(21),
)
def test_what_is_no_notification_for_us_is_refused_whole(settings: Settings, told: bytes) -> None:
    with pytest.raises(InputError) as caught:
        keys_of(told, settings)
    assert caught.value.code == "notification.invalid"


@bounds(deadline=None, max_examples=80)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda it: (
            st.lists(it)
            | st.dictionaries(
                st.sampled_from(["Records", "Event", "eventName", "s3", "bucket", "object", "key", "name"]), it
            )
        ),
    )
)
def test_any_json_is_an_answer(content: Any) -> None:
    try:
        keys = keys_of(json.dumps(content).encode(), OURS)
    except InputError as error:
        assert error.code == "notification.invalid"
    else:
        assert all(key.startswith("incoming/") for key in keys)
