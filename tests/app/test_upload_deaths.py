"""Uploads while things die: the API killed at its worst moments, clients that vanish, dawdle or send without end."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.api_keys import ApiKeys
from store.catalogue import Catalogue
from store.settings import load_settings
from store.upload_ledger import UploadLedger
from tests import clips
from tests.app.commands import until
from tests.app.serving import TUS, UPLOADS, Api, creation, ended, ledger, piece, serving, sha1

pytestmark = pytest.mark.stack
HASTE = {"REELSENSE_INTAKE__SILENCE_SECONDS": "2", "REELSENSE_INTAKE__LEAST_RATE": "1000"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clips.test_pattern(tmp_path_factory.mktemp("clip") / "a.mp4", seconds=1.0, tone_hz=None).read_bytes()


def begin(api: Api, length: int) -> str:
    status, headers, body = api.ask("POST", UPLOADS, creation(length, title="mine"))
    assert status == 201, body
    return headers["location"]


def offset(api: Api, where: str) -> int:
    status, headers, _ = api.ask("HEAD", where, TUS)
    assert status == 200
    return int(headers["upload-offset"])


def videos(data: Path) -> list[str]:
    return [video.id for video in Catalogue(load_settings(data=data).database_url()).videos()]


@contextlib.contextmanager
def half_sent(
    api: Api, method: str, where: str, headers: dict[str, str], announced: int, sent: bytes
) -> Iterator[socket.socket]:
    """A connection on which a request's head and the first bytes of its body have been sent."""
    head = {"Host": f"127.0.0.1:{api.port}", "Content-Length": str(announced)} | headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as connection:
        connection.sendall(f"{method} {where} HTTP/1.1\r\n{lines}\r\n".encode() + sent)
        yield connection


def test_killed_between_the_last_byte_and_the_intake(tmp_path: Path, clip: bytes) -> None:
    """204 for the last byte, then kill -9 at once: the next start takes the upload in, and the client can read so."""
    with serving(tmp_path) as api:
        where = begin(api, len(clip))
        assert api.ask("PATCH", where, piece(0), clip)[0] == 204
        api.kill()
    name = where.rpartition("/")[2]
    left = ledger(tmp_path).find(name)
    assert left is not None
    assert (left.state, videos(tmp_path)) == ("received", []), "the kill came too late to show anything"
    with serving(tmp_path) as api:
        row = ended(ledger(tmp_path), name)
        assert (row.state, row.outcome, [row.video_id]) == ("taken", "new", videos(tmp_path))
        assert b'"state":"taken"' in api.ask("GET", where)[2]


def test_killed_before_it_could_note_the_last_byte(tmp_path: Path, clip: bytes) -> None:
    with serving(tmp_path) as api:
        where = begin(api, len(clip))
        assert api.ask("PATCH", where, piece(0), clip[:-5])[0] == 204
        api.kill()
    name = where.rpartition("/")[2]
    with (tmp_path / "uploads" / name / "upload").open("ab") as file:
        file.write(clip[-5:])  # written by the process that died, which had not come to say so
    with serving(tmp_path):
        assert ended(ledger(tmp_path), name).state == "taken"


def test_killed_in_mid_piece_then_resumed(tmp_path: Path, clip: bytes) -> None:
    """What the killed process wrote is what HEAD says, so going on from there gives the very file."""
    with serving(tmp_path) as api:
        where, checked = begin(api, 2**21 + len(clip)), begin(api, 2**21 + len(clip))
        content = clip + b"\0" * 2**21  # more than one write to the disk
        written = [tmp_path / "uploads" / name.rpartition("/")[2] / "upload" for name in (where, checked)]
        checksum = {"Upload-Checksum": sha1(content)}
        with (
            half_sent(api, "PATCH", where, piece(0), len(content), content[: 2**20 + 100]),
            half_sent(api, "PATCH", checked, piece(0, **checksum), len(content), content[: 2**20 + 100]),
        ):
            until(lambda: all(file.stat().st_size >= 2**20 for file in written), 20, "nothing was written")
            api.kill()
    with serving(tmp_path) as api:
        at = offset(api, where)
        assert 2**20 <= at < len(content)
        assert api.ask("PATCH", where, piece(at), content[at:])[0] == 204
        # What came under a checksum that nobody compared does not count.
        assert offset(api, checked) == 0
        assert api.ask("PATCH", checked, piece(0, **checksum), content)[0] == 204
        rows = ledger(tmp_path)
        found = [ended(rows, name.rpartition("/")[2]) for name in (where, checked)]
    assert [row.state for row in found] == ["taken", "taken"]
    assert found[0].video_id == found[1].video_id


