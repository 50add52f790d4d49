"""Uploads over HTTP in one process: the tus protocol and its attackers, the form, the words that come with a video."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api import create_api
from app.intaking import Intaking
from app.operations import ReelSense
from app.upload_files import UploadFiles
from store.errors import NotFoundError
from store.settings import load_settings
from store.upload_ledger import UploadLedger
from tests import clips
from tests.app.serving import TUS, UPLOADS, creation, ended, ledger, piece, sha1

SRT = b"1\n00:00:00,000 --> 00:00:01,000\nhello there\n"
LARGEST = 200_000


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clips.test_pattern(tmp_path_factory.mktemp("clip") / "a.mp4", seconds=1.0, tone_hz=None).read_bytes()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def client(data: Path) -> Iterator[TestClient]:
    api = create_api(load_settings(data=data, limits={"bytes": LARGEST, "caption_bytes": 2000}))
    with TestClient(api, base_url="http://127.0.0.1") as client:
        yield client


def begin(client: TestClient, length: int, **words: str) -> str:
    answer = client.post(UPLOADS, headers=creation(length, **words))
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def code(answer: Any) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["code"])


def offset(client: TestClient, where: str) -> int:
    return int(client.head(where, headers=TUS).headers["upload-offset"])


def finished(client: TestClient, where: str) -> dict[str, Any]:
    for _ in range(300):
        shown: dict[str, Any] = client.get(where).json()
        if shown["state"] in ("taken", "refused"):
            return shown
        time.sleep(0.05)
    raise AssertionError(shown)


# --- the protocol ----------------------------------------------------------------------------------------------------


def test_an_upload_in_pieces_becomes_a_video_with_its_words(client: TestClient, data: Path, clip: bytes) -> None:
    words = {
        "title": "Häuser",
        "description": "d",
        "tags": "one, two,",
        "creator": "ana",
        "region": "DE",
        "sound": "Fado",
    }
    where = begin(client, len(clip), **words, language="de", filename="../../x.mp4", captions__en=SRT.decode())
    at = 0
    for size in (1, 1000, 2, len(clip)):
        part = clip[at : at + size]
        answer = client.patch(where, headers=piece(at, **{"Upload-Checksum": sha1(part)}), content=part)
        at += len(part)
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(at))
        assert answer.headers["tus-resumable"] == "1.0.0"
        assert "upload-expires" in answer.headers
    shown = finished(client, where)
    assert (shown["state"], shown["outcome"], shown["error"]) == ("taken", "new", None)
    video = client.get(f"/api/v1/videos/{shown['video']}").json()
    said = video["metadata"]
    assert said == words | {"tags": ["one", "two"], "language": "de"}
    stored = ReelSense(load_settings(data=data)).catalogue.video(shown["video"])
    assert [(track.language, track.segments[0].text) for track in stored.metadata.captions] == [("en", "hello there")]
    # Nothing of it is left where it arrived, and the answer is still there.
    assert list((data / "uploads").iterdir()) == []
    assert int(client.head(where, headers=TUS).headers["upload-offset"]) == len(clip)
    assert client.delete(where, headers=TUS).status_code == 409


def test_processing_sets_off_by_itself(client: TestClient, data: Path, clip: bytes) -> None:
    where = begin(client, len(clip))
    client.patch(where, headers=piece(0), content=clip)
    video = finished(client, where)["video"]
    runs = ReelSense(load_settings(data=data)).catalogue.runs([video])
    assert {run.stage for run in runs} >= {"frames", "audio"}
    assert {run.state for run in runs} == {"queued"}


def test_the_server_says_what_it_speaks(client: TestClient) -> None:
    answer = client.options(UPLOADS)
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-max-size"] == str(LARGEST)
    assert "checksum" in answer.headers["tus-extension"].split(",")
    assert "concatenation" not in answer.headers["tus-extension"]
    answer = client.post(UPLOADS, headers={"Upload-Length": "3"})
    assert (answer.status_code, code(answer)) == (412, "upload.version")
    assert answer.headers["tus-version"] == "1.0.0"


def test_creation_with_the_first_piece(client: TestClient, clip: bytes) -> None:
    first = {"Content-Type": "application/offset+octet-stream"}
    answer = client.post(UPLOADS, headers=creation(len(clip)) | first, content=clip)
    assert (answer.status_code, answer.headers["upload-offset"]) == (201, str(len(clip)))
    assert finished(client, answer.headers["location"])["state"] == "taken"
    answer = client.post(UPLOADS, headers=creation(10) | first, content=b"x" * 11)
    assert (answer.status_code, code(answer)) == (400, "upload.malformed")


def test_a_length_that_comes_later(client: TestClient, clip: bytes) -> None:
    answer = client.post(UPLOADS, headers=TUS | {"Upload-Defer-Length": "1"})
    where = answer.headers["location"]
    assert client.head(where, headers=TUS).headers["upload-defer-length"] == "1"
    assert client.patch(where, headers=piece(0), content=clip[:500]).status_code == 204
    for length in (499, LARGEST + 1):
        wrong = client.patch(where, headers=piece(500, **{"Upload-Length": str(length)}), content=clip[500:])
        assert wrong.status_code in (400, 413)
    last = client.patch(where, headers=piece(500, **{"Upload-Length": str(len(clip))}), content=clip[500:])
    assert last.status_code == 204
    assert finished(client, where)["state"] == "taken"


def test_an_upload_is_dropped(client: TestClient, data: Path) -> None:
    where = begin(client, 10)
    assert client.delete(where, headers=TUS).status_code == 204
    assert client.head(where, headers=TUS).status_code == 404
    assert list((data / "uploads").iterdir()) == []
    assert ledger(data).all() == []


def test_clients_that_can_only_post(client: TestClient, clip: bytes) -> None:
    where = begin(client, len(clip))
    override = {"X-HTTP-Method-Override": "PATCH"}
    assert client.post(where, headers=piece(0) | override, content=clip).status_code == 204
    assert finished(client, where)["state"] == "taken"
    other = begin(client, 5)
    assert client.post(other, headers=TUS | {"X-HTTP-Method-Override": "DELETE"}).status_code == 204
    assert client.head(other, headers=TUS).status_code == 404


def test_a_large_caption_file_comes_by_itself(client: TestClient, data: Path, clip: bytes) -> None:
    where = begin(client, len(clip))
    assert client.put(f"{where}/captions?language=en", content=SRT).status_code == 204
    for url, content, expected in (
        (f"{where}/captions?language=../x", SRT, (422, "metadata.invalid")),
        (f"{where}/captions", b"\0\1\2", (422, "caption.unreadable")),
        (f"{where}/captions", b"x" * 3000, (413, "request.too_large")),
    ):
        answer = client.put(url, content=content)
        assert (answer.status_code, code(answer)) == expected
    client.patch(where, headers=piece(0), content=clip)
    shown = finished(client, where)
    assert client.put(f"{where}/captions", content=SRT).status_code == 409
    stored = ReelSense(load_settings(data=data)).catalogue.video(shown["video"])
    assert [track.language for track in stored.metadata.captions] == ["en"]


def test_a_bad_video_ends_with_its_code_and_stays_for_inspection(client: TestClient, data: Path) -> None:
    where = begin(client, 4)
    client.patch(where, headers=piece(0), content=b"text")
    shown = finished(client, where)
    assert (shown["state"], shown["video"], shown["error"]["code"]) == ("refused", None, "media.not_media")
    assert [file.read_bytes() for file in (data / "uploads").rglob("upload")] == [b"text"]
    assert client.get("/api/v1/videos").json() == {"videos": [], "next": None}
    assert client.delete(where, headers=TUS).status_code == 204
    empty = begin(client, 0)
    assert finished(client, empty)["error"]["code"] == "media.empty"


def test_the_same_video_twice_is_one(client: TestClient, clip: bytes) -> None:
    found = []
    for _ in range(2):
        where = begin(client, len(clip))
        client.patch(where, headers=piece(0), content=clip)
        found.append(finished(client, where))
    assert [item["outcome"] for item in found] == ["new", "duplicate"]
    assert found[0]["video"] == found[1]["video"]
    listed = client.get(UPLOADS).json()["uploads"]
    assert [item["video"] for item in listed] == [found[0]["video"]] * 2


# --- attacks ---------------------------------------------------------------------------------------------------------


def test_an_id_is_never_a_path(client: TestClient, data: Path) -> None:
    (data / "uploads" / "x.info").write_text("mine")
    before = {path: path.stat().st_size for path in data.rglob("*") if "sqlite3" not in path.name}
    zeros = "0" * 32
    for name in (
        *("..%2f..%2fcatalogue.sqlite3", "%2fetc%2fpasswd", "..%5c..%5cx", "x.info", "lock", "A" * 32),
        *(zeros, zeros[1:] + "/", zeros + "%00", zeros + "%0a", zeros[1:] + "%d9%a3"),
    ):
        for method, headers in (("HEAD", TUS), ("GET", {}), ("PATCH", piece(0)), ("DELETE", TUS), ("PUT", {})):
            url = f"{UPLOADS}/{name}" + ("/captions" if method == "PUT" else "")
            answer = client.request(
                method, url, headers=headers, content=b"evil" if method in ("PATCH", "PUT") else b""
            )
            assert answer.status_code in (404, 405), (name, method, answer.status_code, answer.text)
    assert {path: path.stat().st_size for path in data.rglob("*") if "sqlite3" not in path.name} == before


def test_a_path_is_made_of_nothing_but_an_id(tmp_path: Path) -> None:
    files = UploadFiles(tmp_path)
    for name in ("", ".", "..", "../x", "x.info", "0" * 31, "0" * 32 + "\n", "A" * 32, "٣" * 32, "/" + "0" * 32):
        with pytest.raises(NotFoundError):
            files.folder(name)
    assert files.folder("0" * 32).parent == files.root


def test_an_id_with_a_tail_names_nothing(client: TestClient) -> None:
    where = begin(client, 10)
    for tail in (".info", ".lock", "/lock", "/upload", "%2flock", "%20"):
        for method in ("HEAD", "DELETE"):
            assert client.request(method, where + tail, headers=TUS).status_code in (404, 405)
    assert offset(client, where) == 0


def test_lies_at_creation(client: TestClient, data: Path) -> None:
    def metadata(key: str, value: bytes) -> dict[str, str]:
        return {"Upload-Length": "5", "Upload-Metadata": f"{key} {base64.b64encode(value).decode()}"}

    for headers, status in (
        ({}, 400),
        ({"Upload-Length": "-5"}, 400),
        ({"Upload-Length": "1e3"}, 400),
        ({"Upload-Length": "٣"}, 400),
        ({"Upload-Length": "9" * 400}, 400),
        ({"Upload-Length": str(LARGEST + 1)}, 413),
        ({"Upload-Defer-Length": "2"}, 400),
        ({"Upload-Length": "5", "Upload-Defer-Length": "1"}, 400),
        ({"Upload-Concat": "final;/a /b"}, 400),
        ({"Upload-Length": "5", "Upload-Concat": "partial"}, 400),
        ({"Upload-Length": "5", "Upload-Metadata": "title ***"}, 422),
        ({"Upload-Length": "5", "Upload-Metadata": "title /w=="}, 422),
        ({"Upload-Length": "5", "Upload-Metadata": "title YQ==,title YQ=="}, 400),
        (metadata("region", b"Germany"), 422),
        (metadata("title", b"t" * 501), 422),
        (metadata("captions.../x", SRT), 422),
        (metadata("captions", b"no captions"), 422),
    ):
        encoded = {name: value.encode() for name, value in (TUS | headers).items()}
        answer = client.post(UPLOADS, headers=encoded)  # type: ignore[arg-type]
        assert answer.status_code == status, (headers, answer.text)
        assert code(answer)
        assert list((data / "uploads").iterdir()) == []
    assert ledger(data).all() == []


def test_wrong_pieces_change_nothing(client: TestClient, clip: bytes) -> None:
    where = begin(client, len(clip))
    assert client.patch(where, headers=piece(0), content=clip[:100]).status_code == 204

    def long() -> Iterator[bytes]:
        yield clip[100:]
        yield b"and more"

    for headers, content, status, expected in (
        (piece(0), clip[:50], 409, "upload.offset_mismatch"),
        (piece(101), b"x", 409, "upload.offset_mismatch"),
        (piece(100) | {"Upload-Offset": "-1"}, b"x", 400, "upload.malformed"),
        (TUS | {"Content-Type": "application/offset+octet-stream"}, b"x", 400, "upload.malformed"),
        (piece(100) | {"Content-Type": "text/plain"}, b"x", 400, "upload.malformed"),
        (piece(100) | {"Tus-Resumable": "0.2.2"}, b"x", 412, "upload.version"),
        (piece(100), clip[100:] + b"x", 400, "upload.malformed"),
        (piece(100), long(), 400, "upload.malformed"),
        (piece(100, **{"Upload-Length": "5"}), b"x", 400, "upload.malformed"),
        (piece(100, **{"Upload-Checksum": sha1(b"other")}), b"wrong", 460, "upload.checksum_mismatch"),
        (piece(100, **{"Upload-Checksum": "crc32 AAAA"}), b"wrong", 400, "upload.malformed"),
        (piece(100, **{"Upload-Checksum": "sha1 ***"}), b"wrong", 400, "upload.malformed"),
    ):
        answer = client.patch(where, headers=headers, content=content)
        assert (answer.status_code, code(answer)) == (status, expected), (headers, answer.text)
        assert offset(client, where) == 100
    assert client.patch(where, headers=piece(100), content=clip[100:]).status_code == 204
    assert finished(client, where)["state"] == "taken"


def test_nothing_of_a_piece_that_is_too_long_stays(data: Path) -> None:
    """Also when a good part of it had been written to the disk before it was found out."""
    with TestClient(create_api(load_settings(data=data)), base_url="http://127.0.0.1") as client:
        where = begin(client, 2**21 + 100)
        assert client.patch(where, headers=piece(0), content=b"good").status_code == 204
        answer = client.patch(where, headers=piece(4), content=(b"x" * 2**20 for _ in range(3)))
        assert (answer.status_code, code(answer)) == (400, "upload.malformed")
        assert offset(client, where) == 4
        name = where.rpartition("/")[2]
        assert (data / "uploads" / name / "upload").read_bytes() == b"good"


def test_metadata_never_names_a_file(client: TestClient, tmp_path: Path, clip: bytes) -> None:
    where = begin(client, len(clip), filename="../../../evil\n.mp4", name="/etc/passwd", relativePath="../x")
    client.patch(where, headers=piece(0), content=clip)
    video = client.get(f"/api/v1/videos/{finished(client, where)['video']}").json()
    assert (video["title"], video["file_name"]) == ("evil.mp4", "evil.mp4")
    assert [path for path in tmp_path.rglob("*") if "evil" in path.name or "passwd" in path.name] == []


# --- the form --------------------------------------------------------------------------------------------------------


def test_a_form_brings_the_same_words(client: TestClient, data: Path, clip: bytes) -> None:
    answer = client.post(
        "/api/v1/videos",
        data={"title": "T", "tags": "a,b", "region": "FR", "ignored": "x"},
        files=[
            ("captions", ("clip.fr.srt", SRT)),
            ("file", ("../clip.mp4", clip)),
            ("captions.de", ("x", SRT)),
        ],
    )
    assert answer.status_code == 202, answer.text
    assert answer.json()["outcome"] == "new"
    stored = ReelSense(load_settings(data=data)).catalogue.video(answer.json()["id"])
    assert (stored.metadata.title, stored.metadata.tags, stored.metadata.region) == ("T", ("a", "b"), "FR")
    assert [track.language for track in stored.metadata.captions] == ["fr", "de"]
    assert list((data / "uploads").iterdir()) == []


def test_the_same_file_again_keeps_its_words_and_its_name(client: TestClient, clip: bytes) -> None:
    first = client.post("/api/v1/videos", data={"title": "Mine"}, files={"file": ("holiday.mp4", clip)}).json()
    again = client.post("/api/v1/videos", files={"file": ("other.mp4", clip)}).json()
    assert (again["id"], again["outcome"]) == (first["id"], "duplicate")
    where = begin(client, len(clip), filename="third.mp4")
    client.patch(where, headers=piece(0), content=clip)
    assert finished(client, where)["outcome"] == "duplicate"
    video = client.get(f"/api/v1/videos/{first['id']}").json()
    assert (video["title"], video["file_name"]) == ("Mine", "holiday.mp4")


def test_bad_forms(client: TestClient, data: Path, clip: bytes) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=xyz"}
    part = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    many = b"".join(b'--xyz\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n' for _ in range(100))
    for headers, content in (
        ({"Content-Type": "application/json"}, b"{}"),
        ({"Content-Type": "multipart/form-data"}, b"x"),
        ({"Content-Type": "multipart/form-data; boundary=" + "x" * 500}, b"x"),
        (kind, b""),
        (kind, part + clip),
        (kind, part + clip + b"\r\n--xyz\r\nContent-Disposition: form-data\r\n\r\n1\r\n--xyz--\r\n"),
        (kind, part + clip + b"\r\n" + part + clip + b"\r\n--xyz--\r\n"),
        (kind, many + b"--xyz--\r\n"),
        (kind, b'--xyz\r\nContent-Disposition: form-data; name="title"\r\n\r\n' + b"t" * 100_000 + b"\r\n--xyz--\r\n"),
        (kind, b"--xyz\r\nX: " + b"y" * 30_000 + b"\r\n\r\n1\r\n--xyz--\r\n"),
        (kind, b"garbage"),
    ):
        answer = client.post("/api/v1/videos", headers=headers, content=content)
        assert (answer.status_code, code(answer)) == (400, "upload.malformed"), content[:80]
    assert list((data / "uploads").iterdir()) == []
    assert ledger(data).all() == []


# --- what is left behind ---------------------------------------------------------------------------------------------


@pytest.fixture
def intaking(data: Path) -> Iterator[Intaking]:
    reelsense = ReelSense(load_settings(data=data, intake={"quarantine_bytes": 6}))
    yield Intaking(reelsense)
    reelsense.catalogue.close()


def test_what_expired_goes_and_what_it_counted_for_comes_back(
    client: TestClient, data: Path, intaking: Intaking
) -> None:
    where = begin(client, 1000)
    client.patch(where, headers=piece(0), content=b"x" * 10)
    rows = ledger(data)
    assert (rows.load().uploads, rows.load().bytes) == (1, 1000)
    intaking.tidy(time.time() + 80_000)
    assert offset(client, where) == 10
    intaking.tidy(time.time() + 90_000)
    assert client.head(where, headers=TUS).status_code == 404
    assert (rows.load().uploads, rows.load().bytes) == (0, 0)
    assert list((data / "uploads").iterdir()) == []


def test_refused_uploads_do_not_fill_the_disk(client: TestClient, data: Path, intaking: Intaking) -> None:
    wheres = []
    for content in (b"old.", b"new."):
        wheres.append(begin(client, 4))
        client.patch(wheres[-1], headers=piece(0), content=content)
        finished(client, wheres[-1])
    intaking.tidy(time.time())
    assert [file.read_bytes() for file in (data / "uploads").rglob("upload")] == [b"new."]
    assert client.get(wheres[0]).json()["error"]["code"] == "media.not_media"
    intaking.tidy(time.time() + 700_000)
    assert list((data / "uploads").iterdir()) == []
    assert client.get(wheres[0]).status_code == 404


def test_an_upload_that_ends_its_process_is_set_aside(data: Path, clip: bytes) -> None:
    """Its tries are counted before they begin; here three processes died in them."""
    api = create_api(load_settings(data=data))
    with TestClient(api, base_url="http://127.0.0.1") as client:
        where = begin(client, len(clip))
        client.patch(where, headers=piece(0), content=clip[:-1])
    rows: UploadLedger = ledger(data)
    name = where.rpartition("/")[2]
    for _ in range(3):
        rows.attempt(name)
    with (data / "uploads" / name / "upload").open("ab") as file:
        file.write(clip[-1:])
    with TestClient(create_api(load_settings(data=data)), base_url="http://127.0.0.1"):
        assert ended(rows, name).error_code == "stage.gave_up"
