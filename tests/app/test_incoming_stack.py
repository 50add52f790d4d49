"""The whole way: an object is put, nobody gives a command, the video is ready. And the command that looks now."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.catalogue import Catalogue
from store.settings import load_settings
from tests import clips
from tests.app.commands import reelsense, stack, until
from tests.store.servers import ACCESS_KEY, SECRET_KEY, moto_s3, rclone_s3
from tests.workers.incoming_house import House
from tests.workers.test_incoming import of
from tests.workers.test_notifications import body, record

SECRET = "told-by-webhook"


def test_scan_and_ls_say_what_came_in(tmp_path: Path) -> None:
    data = tmp_path / "data"
    folder = data / "objects" / "incoming"
    folder.mkdir(parents=True)
    (tmp_path / "watched").mkdir()
    clip = clips.test_pattern(folder / "[red]a\x1b[2J.mp4", seconds=0.5, tone_hz=None)
    (tmp_path / "watched" / "b.mp4").write_bytes(of(clip.read_bytes(), 1))
    (folder / "bad.mp4").write_bytes(b"bad")
    variables = {
        "REELSENSE_INCOMING__SETTLE_SECONDS": "0",
        "REELSENSE_INCOMING__WATCHED_FOLDER": str(tmp_path / "watched"),
    }
    scanned = reelsense("incoming", "scan", "--json", "--data", data, **variables)
    assert scanned.status == 0, scanned.stderr
    assert scanned.json["outcomes"] == {"refused": 1, "taken": 2}
    listed = reelsense("incoming", "ls", "--json", "--data", data, **variables).json
    assert (listed["counts"], listed["announced"]) == ({"refused": 1, "taken": 2}, 0)
    by_name = {item["key"].rpartition("/")[2]: item for item in listed["objects"]}
    assert by_name["bad.mp4"]["error"]["code"] == "media.not_media"
    assert by_name["[red]a\N{REPLACEMENT CHARACTER}[2J.mp4"]["video"]
    shown = reelsense("incoming", "ls", "--data", data, **variables)
    assert "\x1b" not in shown.stdout
    assert "[red]a" in shown.stdout.replace("\n", "")


@contextlib.contextmanager
def put_into(kind: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings of a stack over one kind of store: a directory and moto are polled, rclone tells by webhook."""
    if kind == "directory":
        yield {"REELSENSE_INCOMING__POLL_SECONDS": "1"}
        return
    with (rclone_s3 if kind == "rclone" else moto_s3)(tmp_path) as url:
        variables = {
            "REELSENSE_OBJECTS": "s3://bucket",
            "REELSENSE_S3_ENDPOINT": url,
            "REELSENSE_S3_ACCESS_KEY": ACCESS_KEY,
            "REELSENSE_S3_SECRET_KEY": SECRET_KEY,
            "REELSENSE_INCOMING__POLL_SECONDS": "0" if kind == "rclone" else "1",
            "REELSENSE_INCOMING__NOTIFICATION_SECRET": SECRET,
        }
        yield variables


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.stack
@pytest.mark.parametrize("kind", ["directory", "rclone", "moto", "folder"])
def test_a_video_that_is_put_there_gets_ready_by_itself(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    clip = clips.test_pattern(tmp_path / "a.mp4", seconds=1.0, tone_hz=330.0)
    with put_into("directory" if kind == "folder" else kind, tmp_path) as variables:
        if kind == "folder":
            variables |= {"REELSENSE_INCOMING__WATCHED_FOLDER": str(tmp_path / "watched")}
        with stack(data, **variables):
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            house = House(load_settings(data=data))
            if kind == "folder":
                until((tmp_path / "watched").is_dir, 60, "no folder is watched")
                (tmp_path / "watched" / "a.mp4").write_bytes(clip.read_bytes())
            else:
                house.drop("incoming/a.json", b'{"title": "By itself"}')
                house.drop("incoming/a.mp4", clip.read_bytes())
            if kind == "rclone":
                api = json.loads((data / "run" / "stack.json").read_text())["api"]
                until(lambda: _told(f"{api}/api/v1/notifications/s3"), 60, "the API takes no notification")
            catalogue = Catalogue(load_settings(data=data).database_url())

            def ready() -> bool:
                videos = catalogue.videos()
                return bool(videos) and house.graph.states(videos)[videos[0].id][0] == "ready"

            until(ready, 180, f"not ready: {catalogue.videos()} {_logs(data)}")
            (video,) = catalogue.videos()
            assert video.metadata.title == ("" if kind == "folder" else "By itself")
            assert {run.attempts for run in catalogue.runs()} == {1}
            until(lambda: house.left() == [], 30, "the object is still there")


def _told(url: str) -> bool:
    request = urllib.request.Request(
        url, body(record("incoming%2Fa.mp4")), {"authorization": f"Bearer {SECRET}", "content-type": "application/json"}
    )
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
        return bool(answer.status == 202)
    return False


def _logs(data: Path) -> str:
    return "\n".join(f"{file.name}: {file.read_text()[-1500:]}" for file in sorted((data / "logs").glob("*.log")))
