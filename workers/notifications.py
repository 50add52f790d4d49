"""Bucket notifications: S3 event records as MinIO and others send them, by webhook, AMQP or Redis.

A notification is a hint that something may be there, and nothing of it is believed but the name: the object is looked
at itself. So a forged, late, doubled or lost one does no harm; the poll finds what nobody told of.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote_plus

from store.errors import InputError
from store.settings import Settings

MOST_BYTES = 2**20
MOST_RECORDS = 1000
MOST_KEY_BYTES = 1024  # what S3 allows


def keys_of(body: bytes, settings: Settings) -> list[str]:
    """The keys below `incoming.prefix` that a notification says were created, in its order, each once.

    Other events are ignored, as are other prefixes: a bucket may well tell everything. Raises `notification.invalid`
    for what is no notification, and for one that tells of another bucket.
    """
    if len(body) > MOST_BYTES:
        raise _invalid(f"It has more than {MOST_BYTES} bytes.")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise _invalid("It is no JSON.") from None
    records = _records(content)
    if len(records) > MOST_RECORDS:
        raise _invalid(f"It has more than {MOST_RECORDS} records.")
    bucket = settings.objects.removeprefix("s3://").strip("/") if settings.objects.startswith("s3://") else None
    keys: dict[str, None] = {}
    for record in records:
        event, named, key = _read(record)
        if bucket is not None and named != bucket:
            raise _invalid("It tells of another bucket than ours.")
        if event.removeprefix("s3:").startswith("ObjectCreated:") and key.startswith(settings.incoming.prefix):
            keys[key] = None
    return list(keys)


def _records(content: Any) -> list[Any]:
    # MinIO's Redis target pushes `[{"Event": [records], "EventTime": ...}]`; all others send `{"Records": [records]}`.
    if isinstance(content, list):
        events = [entry.get("Event") if isinstance(entry, dict) else None for entry in content]
        found: list[Any] = []
        for records in events:
            if not isinstance(records, list):
                raise _invalid("It holds an entry without an event.")
            found += records
        return found
    if isinstance(content, dict) and content.get("Event") == "s3:TestEvent":
        return []  # what AWS sends once, when notifications are switched on
    if isinstance(content, dict) and isinstance(content.get("Records"), list):
        return list(content["Records"])
    raise _invalid("It holds no records.")


def _read(record: Any) -> tuple[str, str, str]:
    """Event name, bucket and key (decoded) of one record."""
    try:
        event, bucket, key = record["eventName"], record["s3"]["bucket"]["name"], record["s3"]["object"]["key"]
    except (TypeError, KeyError, IndexError):
        raise _invalid("A record has no event, bucket or key.") from None
    if not (isinstance(event, str) and isinstance(bucket, str) and isinstance(key, str)):
        raise _invalid("A record's event, bucket or key is no text.")
    try:
        plain = unquote_plus(key, errors="strict")
        if not 0 < len(plain.encode()) <= MOST_KEY_BYTES:
            raise ValueError
    except ValueError:
        raise _invalid("A record's key is no key of an object.") from None
    return event, bucket, plain


def _invalid(reason: str) -> InputError:
    return InputError("notification.invalid", f"This is no bucket notification for us. {reason}")
