"""Dead letters by the command line: why a run failed, trying it again, and putting it out of sight."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.administration import Administrator, this_user
from app.dead_letters import replayed
from app.operations import ReelSense
from store.catalogue import Catalogue, RunKey
from store.dead_letters import DeadLetters
from store.errors import InputError, ReelsenseError
from store.settings import load_settings
from tests import clips
from tests.app.commands import reelsense, stack, until
from tests.store.servers import free_port
from workers.intake import metadata_of, take_in


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ReelSense]:
    """An installation with one video, of which `frames` failed, `audio` was given up, and nothing runs."""
    clip = clips.test_pattern(tmp_path / "clip.mp4", seconds=1.0, tone_hz=440.0)
    settings = load_settings(data=tmp_path / "data")
    house = ReelSense(settings)
    words = metadata_of(clip, title="A clip", limits=settings.limits)
    video = take_in(clip, words, settings, house.objects, house.catalogue).video
    for stage, error, dead in (
        ("frames", InputError("media.no_frames", "Not one picture could be decoded."), False),
        ("audio", ReelsenseError("stage.gave_up", "It kills its worker."), True),
    ):
        key = house.graph.key(video, stage)
        house.catalogue.claim(key, "host/1", 30.0)
        DeadLetters(house.catalogue).note([key], [f"line of {stage}"], "in decode")
        house.catalogue.fail(key, error, f"Traceback of {stage}", dead=dead)
    yield house
    house.catalogue.close()


def data_of(house: ReelSense) -> tuple[str, str, str]:
    return ("--json", "--data", str(house.settings.data))


def listed(house: ReelSense, *arguments: str) -> list[str]:
    answer = reelsense("dead", "ls", *arguments, *data_of(house))
    assert answer.status == 0, answer.stdout
    return sorted(item["stage"] for item in answer.json["dead"])


def test_ls_filters_and_show_tells_all(house: ReelSense) -> None:
    video = house.catalogue.videos()[0]
    assert listed(house) == ["audio", "frames"]
    assert listed(house, "--stage", "audio") == ["audio"]
    assert listed(house, "--code", "media.no_frames") == ["frames"]
    assert listed(house, "--video", video.id[:8]) == ["audio", "frames"]
    assert listed(house, "--video", "ffff_") == []
    letter = DeadLetters(house.catalogue).letters(stage="audio")[0]
    shown = reelsense("dead", "show", letter.id[:8], *data_of(house)).json
    assert (shown["code"], shown["state"], shown["attempts"], shown["worker"]) == ("stage.gave_up", "dead", 1, "host/1")
    assert (shown["lines"], shown["place"], shown["traceback"]) == (
        ["line of audio"],
        "in decode",
        "Traceback of audio",
    )
    assert shown["version"] == house.graph.versions["audio"]
    assert shown["at"] > 0


def test_unknown_ids_and_no_choice_at_all_are_refused(house: ReelSense) -> None:
    for arguments, code in (
        (("show", "0000"), "dead.unknown"),
        (("drop", "0000"), "dead.unknown"),
        (("replay", "0000"), "dead.unknown"),
        (("drop",), "request.invalid"),
        (("drop", "--all", "--stage", "audio"), "request.invalid"),
    ):
        answer = reelsense("dead", *arguments, *data_of(house))
        assert (answer.status, answer.json["error"]["code"]) == (1, code)
    assert listed(house) == ["audio", "frames"]


def test_replay_is_refused_and_changes_nothing_while_the_broker_is_away(house: ReelSense) -> None:
    answer = reelsense("dead", "replay", "--all", *data_of(house))
    assert (answer.status, answer.json["error"]["code"]) == (1, "stack.not_running")
    away = f"redis://127.0.0.1:{free_port()}/0"
    answer = reelsense("dead", "replay", "--all", *data_of(house), REELSENSE_BROKER=away)
    assert (answer.status, answer.json["error"]["code"]) == (1, "broker.unavailable")
    assert listed(house) == ["audio", "frames"]


def test_dropped_letters_are_out_of_sight_and_not_tried_again(house: ReelSense) -> None:
    letter = DeadLetters(house.catalogue).letters(stage="audio")[0]
    answer = reelsense("dead", "drop", letter.id, "--dry-run", *data_of(house))
    assert (answer.json["dropped"], answer.json["dry_run"]) == ([letter.id], True)
    assert listed(house) == ["audio", "frames"]
    reelsense("dead", "drop", letter.id, *data_of(house))
    assert listed(house) == ["frames"]
    assert "audio" not in [key.stage for key in house.graph.reconcile().sent]
    # Tried again by other means, it fails anew: that is a new letter.
    key = letter.key()
    house.catalogue.reset([key])
    house.catalogue.claim(key, "host/2", 30.0)
    house.catalogue.fail(key, ReelsenseError("internal", "Once more."))
    assert listed(house) == ["audio", "frames"]


@pytest.mark.stack
def test_replay_sends_what_is_live_and_leaves_what_is_stale(house: ReelSense, tmp_path: Path) -> None:
    from tests.workers.test_brokers import valkey
    from workers.celery_app import queue_depths

    video = house.catalogue.videos()[0]
    old = house.graph.key(video, "vision").model_copy(update={"version": "0" * 16})
    house.catalogue.claim(old, "host/1", 30.0)
    house.catalogue.fail(old, ReelsenseError("internal", "By an earlier version."))
    with valkey(tmp_path / "broker") as url:
        there = ReelSense(load_settings(data=house.settings.data, broker=url))
        letters = DeadLetters(there.catalogue).letters()
        stale = next(letter.id for letter in letters if letter.stage == "vision")
        dry = replayed(Administrator(there, this_user()), letters, dry_run=True)
        assert (len(dry["replayed"]), dry["stale"]) == (2, [stale])
        assert queue_depths(there.celery)["audio"] == 0
        assert replayed(Administrator(there, this_user()), letters, dry_run=False) | {"dry_run": True} == dry
        depths = queue_depths(there.celery)
    assert (depths["frames"], depths["audio"]) == (1, 1)
    for stage in ("frames", "audio"):
        run = house.catalogue.run(house.graph.key(video, stage))
        assert run is not None
        assert (run.state, run.attempts, run.error_code) == ("queued", 0, None)
    assert listed(house) == ["vision"]


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.stack
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="kills by process id")
def test_a_stage_whose_worker_is_killed_each_time_is_replayed_to_its_end(tmp_path: Path) -> None:
    """A real stack: one run is killed three times, is a dead letter with the worker's last words, and after a replay
    the video is ready."""
    clip = clips.test_pattern(tmp_path / "clip.mp4", seconds=1.0, tone_hz=440.0)
    data = tmp_path / "data"
    with stack(data, REELSENSE_SWEEP_SECONDS="1", REELSENSE_WORKERS="1"):
        answer = reelsense("add", clip, "--json", "--data", data)
        video = answer.json["videos"][0]["id"]
        catalogue = Catalogue(load_settings(data=data).database_url())
        key = next(
            RunKey(**run.model_dump(include=set(RunKey.model_fields)))
            for run in catalogue.runs([video])
            if run.stage == "transcript"
        )
        hit: set[int] = set()

        def killed() -> bool:
            run = catalogue.run(key)
            assert run is not None
            assert run.state != "done", "it was faster than the test"
            if run.state == "running" and run.attempts not in hit:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int((run.worker or "").rpartition("/")[2]), signal.SIGKILL)
                hit.add(run.attempts)
            return run.state == "dead"

        until(killed, 180, "the run was not given up")
        letter = DeadLetters(catalogue).letters()[0]
        assert (letter.stage, letter.code, letter.attempts) == ("transcript", "stage.gave_up", 3)
        assert any("stage started" in line for line in letter.lines)
        answer = reelsense("dead", "replay", letter.id, "--json", "--data", data)
        assert answer.json["replayed"] == [letter.id], answer.stdout
        answer = reelsense("reconcile", "--wait", "--json", "--data", data)
        assert list(answer.json["states"].values()) == ["ready"]
        assert DeadLetters(catalogue).letters() == []
