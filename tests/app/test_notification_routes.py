"""Bucket notifications by webhook: who may tell, what is believed of it, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api import create_api
from store.settings import load_settings
from tests import clips
from tests.workers.incoming_house import House, settings_of
from tests.workers.test_notifications import body, record

ROUTE = "/api/v1/notifications/s3"
SECRET = "a secret of two words"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with settings_of("moto", tmp_path_factory.mktemp("moto"), incoming={"notification_secret": SECRET}) as settings:
        house = House(settings)
        yield house
        house.catalogue.close()


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[TestClient]:
    with TestClient(create_api(house.settings), base_url="http://127.0.0.1") as client:
        yield client


def tell(client: TestClient, data: bytes, secret: str = SECRET) -> Any:
    return client.post(ROUTE, content=data, headers={"authorization": secret, "content-type": "application/json"})


@pytest.mark.parametrize("secret", ["", "Bearer", "Bearer ", "a secret", f"Basic {SECRET}", SECRET.upper(), "\xff"])
def test_without_the_secret_nothing_is_taken(client: TestClient, house: House, secret: str) -> None:
    answer = client.post(ROUTE, content=body(record("incoming/a.mp4")), headers={"authorization": secret.encode()})
    assert (answer.status_code, answer.json()["code"]) == (401, "notification.refused")
    assert answer.headers["content-type"] == "application/problem+json"
    assert SECRET not in answer.text
    assert client.post(ROUTE, content=b"x").status_code == 401
    assert house.incoming.ledger.hints_waiting() == 0


def test_without_a_secret_in_the_settings_nobody_may_tell(tmp_path: Path) -> None:
    with TestClient(create_api(load_settings(data=tmp_path)), base_url="http://127.0.0.1") as client:
        for secret in ("", "Bearer "):
            assert tell(client, body(record("incoming/a.mp4")), secret).status_code == 401


def test_an_object_that_is_told_of_twice_is_one_video(client: TestClient, house: House, tmp_path: Path) -> None:
    clip = clips.test_pattern(tmp_path / "a.mp4", seconds=0.5, tone_hz=None).read_bytes()
    house.drop("incoming/día 1.mp4", clip)
    told = body(record("incoming/d%C3%ADa+1.mp4"), record("incoming/not-there.mp4"))
    for secret in (SECRET, f"Bearer {SECRET}"):
        answer = tell(client, told, secret)
        assert (answer.status_code, answer.json()) == (202, {"noted": 2})
    outcomes = {item.key: item.outcome for item in house.incoming.look_at_hints()}
    assert outcomes == {"incoming/día 1.mp4": "taken", "incoming/not-there.mp4": "gone"}
    tell(client, told)
    assert {item.outcome for item in house.incoming.look_at_hints()} == {"gone"}
    assert len(house.catalogue.videos()) == 1
    assert len(house.sent) == len(set(house.sent)) == 4


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", body(record("incoming/a.mp4", bucket="another"))],
    ids=["empty", "nonsense", "other bucket"],
)
def test_what_is_no_notification_is_refused(client: TestClient, house: House, data: bytes) -> None:
    answer = tell(client, data)
    assert (answer.status_code, answer.json()["code"]) == (422, "notification.invalid")
    assert house.incoming.ledger.hints_waiting() == 0


def test_a_body_is_read_no_further_than_it_may_be_long(client: TestClient) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 2**16
            assert read < 2**24, "read on and on"
            yield b" " * 2**16
            if read > 2**23:
                return

    answer = client.post(ROUTE, content=endless(), headers={"authorization": SECRET})
    assert (answer.status_code, answer.json()["code"]) == (413, "request.too_large")


def test_keys_that_climb_lead_nowhere(client: TestClient, house: House) -> None:
    told = body(record("incoming/../catalogue.sqlite3"), record("../../etc/passwd"), record("incoming/%00.mp4"))
    assert tell(client, told).json() == {"noted": 2}
    assert {item.outcome for item in house.incoming.look_at_hints()} <= {"refused", "gone"}
    assert house.incoming.ledger.hints_waiting() == 0


def test_the_secret_is_not_shown(house: House) -> None:
    from store.settings import origins

    assert SECRET not in json.dumps(origins(house.settings))
