"""The bytes of a video by range, its picture, and its state as a live stream: from a directory and from real S3."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.access import COOKIE
from app.api import GRACE_SECONDS, create_api
from app.byte_ranges import ByteRange, RangeError, byte_range
from app.operations import ReelSense
from store.api_keys import ApiKeys
from store.artifacts import artifact_key, source_key, to_bytes
from store.records import Artifact, Frames
from store.settings import Settings, load_settings
from tests import clips
from tests.app.serving import Api, serving
from tests.store.servers import ACCESS_KEY, SECRET_KEY, rclone_s3
from workers.stored_frames import frames_attributes, frames_to_arrays

COLOURS = ((200, 0, 0), (0, 200, 0), (0, 0, 200))


@pytest.fixture(scope="module", params=["directory", "s3"])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "directory":
        yield load_settings(data=folder / "data")
        return
    with rclone_s3(folder) as url:
        yield load_settings(
            data=folder / "data",
            objects="s3://bucket",
            s3_endpoint=url,
            s3_access_key=ACCESS_KEY,
            s3_secret_key=SECRET_KEY,
        )


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clips.test_pattern(tmp_path_factory.mktemp("clip") / "a.mp4", seconds=2.0, tone_hz=440).read_bytes()


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_api(settings), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def video(client: TestClient, content: bytes) -> str:
    return str(client.post("/api/v1/videos", files={"file": ("a.mp4", content)}).json()["id"])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", ByteRange(0, 0)),
        ("bytes=10-", ByteRange(10, 99)),
        ("bytes=-7", ByteRange(93, 99)),
        ("bytes=-700", ByteRange(0, 99)),
        ("Bytes=90-1000", ByteRange(90, 99)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,4-5", None),
        ("bytes=٣-", None),
        ("seconds=0-1", None),
        ("bytes=" + "9" * 40 + "-", None),
    ],
)
def test_a_range_is_read_as_the_rfc_says(header: str | None, expected: ByteRange | None) -> None:
    assert byte_range(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_outside_is_refused(header: str) -> None:
    with pytest.raises(RangeError):
        byte_range(header, 100)
    with pytest.raises(RangeError):
        byte_range("bytes=0-", 0)


def test_media_come_whole_and_in_parts(client: TestClient, video: str, content: bytes) -> None:
    path = f"/api/v1/videos/{video}/media"
    whole = client.get(path)
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    assert "sandbox" in whole.headers["content-security-policy"]
    for header, first, last in (
        ("bytes=0-99", 0, 99),
        ("bytes=100-", 100, len(content) - 1),
        ("bytes=-5", len(content) - 5, len(content) - 1),
    ):
        part = client.get(path, headers={"range": header})
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {first}-{last}/{len(content)}"
        assert part.content == content[first : last + 1]
        assert part.headers["content-length"] == str(last - first + 1)


def test_a_range_out_of_bounds_is_416_with_the_size(client: TestClient, video: str, content: bytes) -> None:
    answer = client.get(f"/api/v1/videos/{video}/media", headers={"range": f"bytes={len(content)}-"})
    assert (answer.status_code, answer.json()["code"]) == (416, "request.range")
    assert answer.headers["content-range"] == f"bytes */{len(content)}"


def test_head_if_range_and_if_none_match(client: TestClient, video: str, content: bytes) -> None:
    path = f"/api/v1/videos/{video}/media"
    head = client.head(path, headers={"range": "bytes=0-9"})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(content))
    tag = head.headers["etag"]
    assert client.get(path, headers={"range": "bytes=0-9", "if-range": tag}).status_code == 206
    assert client.get(path, headers={"range": "bytes=0-9", "if-range": '"another"'}).content == content
    assert (
        client.get(path, headers={"range": "bytes=0-9", "if-range": "Wed, 21 Oct 2015 07:28:00 GMT"}).status_code == 200
    )
    for given in (tag, f'"x", W/{tag}', "*"):
        same = client.get(path, headers={"if-none-match": given})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert client.get(path, headers={"if-none-match": '"x"'}).status_code == 200


def test_a_thumbnail_is_the_picture_of_that_moment(client: TestClient, settings: Settings, video: str) -> None:
    path = f"/api/v1/videos/{video}/thumbnail"
    early = client.get(path)
    assert (early.status_code, early.json()["code"]) == (404, "video.not_ready")
    store_pictures(settings, video)
    for seconds, colour in ((0.1, 0), (1.1, 1), (50.0, 2), (None, 1)):
        answer = client.get(path, params={} if seconds is None else {"seconds": seconds})
        assert answer.headers["content-type"] == "image/jpeg"
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.size == (320, 160)
            seen = np.asarray(image).mean((0, 1))
        assert int(seen.argmax()) == colour
    small = client.get(path, params={"width": 64})
    with Image.open(io.BytesIO(small.content)) as image:
        assert image.size == (64, 32)
    same = client.get(path, params={"width": 64}, headers={"if-none-match": small.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    for bad in ({"width": 0}, {"width": 10**9}, {"seconds": -1}, {"seconds": "nan"}, {"seconds": "inf"}):
        assert client.get(path, params=bad).json()["code"] == "request.invalid"


def test_a_damaged_artifact_is_a_problem_and_no_crash(client: TestClient, settings: Settings, content: bytes) -> None:
    other = client.post("/api/v1/videos", files={"file": ("b.mp4", content + b"\0\0\0\x08free")}).json()["id"]
    whole = store_pictures(settings, other)
    reelsense = ReelSense(settings)
    key = reelsense.graph.key(reelsense.catalogue.video(other), "frames")
    path = artifact_key(key.stage, key.version, key.video_id, key.revision)
    for damaged in (b"", whole[:7], b"\xff" * 100, whole[:200], whole.replace(b'"jpeg"', b'"jpag"'), whole[:-2000]):
        reelsense.objects.put(path, damaged)
        answer = client.get(f"/api/v1/videos/{other}/thumbnail", params={"seconds": 2.0})
        assert (answer.status_code, answer.json()["code"]) == (503, "store.artifact_damaged")


def test_what_is_in_quarantine_does_not_play(tmp_path: Path, content: bytes) -> None:
    settings = load_settings(data=tmp_path)
    with TestClient(create_api(settings), base_url="http://127.0.0.1") as client:
        video = client.post("/api/v1/videos", files={"file": ("a.mp4", content)}).json()["id"]
        client.post(f"/api/v1/videos/{video}/quarantine", json={"reason": "a test"})
        assert client.get(f"/api/v1/videos/{video}/media").status_code == 200  # an administrator may look at it
        keys = ApiKeys(ReelSense(settings).catalogue)
        _, reader = keys.create("reader", ("read",))
        for name in ("media", "thumbnail"):
            answer = client.get(f"/api/v1/videos/{video}/{name}", headers={"authorization": f"Bearer {reader}"})
            assert (answer.status_code, answer.json()["code"]) == (409, "video.quarantined")
        # A browser sends the key as a cookie: with a picture it can send nothing else.
        cookie = client.get(f"/api/v1/videos/{video}/media", headers={"cookie": f"{COOKIE}={reader}"})
        assert cookie.json()["code"] == "video.quarantined"
        assert client.get(f"/api/v1/videos/{video}/media").json()["code"] == "access.key_missing"
        _, expired = keys.create("gone", ("admin",), 1e-6)
        time.sleep(0.1)
        for headers in ({"authorization": f"Bearer {expired}"}, {"cookie": f"{COOKIE}={expired}"}):
            assert client.get(f"/api/v1/videos/{video}/media", headers=headers).json()["code"] == "access.key_expired"


def store_pictures(settings: Settings, video_id: str) -> bytes:
    """A `frames` artifact of three pictures, each of one colour, a second apart."""
    pixels = np.zeros((3, 320, 640, 3), np.uint8)
    for place, colour in enumerate(COLOURS):
        pixels[place] = colour
    frames = Frames(pixels, np.array([0.0, 1.0, 2.0]), 3.0, 30, 30, False, 640, 320)
    reelsense = ReelSense(settings)
    key = reelsense.graph.key(reelsense.catalogue.video(video_id), "frames")
    attributes = frames_attributes(frames).model_dump(mode="json")
    data = to_bytes(Artifact(key.stage, key.version, key.video_id, key.revision, attributes, frames_to_arrays(frames)))
    reelsense.objects.put(artifact_key(key.stage, key.version, key.video_id, key.revision), data)
    return data


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, Path]]:
    """A server in a process of its own, for several tests; the last of them stops it."""
    folder = tmp_path_factory.mktemp("api")
    with serving(folder) as api:
        yield api, folder


def test_a_stream_says_each_change_and_ends(api: tuple[Api, Path], content: bytes) -> None:
    from store.errors import MediaError

    server, folder = api
    base = f"http://127.0.0.1:{server.port}/api/v1/videos"
    video = httpx2.post(base, files={"file": ("<b>\r\n\r\nevent: end.mp4", content)}, timeout=60).json()["id"]
    reelsense = ReelSense(load_settings(data=folder))
    key = reelsense.graph.key(reelsense.catalogue.video(video), "frames")

    def fail_soon() -> None:
        time.sleep(1.2)
        reelsense.catalogue.claim(key, "nobody", 30.0)
        reelsense.catalogue.fail(key, MediaError("media.no_frames", "Not one."))

    threading.Thread(target=fail_soon).start()
    with httpx2.stream("GET", f"{base}/{video}/events", timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = list(answer.iter_lines())
    kinds = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert kinds[0] == "status"
    assert kinds[-1] == "end"
    assert kinds.count("end") == 1
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert told[0]["state"] in ("waiting", "processing")
    assert told[-2]["state"] == "failed"
    assert told[-2]["error"]["code"] == "media.no_frames"
    last = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")][-1]
    again = httpx2.get(f"{base}/{video}/events", headers={"last-event-id": last})
    assert (again.status_code, again.content) == (204, b"")
    assert httpx2.get(f"{base}/ffffffff/events").json()["code"] == "video.unknown"


def test_media_come_without_being_read_whole(api: tuple[Api, Path]) -> None:
    """A range of a large file costs no memory in its size."""
    server, folder = api
    settings = load_settings(data=folder)
    reelsense = ReelSense(settings)
    file = folder / "large"
    with file.open("wb") as stream:
        stream.truncate(2**30)
    from store.catalogue import Video
    from store.records import MediaInfo, Metadata

    media = MediaInfo(container="mov,mp4", bytes=2**30, duration=1.0, width=2, height=2, video_codec="h264")
    video = "ab" * 16
    reelsense.catalogue.put_video(
        Video(id=video, revision="0" * 16, file_name="a", metadata=Metadata(), media=media, uploaded_at=1.0)
    )
    target = settings.objects_directory() / source_key(video)
    assert reelsense.objects.size(source_key(video)) is None
    target.parent.mkdir(parents=True)
    file.rename(target)
    import psutil

    process = psutil.Process(server.process.pid)
    path = f"http://127.0.0.1:{server.port}/api/v1/videos/{video}/media"
    before = process.memory_info().rss
    for header in ("bytes=0-", "bytes=536870912-"):
        with httpx2.stream("GET", path, headers={"range": header}) as answer:
            assert answer.status_code == 206
            got = 0
            for chunk in answer.iter_raw():
                got += len(chunk)
                if got > 64 * 2**20:
                    break
    assert process.memory_info().rss - before < 32 * 2**20


def test_an_open_stream_does_not_hold_the_server_up(api: tuple[Api, Path], content: bytes) -> None:
    server, _ = api
    base = f"http://127.0.0.1:{server.port}/api/v1/videos"
    video = httpx2.post(base, files={"file": ("a.mp4", content + b"\0\0\0\x08free")}, timeout=60).json()["id"]
    with httpx2.stream("GET", f"{base}/{video}/events", timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        server.process.terminate()
        began = time.monotonic()
        list(lines)
    server.process.wait(40)
    # The server itself would wait so long for what does not end.
    assert time.monotonic() - began < GRACE_SECONDS