def test_clients_that_vanish_give_back_what_they_held(tmp_path: Path) -> None:
    with serving(tmp_path, REELSENSE_INTAKE__USER_UPLOADS="2") as api:
        rows = ledger(tmp_path)
        where = begin(api, 1000)
        with half_sent(api, "PATCH", where, piece(0), 1000, b"x" * 400):
            until(lambda: _touched(rows, where), 40, "the piece did not begin")
            assert api.ask("PATCH", where, piece(0), b"y" * 1000)[0] == 423
        until(lambda: offset(api, where) == 400, 40, "what came before the client vanished is lost")
        form = {"Content-Type": "multipart/form-data; boundary=xyz"}
        head = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        with half_sent(api, "POST", "/api/v1/videos", form, 5000, head + b"x" * 100):
            until(lambda: rows.load().uploads == 2, 40, "the form did not begin")
            status, headers, _ = api.ask("POST", UPLOADS, creation(10))
            assert (status, headers["retry-after"]) == (429, "10")
        until(lambda: rows.load().uploads == 1, 40, "a form whose client vanished still counts")
        assert begin(api, 10)


def _touched(rows: UploadLedger, where: str) -> bool:
    upload = rows.find(where.rpartition("/")[2])
    return upload is not None and upload.touched_at > upload.created_at


def test_a_form_whose_process_died_gives_back_what_it_held(tmp_path: Path) -> None:
    rows = ledger(tmp_path)
    with serving(tmp_path) as api:
        form = {"Content-Type": "multipart/form-data; boundary=xyz"}
        with half_sent(api, "POST", "/api/v1/videos", form, 5000, b"--xyz\r\n"):
            until(lambda: rows.load().uploads == 1, 40, "the form did not begin")
            api.kill()
    assert rows.load().uploads == 1
    with serving(tmp_path):
        until(lambda: rows.load().uploads == 0, 40, "a form of a dead process still counts")
    assert list((tmp_path / "uploads").iterdir()) == []


@pytest.mark.slow
def test_slow_bodies_end(tmp_path: Path) -> None:
    """Silence, and one byte now and then: 408, and what came stays for going on."""
    with serving(tmp_path, **HASTE) as api:
        where = begin(api, 10_000)
        with half_sent(api, "PATCH", where, piece(0), 10_000, b"x" * 300) as connection:
            assert b" 408 " in connection.recv(200)
        assert offset(api, where) == 300
        with half_sent(api, "PATCH", where, piece(300), 9_700, b"") as connection:
            began = time.monotonic()
            with contextlib.suppress(OSError):
                for _ in range(300):
                    connection.sendall(b"x")
                    time.sleep(0.1)
            assert time.monotonic() - began < 20
            assert b" 408 " in connection.recv(200)
        assert 300 < offset(api, where) < 600
        with half_sent(api, "POST", "/api/v1/events", {"Content-Type": "application/json"}, 100, b"{") as connection:
            assert b" 408 " in connection.recv(200)
        # A patient client with pauses shorter than that is none of them.
        at = offset(api, where)
        with half_sent(api, "PATCH", where, piece(at), 10_000 - at, b"") as connection:
            for _ in range(4):
                connection.sendall(b"x" * ((10_000 - at) // 4))
                time.sleep(0.5)
            connection.sendall(b"x" * ((10_000 - at) % 4))
            assert b" 204 " in connection.recv(200)


def _ends(connection: socket.socket, data: bytes) -> bool:
    """Whether the other side hangs up while data comes now and then."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            connection.sendall(data)
        except OSError:
            return True
        time.sleep(0.1)
    return False


def test_slow_heads_end(tmp_path: Path) -> None:
    """A head that never ends, nothing at all, and a body that goes on after its request was answered."""
    ApiKeys(Catalogue(load_settings(data=tmp_path).database_url())).create("x", ["read"])
    with serving(tmp_path, **HASTE) as api:
        refused = half_sent(api, "PATCH", f"{UPLOADS}/{'0' * 32}", piece(0), 10_000, b"x")
        head = socket.create_connection(("127.0.0.1", api.port), timeout=30)
        silent = socket.create_connection(("127.0.0.1", api.port), timeout=30)
        with refused as answered, head, silent:
            head.sendall(b"GET /health/live HTTP/1.1\r\n")
            for connection, data in ((answered, b"x"), (head, b"X-A: b\r\n")):
                assert _ends(connection, data), data
            assert silent.recv(10) == b""
        # Requests on one connection, with pauses that are shorter, go on.
        connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=30)
        for _ in range(3):
            connection.request("GET", "/health/live")
            assert connection.getresponse().read() == b'{"status":"live"}'
            time.sleep(0.6)
        connection.close()


def test_bodies_without_end(tmp_path: Path) -> None:
    """Chunked bodies that announce no length are counted as they come."""
    with serving(tmp_path, REELSENSE_LIMITS__BYTES="100000", REELSENSE_LIMITS__CAPTION_BYTES="1000") as api:
        where = begin(api, 5000)
        chunk = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
        for method, path, headers, status in (
            ("PATCH", where, piece(0), b" 413 "),
            ("POST", "/api/v1/events", {"Content-Type": "application/json"}, b" 413 "),
            ("POST", "/api/v1/videos", {"Content-Type": "multipart/form-data; boundary=x"}, b" 400 "),
        ):
            lines = {"Host": "127.0.0.1", "Transfer-Encoding": "chunked"} | headers
            head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
            with socket.create_connection(("127.0.0.1", api.port), timeout=30) as connection:
                connection.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode())
                with contextlib.suppress(OSError):
                    for _ in range(400):
                        connection.sendall(chunk)
                assert status in connection.recv(200), path
        assert offset(api, where) == 0
