"""The watched folder: whole files are taken and moved aside, half ones are waited for, the rest is left alone."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.artifacts import source_key
from store.settings import Settings, load_settings
from tests import clips
from tests.conftest import ROOT
from tests.workers.incoming_house import House
from tests.workers.test_brokers import valkey
from tests.workers.test_incoming import of


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clips.test_pattern(tmp_path_factory.mktemp("clip") / "a.mp4", seconds=0.5, tone_hz=None).read_bytes()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    folder = tmp_path / "watched"
    folder.mkdir()
    house = House(
        load_settings(data=tmp_path / "data", incoming={"watched_folder": str(folder), "settle_seconds": 0.0})
    )
    yield house
    house.catalogue.close()


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_taken_files_go_to_done_and_refused_ones_to_refused(house: House, tmp_path: Path, clip: bytes) -> None:
    folder = tmp_path / "watched"
    (folder / "trip").mkdir()
    (folder / "trip" / "a b.mp4").write_bytes(clip)
    (folder / "trip" / "a b.json").write_text('{"title": "Trip"}')
    (folder / "trip" / "a b.en.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    (folder / "notes.txt").write_text("not a video")
    (folder / "going.mp4.part").write_bytes(clip)
    (folder / ".hidden.mp4").write_bytes(clip)
    (folder / "outside.mp4").symlink_to(tmp_path / "data" / "catalogue.sqlite3")
    report = house.watched().scan()
    assert sorted((item.key, item.outcome) for item in report.ended) == [
        ("notes.txt", "refused"),
        ("trip/a b.mp4", "taken"),
    ]
    assert files_of(folder) == [
        ".hidden.mp4",
        "done/trip/a b.en.srt",
        "done/trip/a b.json",
        "done/trip/a b.mp4",
        "going.mp4.part",
        "outside.mp4",
        "refused/notes.txt",
        "refused/notes.txt.json",
    ]
    note = json.loads((folder / "refused" / "notes.txt.json").read_text())
    assert (note["key"], note["code"]) == ("notes.txt", "media.not_media")
    assert "not those of" in note["message"]
    (video,) = house.catalogue.videos()
    assert (video.metadata.title, len(video.metadata.captions), video.file_name) == ("Trip", 1, "a b.mp4")
    assert house.watched().scan().ended == []


def test_the_same_name_again_does_not_replace_what_is_done(house: House, tmp_path: Path, clip: bytes) -> None:
    folder = tmp_path / "watched"
    for number in range(2):
        (folder / "a.mp4").write_bytes(of(clip, number))
        (folder / "b.mp4").write_bytes(b"bad" + bytes([number]))
        assert sorted(item.outcome for item in house.watched().scan().ended) == ["refused", "taken"]
    assert len(house.catalogue.videos()) == 2
    assert len(list((folder / "done").iterdir())) == 2
    assert len([path for path in (folder / "refused").iterdir() if path.suffix == ".mp4"]) == 2


def test_kept_files_stay_and_are_taken_once(house: House, tmp_path: Path, clip: bytes) -> None:
    incoming = house.settings.incoming.model_copy(update={"keep": True})
    keeping = House(house.settings.model_copy(update={"incoming": incoming}))
    (tmp_path / "watched" / "a.mp4").write_bytes(clip)
    assert [item.outcome for item in keeping.watched().scan().ended] == ["taken"]
    assert dict(keeping.watched().scan().outcomes) == {"handled": 1}
    assert files_of(tmp_path / "watched") == ["a.mp4"]


def test_done_that_is_a_link_leads_nowhere(house: House, tmp_path: Path, clip: bytes) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "watched" / "done").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "watched" / "a.mp4").write_bytes(clip)
    report = house.watched().scan()
    assert report.error is not None
    assert report.error.code == "store.unavailable"
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert len(house.catalogue.videos()) == 1  # it is a video; where the file should go is for its owner to mend


@contextlib.contextmanager
def service(settings: Settings) -> Iterator[None]:
    """The process as the stack starts it."""
    with (settings.data / "folder.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.incoming_service", "--folder"],
            cwd=ROOT,
            env=os.environ | settings.environment(),
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def until(true: Callable[[], bool], settings: Settings) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, (settings.data / "folder.log").read_text()[-3000:]
        time.sleep(0.05)


def test_a_file_that_is_written_slowly_is_taken_whole(tmp_path: Path, clip: bytes) -> None:
    """The real process over a real broker: one file lies there at the start, another grows with pauses longer than it
    must be still, a third comes by rename."""
    folder = tmp_path / "watched"
    folder.mkdir()
    (folder / "before.mp4").write_bytes(of(clip, 1))
    with valkey(tmp_path / "data") as url:
        settings = load_settings(
            data=tmp_path / "data",
            broker=url,
            incoming={"watched_folder": str(folder), "settle_seconds": 0.4, "poll_seconds": 600.0},
        )
        with service(settings):
            until(lambda: (folder / "done" / "before.mp4").exists(), settings)
            slow = of(clip, 2)
            with (folder / "slow.mp4").open("wb") as stream:
                for start in range(0, len(slow), len(slow) // 3):
                    stream.write(slow[start : start + len(slow) // 3])
                    stream.flush()
                    time.sleep(0.6)
                    assert (folder / "slow.mp4").exists()
            (folder / "renamed.mp4.part").write_bytes(of(clip, 3))
            (folder / "renamed.mp4.part").rename(folder / "renamed.mp4")
            until(lambda: len(list((folder / "done").iterdir())) == 3, settings)
        house = House(settings)
        contents = {house.objects.get(source_key(video.id)) for video in house.catalogue.videos()}
        assert contents == {of(clip, number) for number in (1, 2, 3)}
        assert not (folder / "refused").exists()
        house.catalogue.close()
