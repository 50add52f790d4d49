"""One suite over every object store: a directory, and two real S3 servers that differ where S3 servers differ."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import InputError, PassingError, ReelsenseError
from store.local_objects import LocalObjects
from store.objects import ObjectInfo, ObjectStore, check_key, open_objects
from store.settings import load_settings
from tests.store.servers import ACCESS_KEY, SECRET_KEY, free_port, moto_s3, rclone_s3


def s3(url: str, folder: Path, secret: str = SECRET_KEY) -> ObjectStore:
    return open_objects(
        load_settings(
            data=folder, objects="s3://bucket", s3_endpoint=url, s3_access_key=ACCESS_KEY, s3_secret_key=secret
        )
    )


@pytest.fixture(scope="module", params=["directory", "rclone", "moto"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "directory":
        yield open_objects(load_settings(data=folder))
        return
    server = rclone_s3 if request.param == "rclone" else moto_s3
    with server(folder) as url:
        yield s3(url, folder)


def test_what_was_put_is_got(store: ObjectStore) -> None:
    store.put("round/trip/a", b"\x00\xffbytes")
    assert store.get("round/trip/a") == b"\x00\xffbytes"
    assert store.size("round/trip/a") == 7


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    store.put("empty/a", b"")
    assert store.get("empty/a") == b""
    assert store.size("empty/a") == 0


def test_put_replaces(store: ObjectStore) -> None:
    store.put("again/a", b"old and longer")
    store.put("again/a", b"new")
    assert store.get("again/a") == b"new"


def test_a_part_is_those_bytes_and_no_more(store: ObjectStore) -> None:
    content = bytes(range(256)) * 2000
    store.put("part/a", content)
    for first, length in ((0, 1), (3, 7), (255_999, 300_000), (len(content) - 1, 1), (0, len(content)), (9, 2**40)):
        with store.open_part("part/a", first, length) as stream:
            assert stream.read() == content[first : first + length]
    with store.open_part("part/a", len(content), 5) as stream:
        assert stream.read() == b""
    with store.open_part("part/a", 10, 100) as stream:
        assert [stream.read(60), stream.read(60), stream.read(60)] == [content[10:70], content[70:110], b""]


def test_a_missing_object_says_so(store: ObjectStore) -> None:
    assert store.size("missing/a") is None
    for read in (store.get, store.open, lambda key: store.open_part(key, 0, 1)):
        with pytest.raises(InputError) as caught:
            read("missing/a")
        assert caught.value.code == "store.missing"


def test_files_go_in_and_out(store: ObjectStore, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000  # 10 MB: more than one read
    (tmp_path / "in").write_bytes(content)
    store.put_file("file/a", tmp_path / "in")
    store.download("file/a", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content
    with store.open("file/a") as stream:
        assert stream.read(300) == content[:300]


def test_listing_is_whole_and_sorted(store: ObjectStore) -> None:
    keys = [f"listing/{folder}/{index:04d}" for folder in ("b", "a") for index in range(60)]
    for key in keys:
        store.put(key, b"x")
    store.put("listing-not/a", b"x")
    assert list(store.list("listing/")) == [ObjectInfo(key, 1) for key in sorted(keys)]
    assert [item.key for item in store.list("listing/a/")] == sorted(key for key in keys if "/a/" in key)
    assert list(store.list("nothing/here/")) == []


def test_delete_is_repeatable(store: ObjectStore) -> None:
    store.put("delete/a", b"x")
    store.delete("delete/a")
    store.delete("delete/a")
    assert store.size("delete/a") is None


def test_no_reader_sees_half_an_object(store: ObjectStore) -> None:
    contents = [bytes([65 + index]) * 300_000 for index in range(4)]
    store.put("torn/a", contents[0])
    stop = threading.Event()
    failures: list[BaseException] = []

    def write(content: bytes) -> None:
        try:
            while not stop.is_set():
                store.put("torn/a", content)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    seen: list[bytes] = []
    try:
        for _ in range(40):
            # The old one, the new one or none: rclone has a moment between the two in which there is none.
            with contextlib.suppress(InputError):
                seen.append(store.get("torn/a"))
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert not failures
    assert len(seen) > 20
    assert all(content in contents for content in seen)


@pytest.mark.parametrize("key", ["", "/", "/a", "a//b", "../a", "a/../b", "a/.hidden", "a b", "a/b\n", "ä", "a" * 901])
def test_hostile_keys_are_refused(store: ObjectStore, key: str) -> None:
    for use in (store.get, store.size, store.open, store.delete, lambda key: store.put(key, b"")):
        with pytest.raises(InputError) as caught:
            use(key)
        assert caught.value.code == "store.key_invalid"


@given(st.text())
def test_no_allowed_key_climbs(key: str) -> None:
    try:
        allowed = check_key(key)
    except InputError:
        return
    root = Path("/root/of/store")
    assert (root / allowed).resolve().is_relative_to(root)


def test_an_s3_server_that_is_away_is_a_passing_error(tmp_path: Path) -> None:
    with pytest.raises(PassingError) as caught:
        s3(f"http://127.0.0.1:{free_port()}", tmp_path)
    assert caught.value.code == "store.unavailable"


def test_a_wrong_secret_is_refused_and_not_printed(tmp_path: Path) -> None:
    with rclone_s3(tmp_path) as url, pytest.raises(ReelsenseError) as caught:
        s3(url, tmp_path, secret="the-wrong-secret")
    assert caught.value.code == "store.unavailable"
    assert "the-wrong-secret" not in f"{caught.value.message}{caught.value.hint}"


def test_a_failed_write_leaves_no_debris(tmp_path: Path) -> None:
    store = LocalObjects(tmp_path / "objects")
    with pytest.raises(PassingError):
        store.put_file("a/b", tmp_path / "not-there")
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []
