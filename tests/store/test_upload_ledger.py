"""The ledger of uploads and the keys, over SQLite and a real PostgreSQL: one count for all, whoever asks at once."""

from __future__ import annotations

import secrets
import threading
import time

import pytest

from store.api_keys import AccessError, ApiKeys
from store.catalogue import Catalogue
from store.errors import InputError, ReelsenseError
from store.upload_ledger import Load, Upload, UploadLedger
from tests.store import test_catalogue

# The same two databases.
catalogue = test_catalogue.catalogue


def upload(user: str, length: int = 10) -> Upload:
    now = time.time()
    return Upload(
        id=secrets.token_hex(16),
        user_id=user,
        kind="tus",
        length=length,
        reserved=length,
        created_at=now,
        touched_at=now,
    )


def test_of_many_at_once_as_many_get_in_as_may(catalogue: Catalogue) -> None:
    ledger, user = UploadLedger(catalogue), secrets.token_hex(4)
    outcomes: list[bool] = []
    start = threading.Barrier(12)

    def at_most_three(_: Load, mine: Load) -> None:
        time.sleep(0.005)  # wide enough for the others to look meanwhile
        if mine.uploads >= 3:
            raise ReelsenseError("intake.too_many_uploads", "no")

    def ask() -> None:
        start.wait()
        try:
            ledger.open(upload(user), at_most_three)
            outcomes.append(True)
        except ReelsenseError:
            outcomes.append(False)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 9 + [True] * 3
    assert ledger.load(user) == Load(uploads=3, bytes=30, waiting=0)


def test_from_the_first_byte_to_the_answer(catalogue: Catalogue) -> None:
    ledger, row = UploadLedger(catalogue), upload(secrets.token_hex(4))
    ledger.open(row, lambda *_: None)
    ledger.touch(row.id, 5)
    found = ledger.find(row.id)
    assert found is not None
    assert (found.unverified_from, found.state) == (5, "receiving")
    ledger.received(row.id, 10)
    assert ledger.load(row.user_id) == Load(uploads=0, bytes=10, waiting=1)
    assert [item.id for item in ledger.all("received", user_id=row.user_id)] == [row.id]
    assert [ledger.attempt(row.id), ledger.attempt(row.id)] == [1, 2]
    ledger.attempt_did_not_count(row.id)
    assert ledger.attempt(row.id) == 2
    ledger.finish(row.id, None, "refused", InputError("media.empty", "It is empty.", hint="h"))
    ended = ledger.find(row.id)
    assert ended is not None
    assert (ended.state, ended.error_code, ended.error_hint) == ("refused", "media.empty", "h")
    assert ledger.load(row.user_id) == Load(uploads=0, bytes=0, waiting=0)
    # What has ended is not received again, as by a request that comes late.
    ledger.received(row.id, 10)
    assert ledger.all("received", user_id=row.user_id) == []
    assert row.id in [item.id for item in ledger.ended_before(time.time() + 1)]
    assert row.id not in [item.id for item in ledger.ended_before(time.time() - 60)]
    ledger.forget(row.id)
    assert ledger.find(row.id) is None


def test_a_key_opens_until_it_is_revoked(catalogue: Catalogue) -> None:
    keys = ApiKeys(catalogue)
    key, secret = keys.create("phone", ["read", "upload"], expires_days=1)
    assert keys.exist()
    assert key.scopes == ("upload", "read")
    assert keys.check(secret).id == key.id
    with pytest.raises(AccessError) as late:
        keys.check(secret, now=time.time() + 86_401)
    assert late.value.code == "access.key_expired"
    assert keys.revoke(key.id).revoked_at is not None
    with pytest.raises(AccessError) as gone:
        keys.check(secret)
    assert gone.value.code == "access.key_invalid"
    assert ApiKeys(catalogue).exist()
