"""Direct upload over real S3 servers: an address, a PUT by a client without keys, a completion."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api import create_api
from store.settings import load_settings
from tests import clips
from tests.workers.incoming_house import House, settings_of
from tests.workers.test_incoming import of

ROUTE = "/api/v1/uploads/presigned"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clips.test_pattern(tmp_path_factory.mktemp("clip") / "a.mp4", seconds=0.5, tone_hz=None).read_bytes()


@pytest.fixture(scope="module", params=["rclone", "moto"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp(request.param)
    with settings_of(request.param, folder, limits={"bytes": 100_000}) as settings:
        house = House(settings)
        yield house
        house.catalogue.close()


@pytest.fixture(scope="module")
def client(house: House) -> Iterator[TestClient]:
    with TestClient(create_api(house.settings), base_url="http://127.0.0.1") as client:
        yield client


def put(url: str, data: bytes) -> int:
    """A client that knows nothing but the address."""
    request = urllib.request.Request(url, data, {"content-type": "video/mp4"}, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def opened(client: TestClient, name: str = "") -> dict[str, Any]:
    answer = client.post(ROUTE, json={"file_name": name})
    assert answer.status_code == 201
    document: dict[str, Any] = answer.json()
    return document


def test_a_direct_upload_becomes_a_video(client: TestClient, house: House, clip: bytes) -> None:
    upload = opened(client, "../../mi día\n.mp4")
    assert client.post(upload["complete"], json={}).json()["code"] == "upload.incomplete"
    assert put(upload["url"], of(clip, 1)) == 200
    words = {"title": " Direct \u0007", "tags": ["a", "a", " b "], "language": "es"}
    answer = client.post(upload["complete"], json=words)
    assert answer.status_code == 202, answer.text
    video = house.catalogue.video(answer.json()["id"])
    assert video.file_name == "mi día\N{REPLACEMENT CHARACTER}.mp4"
    assert (video.metadata.title, video.metadata.tags) == ("Direct \N{REPLACEMENT CHARACTER}", ("a", "b"))
    assert answer.json()["state"] == "waiting"
    again = client.post(upload["complete"], json={"title": "another"})
    assert (again.status_code, again.json()["id"]) == (202, video.id)
    assert house.catalogue.video(video.id).metadata.title.startswith("Direct")
    assert house.left() == []


def test_a_bad_upload_is_refused_the_same_every_time(client: TestClient, house: House) -> None:
    for content, status, code in ((b"no video", 422, "media.not_media"), (b"\0" * 100_001, 413, "media.too_large")):
        upload = opened(client)
        put(upload["url"], content)
        for _ in range(2):
            answer = client.post(upload["complete"], json={})
            assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert house.left() == []


def test_bad_words_are_refused_before_anything_happens(client: TestClient, house: House, clip: bytes) -> None:
    upload = opened(client)
    put(upload["url"], of(clip, 2))
    answer = client.post(upload["complete"], json={"region": "Atlantis"})
    assert (answer.status_code, answer.json()["code"]) == (422, "metadata.invalid")
    assert client.post(upload["complete"], json={"region": "DE"}).status_code == 202
    assert house.left() == []


def test_the_poll_takes_nothing_before_its_completion(client: TestClient, house: House, clip: bytes) -> None:
    upload = opened(client)
    put(upload["url"], of(clip, 3))
    videos = len(house.catalogue.videos())
    key = f"incoming/presigned/{upload['id']}"
    house.incoming.ledger.hint([key])
    assert house.incoming.scan().outcomes["waiting"] == 1
    assert [item.outcome for item in house.incoming.look_at_hints()] == ["waiting"]
    assert (len(house.catalogue.videos()), house.left()) == (videos, [key])
    assert client.post(upload["complete"], json={}).status_code == 202
    assert len(house.catalogue.videos()) == videos + 1


def test_a_completion_whose_answerer_died_is_finished_by_the_poll(
    client: TestClient, house: House, clip: bytes
) -> None:
    from store.records import Metadata

    upload = opened(client)
    put(upload["url"], of(clip, 4))
    # The process is gone after its first step: the completion is noted, nothing else.
    assert house.incoming.ledger.complete_presigned(upload["id"], Metadata(title="Noted"))
    assert not house.incoming.ledger.complete_presigned(upload["id"], Metadata(title="Late"))
    (ended,) = house.incoming.scan().ended
    assert house.catalogue.video(ended.video_id or "").metadata.title == "Noted"
    assert client.post(upload["complete"], json={}).json()["id"] == ended.video_id


def test_what_is_put_after_the_completion_is_removed_and_nothing_else(
    client: TestClient, house: House, clip: bytes
) -> None:
    upload = opened(client)
    put(upload["url"], of(clip, 5))
    video = client.post(upload["complete"], json={}).json()["id"]
    put(upload["url"], of(clip, 6))  # the address is still good
    videos = len(house.catalogue.videos())
    house.incoming.scan()
    assert (house.left(), len(house.catalogue.videos())) == ([], videos)
    assert client.post(upload["complete"], json={}).json()["id"] == video


def test_what_is_never_completed_is_removed(client: TestClient, house: House, clip: bytes) -> None:
    upload, young = opened(client), opened(client)
    for each in (upload, young):
        put(each["url"], of(clip, 7))
    _age(house, upload["id"], house.settings.incoming.presigned_keep_seconds + 1)
    house.incoming.scan()
    assert house.left() == [f"incoming/presigned/{young['id']}"]
    answer = client.post(upload["complete"], json={})
    assert (answer.status_code, answer.json()["code"]) == (404, "upload.unknown")
    house.foreign.delete(f"incoming/presigned/{young['id']}")


def _age(house: House, upload: str, seconds: float) -> None:
    import sqlalchemy as sa

    from store.incoming import presigned

    with house.catalogue.engine.begin() as connection:
        connection.execute(
            sa.update(presigned).where(presigned.c.id == upload).values(created_at=time.time() - seconds)
        )


def test_an_address_is_for_one_object_and_a_short_time(client: TestClient, house: House, clip: bytes) -> None:
    upload = opened(client)
    other = upload["url"].replace(upload["id"], "0" * 32)
    assert 800 < upload["expires_at"] - time.time() <= 900
    assert "X-Amz-Expires=900" in upload["url"]
    assert house.settings.s3_secret_key.get_secret_value() not in upload["url"]
    if "rclone" in str(house.settings.data):  # moto checks no signatures
        assert put(other, clip) == 403
        incoming = house.settings.incoming.model_copy(update={"presigned_seconds": 1})
        with TestClient(
            create_api(house.settings.model_copy(update={"incoming": incoming})), base_url="http://127.0.0.1"
        ) as brief:
            late = opened(brief)
        time.sleep(2.5)
        assert put(late["url"], clip) in (400, 403)  # rclone says 400 of an old address


def test_unknown_uploads_are_not_found(client: TestClient) -> None:
    for upload in ("0" * 32, "%2e%2e%2fsources"):
        answer = client.post(f"{ROUTE}/{upload}/complete", json={})
        assert answer.status_code == 404, answer.text


def test_a_directory_store_says_what_to_use_instead(tmp_path: Path) -> None:
    with TestClient(create_api(load_settings(data=tmp_path)), base_url="http://127.0.0.1") as client:
        answer = client.post(ROUTE, json={})
        assert (answer.status_code, answer.json()["code"]) == (422, "upload.not_presigned")
        assert "tus" in answer.json()["detail"]


def test_the_address_names_the_endpoint_that_uploaders_reach(house: House) -> None:
    from store.foreign_objects import presigned_put

    incoming = house.settings.incoming.model_copy(update={"presigned_endpoint": "https://upload.example"})
    url = presigned_put(house.objects, house.settings.model_copy(update={"incoming": incoming}), "incoming/a")
    assert url.startswith("https://upload.example/bucket/incoming/a?")
