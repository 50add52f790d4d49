"""The typed client against a real API process: uploads that break off, pages, live states, and what it tries again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from app.api import create_api
from app.documentation import EXAMPLES
from app.operations import ReelSense
from reelsense.client import ApiError, Busy, Client, NotFound, Progress, Refused, Retries, Unreachable, records
from store.api_keys import ApiKeys
from store.errors import MediaError
from store.settings import load_settings
from tests import clips
from tests.app.serving import serving
from workers.deleting import delete_video

AT_ONCE = Retries(times=3, first_seconds=0.01)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.test_pattern(tmp_path_factory.mktemp("clip") / "a clip.mp4", seconds=2.0, tone_hz=440)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> ReelSense:
    return ReelSense(load_settings(data=tmp_path_factory.mktemp("house")))


@pytest.fixture(scope="module")
def client(house: ReelSense) -> Iterator[Client]:
    with serving(house.settings.data) as api, Client(f"http://127.0.0.1:{api.port}", retries=AT_ONCE) as client:
        yield client


def test_a_video_from_upload_to_deletion(client: Client, house: ReelSense, clip: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    taken = client.upload(clip, title="A <b>clip</b>", tags=["one", "two"], piece_bytes=10_000, on_progress=seen.append)
    assert taken.video is not None
    assert [progress.sent for progress in seen] == [*range(0, clip.stat().st_size, 10_000), clip.stat().st_size]
    video = client.video(taken.video)
    assert (video.title, video.metadata["tags"]) == ("A <b>clip</b>", ["one", "two"])
    assert [found.id for found in client.videos()] == [taken.video]
    assert client.media(taken.video, 4, 11) == clip.read_bytes()[4:12]
    assert client.download(taken.video, tmp_path / "copy") == clip.stat().st_size
    assert (tmp_path / "copy").read_bytes() == clip.read_bytes()
    assert client.event("ana", taken.video, "like").new
    assert client.profile("ana").counts == {"like": 1}
    assert client.recommend("ana/b ü").items == []
    with pytest.raises(NotFound) as caught:
        client.thumbnail(taken.video)
    assert caught.value.code == "video.not_ready"
    told: list[records.Status] = []

    def change() -> None:
        key = house.graph.key(house.catalogue.video(taken.video or ""), "frames")
        time.sleep(1.0)
        house.catalogue.claim(key, "nobody", 30.0)
        time.sleep(1.0)
        delete_video(house.graph, key.video_id, "ana")

    thread = threading.Thread(target=change)
    thread.start()
    told = list(client.watch(taken.video))
    thread.join()
    assert told[-1].state == "deleted"
    assert "processing" in [status.state for status in told]
    with pytest.raises(NotFound):
        client.video(taken.video)
    assert list(client.videos()) == []


def test_an_upload_goes_on_where_it_broke_off(client: Client, clip: Path) -> None:
    class Gone(Exception):
        pass

    last: list[Progress] = []

    def break_off(progress: Progress) -> None:
        last.append(progress)
        if progress.sent >= 20_000:
            raise Gone

    with pytest.raises(Gone):
        client.upload(clip, piece_bytes=10_000, on_progress=break_off)
    again: list[Progress] = []
    taken = client.upload(clip, address=last[-1].address, piece_bytes=10_000, on_progress=again.append)
    assert again[0].sent == 20_000
    assert taken.video is not None
    client.delete_video(taken.video)


def test_a_refused_file_says_why(client: Client, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(ApiError) as caught:
        client.upload(tmp_path / "notes.mp4")
    assert caught.value.code == "media.not_media"


def test_states_end_with_ready_or_failed(client: Client, house: ReelSense, clip: Path) -> None:
    video = client.upload(clip).video
    assert video is not None
    key = house.graph.key(house.catalogue.video(video), "frames")
    house.catalogue.claim(key, "nobody", 30.0)
    house.catalogue.fail(key, MediaError("media.no_frames", "Not one."))
    told = list(client.watch(video))
    assert [(status.state, status.error and status.error.code) for status in told] == [("failed", "media.no_frames")]
    assert client.delete_video(video).found == []


def test_administration(client: Client) -> None:
    assert {queue.name for queue in client.queues().queues} >= {"vision", "audio"}
    assert client.pause_queue("audio", "a test")["changed"]
    assert client.resume_queue("audio")["changed"]
    assert client.workers().workers == []
    assert client.dead_letters().dead == []
    assert client.jobs().jobs == client.training_jobs().jobs == []
    assert client.models().served["model_set"] == "starter"
    assert client.health().parts["broker"]["ready"] is False


# --- what is tried again: against answers that are made up, for a real API is never busy on command ------------------


def made_up(answers: list[Any]) -> tuple[Client, list[httpx2.Request], list[float]]:
    """A client to which these answers come, one after the other; the requests it sends, and how long it waits."""
    sent: list[httpx2.Request] = []
    waits: list[float] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        came = answers.pop(0)
        if isinstance(came, Exception):
            raise came
        return httpx2.Response(*came[:1], headers=came[1], json=came[2])

    http = httpx2.Client(base_url="http://127.0.0.1:1", transport=httpx2.MockTransport(answer))
    client = Client(http=http, retries=Retries(times=2, first_seconds=1.0, most_seconds=20.0))
    client._connection.sleep = waits.append
    return client, sent, waits


BUSY = (429, {"retry-after": "7"}, {"type": "x", "title": "Slowly.", "status": 429, "code": "request.too_many"})
AWAY = (503, {}, {"type": "x", "title": "Away.", "status": 503, "code": "database.unavailable"})
TAKEN = (201, {}, {"event": {}, "new": True, "set_aside": None})


def test_it_waits_as_long_as_it_is_told() -> None:
    client, sent, waits = made_up([BUSY, AWAY, TAKEN])
    assert client.event("ana", "ffff", "view").new
    assert waits[0] == 7.0
    assert 1.0 <= waits[1] <= 2.0
    # The same key each time, so that it is done once.
    assert len({request.headers["idempotency-key"] for request in sent}) == 1


def test_it_gives_up_in_the_end() -> None:
    client, sent, _ = made_up([BUSY] * 3)
    with pytest.raises(Busy) as caught:
        client.queues()
    assert (caught.value.code, caught.value.retry_seconds, len(sent)) == ("request.too_many", 7.0, 3)


def test_a_broken_connection_repeats_what_does_nothing_twice() -> None:
    broken = httpx2.ReadError("gone")
    client, sent, _ = made_up([broken, TAKEN])
    assert client.event("ana", "ffff", "view").new
    client, sent, _ = made_up([broken, TAKEN])
    with pytest.raises(Unreachable):
        client.pause_queue("audio")
    assert len(sent) == 1
    client, sent, _ = made_up([httpx2.ConnectError("nobody there")] * 3)
    with pytest.raises(Unreachable):
        client.queues()
    assert len(sent) == 3


def test_an_answer_of_somebody_else_is_an_error_too() -> None:
    client, _, _ = made_up([(502, {}, "<html>")])
    with pytest.raises(ApiError) as caught:
        client.queues()
    assert caught.value.status == 502


# --- keys, pages and records -----------------------------------------------------------------------------------------


def inside(house: ReelSense, key: str) -> Client:
    """A client of an API in this process."""
    http = TestClient(create_api(house.settings), base_url="http://127.0.0.1")
    http.headers["authorization"] = f"Bearer {key}"
    return Client(http=http, retries=AT_ONCE)


def test_keys_that_may_not_or_not_any_more(tmp_path: Path) -> None:
    house = ReelSense(load_settings(data=tmp_path))
    keys = ApiKeys(house.catalogue)
    reader, gone = keys.create("reader", ["read"])[1], keys.create("gone", ["admin"], 1e-6)[1]
    time.sleep(0.1)
    for key, call, code in (
        (reader, Client.queues, "access.scope_missing"),
        (gone, Client.queues, "access.key_expired"),
        ("nonsense", Client.queues, "access.key_invalid"),
    ):
        with pytest.raises(Refused) as caught:
            call(inside(house, key))
        assert caught.value.code == code
    assert list(inside(house, reader).videos()) == []


def test_the_client_pages_through_all_videos(tmp_path: Path) -> None:
    from tests.app.test_http_manners import enter

    house = ReelSense(load_settings(data=tmp_path))
    expected = [enter(house, f"video {n}", 1000.0 + n) for n in range(7)]
    client = Client(http=TestClient(create_api(house.settings), base_url="http://127.0.0.1"))
    assert [video.id for video in client.videos(limit=3)] == expected[::-1]
    assert [len(page.videos) for page in client.video_pages(limit=3)] == [3, 3, 1]
    assert [video.id for video in client.videos(order="oldest")] == expected


def test_real_answers_are_what_the_description_says() -> None:
    """The examples are answers of an installation that had read real videos: each is the record that is described."""
    from tests.app.examples import RECORDS

    examples = json.loads(EXAMPLES.read_text())
    for name, kind in RECORDS.items():
        record = kind.model_validate(examples[name]["response"])
        # A field that the record does not have would be one that the client does not know.
        required = {field for field, said in kind.model_fields.items() if said.is_required()}
        assert required <= set(examples[name]["response"]), name
        assert record.model_dump(exclude_unset=True).keys() == examples[name]["response"].keys()
