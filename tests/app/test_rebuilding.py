"""The catalogue lost and made anew from object storage alone: nothing is computed again, and answers are the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from app.operations import ReelSense
from app.rebuilding import rebuild
from store.catalogue import Catalogue
from store.event_log import EventLog
from store.jobs import ENCODING
from store.journal import Journal, record_key
from store.settings import load_settings
from tests import clips
from tests.app.commands import reelsense

pytestmark = [pytest.mark.models, pytest.mark.stack]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation with three ready videos and a viewer. Tests copy it."""
    data = tmp_path_factory.mktemp("whole")
    ids = []
    for number in range(3):
        clip = clips.test_pattern(data / f"clip {number}.mp4", seconds=1.0 + number / 4, tone_hz=200.0 * (number + 1))
        answer = reelsense("add", clip, "--title", f"Clip {number}", "--json", "--data", data)
        assert answer.status == 0, answer.stdout
        ids.append(answer.json["videos"][0]["id"])
    for kind in ("like", "view"):
        answer = reelsense("event", "ann", ids[0], "--kind", kind, "--json", "--data", data)
        assert answer.status == 0, answer.stdout
    answer = reelsense("reconcile", "--wait", "--json", "--data", data)
    assert set(answer.json["states"].values()) == {"ready"}, answer.stdout
    return data


@pytest.fixture
def lost(whole: Path, tmp_path: Path) -> Path:
    """The objects of that installation, and nothing else."""
    shutil.copytree(whole / "objects", tmp_path / "data" / "objects")
    return tmp_path / "data"


def feed(data: Path, command: str, of: str) -> list[tuple[str, float]]:
    answer = reelsense(command, of, "--json", "--data", data)
    assert answer.status == 0, answer.stdout
    return [(item["video"], pytest.approx(item["score"], abs=1e-3)) for item in _items(answer.json)]


def _items(document: dict[str, Any]) -> list[dict[str, Any]]:
    return list(document["items"])


def test_nothing_is_computed_again_and_answers_are_the_same(whole: Path, lost: Path) -> None:
    before = Catalogue(load_settings(data=whole).database_url())
    first = before.videos()[0].id
    answer = reelsense("rebuild", "--json", "--data", lost)
    assert answer.status == 0, answer.stdout
    document = answer.json
    assert (document["videos"], document["restored"], document["ready"]) == (3, 3, 3)
    assert (document["events"], document["publications"], document["probed"], document["unreadable"]) == (2, 3, [], [])
    after = Catalogue(load_settings(data=lost).database_url())
    assert after.videos() == before.videos()
    assert [event.model_dump() for event in EventLog(after).of("ann")] == [
        event.model_dump() for event in EventLog(before).of("ann")
    ]
    assert feed(lost, "recommend", "ann") == feed(whole, "recommend", "ann")
    assert feed(lost, "similar", first) == feed(whole, "similar", first)
    answer = reelsense("reconcile", "--wait", "--json", "--data", lost)
    assert answer.json["sent"] == []
    assert {run.attempts for run in after.runs()} == {0}, "a stage was run although its artifact is there"


def test_again_changes_nothing(lost: Path) -> None:
    there = ReelSense(load_settings(data=lost))
    rebuild(there)
    second = rebuild(there)
    assert (second["videos"], second["ready"]) == (3, 3)
    assert (second["restored"], second["events"], second["publications"], second["choices"]) == (0, 0, 0, 0)


def test_videos_without_records_are_probed(whole: Path, lost: Path) -> None:
    there = ReelSense(load_settings(data=lost))
    videos = {video.id: video for video in Catalogue(load_settings(data=whole).database_url()).videos()}
    for video in videos:
        there.objects.delete(record_key(video))
    document = rebuild(there)
    assert document["probed"] == sorted(videos)
    assert document["ready"] == 3
    for video in there.catalogue.videos():
        assert (video.media, video.metadata) == (videos[video.id].media, videos[video.id].metadata)


def test_a_rebuilt_catalogue_goes_on_journaling_what_is_new(lost: Path) -> None:
    there = ReelSense(load_settings(data=lost))
    rebuild(there)
    journal = Journal(there.objects, there.catalogue)
    assert journal.write() == 0, "what came from the journal went into it again"
    there.event("ben", there.catalogue.videos()[0].id, "like", None)
    assert journal.write() == 1
    shutil.move(lost / "catalogue.sqlite3", lost / "aside")
    again = ReelSense(load_settings(data=lost))
    assert rebuild(again)["events"] == 3
    assert [event.user_id for event in EventLog(again.catalogue).of("ben")] == ["ben"]


def test_what_is_served_after_a_reembedding_is_served_again(lost: Path) -> None:
    there = ReelSense(load_settings(data=lost))
    rebuild(there)
    there.graph.jobs.know({"e" * 16: {"frames": 3}})
    there.catalogue.choose({ENCODING: "e" * 16})
    journal = Journal(there.objects, there.catalogue)
    journal.write()
    again = forgotten(lost)
    assert rebuild(again)["choices"] == 1
    assert again.graph.plans[0].settings.frames == 3
    # And taken back again: the copy must not go on serving what nobody chooses any more.
    again.catalogue.choose({}, instead_of=(ENCODING,))
    Journal(again.objects, again.catalogue).write()
    last = forgotten(lost)
    rebuild(last)
    assert last.catalogue.choices() == {}
    assert last.graph.plans[0].settings.frames == there.settings.frames


def forgotten(data: Path) -> ReelSense:
    """The installation without its catalogue."""
    for part in data.glob("catalogue.sqlite3*"):
        part.unlink()
    return ReelSense(load_settings(data=data))


def test_a_lost_catalogue_does_not_wipe_out_the_choices(lost: Path) -> None:
    there = ReelSense(load_settings(data=lost))
    there.catalogue.choose({"topics": "a" * 16})
    Journal(there.objects, there.catalogue).write()
    empty = forgotten(lost)
    Journal(empty.objects, empty.catalogue).write()
    assert Journal(empty.objects, empty.catalogue).restore()["choices"] == 1
    assert empty.catalogue.choices() == {"topics": "a" * 16}
