"""The command line as users and machines call it: documents, exit statuses, bad input, and a whole round."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from store.errors import CODES
from tests import clips
from tests.app.commands import environment, reelsense
from tests.conftest import ROOT
from workers.stages import STAGES

COMMANDS = (
    *("up", "add", "status", "show", "similar", "search", "event", "profile", "recommend", "reconcile", "models"),
    *("doctor", "settings"),
)


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bad input that every installation meets, by the code it must give."""
    folder = tmp_path_factory.mktemp("bad files")
    whole = clips.test_pattern(folder / "whole.mp4", seconds=2.0, tone_hz=440.0).read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This is no video.\n" * 50)
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/secret\n")
    return {
        "media.missing": folder / "not there.mp4",
        "media.empty": folder / "empty.mp4",
        "media.not_media": folder / "text.mp4",
        "media.unreadable": folder / "cut.mp4",
        "media.forbidden_format": folder / "list.mp4",
        "media.no_video": clips.audio_only(folder / "sound only.mp4"),
        "media.zero_duration": clips.zero_duration(folder / "nothing.mp4"),
    }


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory, bad_files: dict[str, Path]) -> tuple[Path, Any, int]:
    """One `add` of good and bad files together: the data directory, the document, the exit status."""
    data = tmp_path_factory.mktemp("data")
    folder = tmp_path_factory.mktemp("good files")
    good = [
        clips.test_pattern(folder / "a tone & a pattern.mp4", seconds=2.0, tone_hz=440.0),
        clips.test_pattern(folder / "mute.mp4", seconds=1.0, tone_hz=None),
        clips.colour_bars(folder / "bars.mkv", seconds=1.5),
    ]
    (folder / "mute.srt").write_text("1\n00:00:00,100 --> 00:00:00,900\nA caption about a garden with roses.\n")
    again = folder / "the same again.mp4"
    again.write_bytes(good[0].read_bytes())
    answer = reelsense("add", good[0], *bad_files.values(), *good[1:], again, "--wait", "--json", "--data", data)
    return data, answer.json, answer.status


def video_of(added: tuple[Path, Any, int], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in added[1]["videos"] if Path(item["path"]).name == name)
    return found


@pytest.mark.models
@pytest.mark.stack
class TestARound:
    """From files to a feed, over one installation."""

    def test_bad_files_are_refused_with_their_codes(
        self, added: tuple[Path, Any, int], bad_files: dict[str, Path]
    ) -> None:
        _, _, status = added
        assert status == 1
        for code, path in bad_files.items():
            item = video_of(added, path.name)
            assert item["error"] is not None, f"{path.name} was taken"
            assert item["error"]["code"] == code
            assert item["state"] == "failed"
            assert item["error"]["message"].endswith(".")

    def test_good_files_beside_them_are_ready(self, added: tuple[Path, Any, int]) -> None:
        for name in ("a tone & a pattern.mp4", "mute.mp4", "bars.mkv", "the same again.mp4"):
            item = video_of(added, name)
            assert (item["state"], item["error"]) == ("ready", None)

    def test_the_same_file_twice_is_one_video(self, added: tuple[Path, Any, int]) -> None:
        first, second = (video_of(added, name) for name in ("a tone & a pattern.mp4", "the same again.mp4"))
        assert first["id"] == second["id"]
        assert second["outcome"] == "duplicate"
        assert len(reelsense("status", "--json", "--data", added[0]).json["videos"]) == 3

    def test_show_says_what_was_understood(self, added: tuple[Path, Any, int]) -> None:
        video = video_of(added, "a tone & a pattern.mp4")["id"]
        shown = reelsense("show", video[:8], "--json", "--data", added[0]).json
        assert shown["id"] == video
        assert shown["duration"] == pytest.approx(2.0, abs=0.2)
        assert set(shown["stages"]) == {stage.name for stage in STAGES}
        for stage in shown["stages"].values():
            assert stage["state"] == "done"
            assert stage["seconds"] > 0
            assert len(stage["version"]) == 16
        assert {"tempo", "key", "mode", "speech_share", "segments", "music"} <= set(shown["audio"])
        assert {"type", "mood", "share"} <= set(shown["music"])
        assert (shown["faces"]["count"], shown["speakers"]["count"], shown["topics"]) == (0, 0, [])
        assert 0 < sum(colour["share"] for colour in shown["colours"]) <= 1.0001
        assert [(shot["start"], shot["end"]) for shot in shown["shots"]] == [(0.0, pytest.approx(2.0, abs=0.2))]
        assert {"screen_text", "keywords", "objects", "cut_rate", "motion"} <= set(shown)
        assert shown["frames"] == {"decoded": 20, "declared": 20}
        assert {"language", "segments"} == shown["transcript"].keys()
        assert sum(shown["attention"].values()) == pytest.approx(1.0, abs=1e-4)
        assert sum(token["weight"] for token in shown["tokens"]) == pytest.approx(1.0, abs=1e-4)
        for modality, weight in shown["attention"].items():
            of_tokens = sum(token["weight"] for token in shown["tokens"] if token["modality"] == modality)
            assert of_tokens == pytest.approx(weight, abs=1e-4)
        assert all({"name", "confidence"} <= label.keys() for label in shown["labels"])

    def test_captions_beside_a_video_are_read(self, added: tuple[Path, Any, int]) -> None:
        shown = reelsense("show", video_of(added, "mute.mp4")["id"], "--json", "--data", added[0]).json
        assert shown["captions"][0]["segments"] == [
            {"start": 0.1, "end": 0.9, "text": "A caption about a garden with roses."}
        ]
        assert shown["audio"]["present"] is False
        assert set(shown["attention"]) == {"vision", "text"}

    def test_duplicates_are_the_videos_of_the_same_pictures(self, added: tuple[Path, Any, int]) -> None:
        (group,) = reelsense("duplicates", "--json", "--data", added[0]).json["groups"]
        alike = {video_of(added, name)["id"] for name in ("a tone & a pattern.mp4", "mute.mp4")}
        assert {video["id"] for video in group["videos"]} == alike
        assert group["pairs"][0]["similarity"] > 0.9
        refused = reelsense("duplicates", "--threshold", "7", "--json", "--data", added[0])
        assert (refused.status, refused.json["error"]["code"]) == (1, "request.invalid")

    def test_topics_need_a_catalogue(self, added: tuple[Path, Any, int]) -> None:
        answer = reelsense("train", "topics", "--json", "--data", added[0])
        assert (answer.status, answer.json["error"]["code"]) == (1, "topics.too_few_videos")

    def test_search_finds_words(self, added: tuple[Path, Any, int]) -> None:
        found = reelsense("search", "flowers in the garden", "-k", "2", "--json", "--data", added[0]).json["items"]
        assert found[0]["video"] == video_of(added, "mute.mp4")["id"]
        assert found[0]["score"] >= found[-1]["score"]

    def test_similar_leaves_itself_out(self, added: tuple[Path, Any, int]) -> None:
        video = video_of(added, "bars.mkv")["id"]
        items = reelsense("similar", video, "-k", "5", "--json", "--data", added[0]).json["items"]
        assert len(items) == 2
        assert video not in [item["video"] for item in items]

    def test_an_event_changes_the_next_feed(self, added: tuple[Path, Any, int]) -> None:
        data = added[0]
        before = reelsense("recommend", "zoe", "--json", "--data", data).json["items"]
        assert len(before) == 3
        watched = video_of(added, "bars.mkv")["id"]
        event = reelsense("event", "zoe", watched, "--kind", "view", "--watched", "1.5", "--json", "--data", data)
        assert event.status == 0
        after = reelsense("recommend", "zoe", "-k", "10", "--json", "--data", data).json["items"]
        assert watched not in [item["video"] for item in after]
        assert len(after) == 2
        for item in after:
            assert math.isclose(sum(item["terms"].values()), item["score"], abs_tol=1e-9)
            assert item["reasons"]
        profile = reelsense("profile", "zoe", "--json", "--data", data).json
        assert profile["events"] == 1
        assert profile["seen"] == [watched]

    def test_titles_cannot_style_the_terminal(self, tmp_path: Path) -> None:
        clip = clips.test_pattern(tmp_path / "styled.mp4", seconds=1.0, tone_hz=None)
        reelsense("add", clip, "--title", "[red]\x1b[31mX[/red]", "--data", tmp_path / "data")
        listed = reelsense("status", "--data", tmp_path / "data")
        assert "[red]" in listed.stdout
        assert "\x1b" not in listed.stdout

    def test_wrong_words_are_refused(self, tmp_path: Path) -> None:
        clip = clips.test_pattern(tmp_path / "a.mp4", seconds=1.0, tone_hz=None)
        for option, value in (
            ("--region", "Germany"),
            ("--language", "!!"),
            ("--title", "x" * 501),
            ("--tags", "y" * 101),
        ):
            answer = reelsense("add", clip, option, value, "--json", "--data", tmp_path / "data")
            assert answer.status == 1
            assert answer.json["videos"][0]["error"]["code"] == "metadata.invalid"
        answer = reelsense("add", clip, "--captions", tmp_path / "none.srt", "--json", "--data", tmp_path / "data")
        assert answer.json["videos"][0]["error"]["code"] == "caption.missing"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("show", "ffffffff"), "video.unknown"),
        (("status", "ffffffff"), "video.unknown"),
        (("similar", "ffffffff"), "video.unknown"),
        (("event", "ana", "ffffffff", "--kind", "view"), "video.unknown"),
        (("profile", "nobody"), "user.unknown"),
        (("reconcile",), "stack.not_running"),
        (("search", " "), "request.invalid"),
        (("recommend", "ana", "-k", "0"), "request.invalid"),
        (("recommend", "ana", "-k", "10001"), "request.invalid"),
    ],
)
def test_mistakes_are_coded(tmp_path: Path, arguments: tuple[str, ...], code: str) -> None:
    answer = reelsense(*arguments, "--json", "--data", tmp_path)
    assert answer.status == 1
    assert answer.json["error"]["code"] == code
    assert answer.stderr == ""
    plain = reelsense(*arguments, "--data", tmp_path)
    assert plain.status == 1
    assert plain.stdout == ""
    assert plain.stderr.startswith(f"{code}: ")


def test_an_empty_installation_is_no_mistake(tmp_path: Path) -> None:
    assert reelsense("status", "--json", "--data", tmp_path).json == {"videos": []}
    assert reelsense("recommend", "ana", "--json", "--data", tmp_path).json["items"] == []


def test_every_command_takes_json_and_data_and_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        text = reelsense(command, "--help").stdout
        assert "--json" in text, command
        assert "--data" in text, command
        assert f"reelsense {command}" in readme, command


def test_models_names_every_weight(tmp_path: Path) -> None:
    models = reelsense("models", "--json", "--data", tmp_path).json["models"]
    assert {"vision", "audio", "speech", "text"} <= {model["modality"] for model in models}
    for model in models:
        assert model["licence"], model["name"]
        assert model["source"], model["name"]


def test_a_model_that_cannot_be_fetched_says_what_to_do(tmp_path: Path) -> None:
    variables = {"REELSENSE_MODEL_SET": "standard", "REELSENSE_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    for arguments in (("models", "--fetch"), ("status",)):
        answer = reelsense(*arguments, "--json", "--data", tmp_path, HF_HOME=str(tmp_path / "hub"), **variables)
        assert (answer.status, answer.json["error"]["code"]) == (1, "model.missing")
        assert "google/siglip2-base-patch16-224" in answer.json["error"]["message"]
        assert "models --fetch" in answer.json["error"]["hint"]


def test_doctor_finds_this_machine_well(tmp_path: Path) -> None:
    answer = reelsense("doctor", "--json", "--data", tmp_path)
    assert answer.status == 0, [check for check in answer.json["checks"] if not check["ok"]]
    names = {check["name"] for check in answer.json["checks"]}
    assert {"Python", "torch", "ffmpeg", "embedded broker", "object store", "disk"} <= names


def test_doctor_names_the_cure(tmp_path: Path) -> None:
    answer = reelsense(
        *("doctor", "--json", "--data", tmp_path),
        REELSENSE_OBJECTS="s3://none",
        REELSENSE_S3_ENDPOINT="http://127.0.0.1:9",
    )
    assert answer.status == 1
    broken = next(check for check in answer.json["checks"] if check["name"] == "object store")
    assert not broken["ok"]
    assert "s3_" in broken["cure"]


def test_settings_show_where_each_came_from(tmp_path: Path) -> None:
    answer = reelsense(
        "settings", "--json", "--data", tmp_path, REELSENSE_THREADS="3", REELSENSE_S3_SECRET_KEY="hidden"
    )
    rows = {row["name"]: row for row in answer.json["settings"]}
    assert (rows["threads"]["value"], rows["threads"]["origin"]) == ("3", "REELSENSE_THREADS")
    assert rows["data"]["origin"] == "command line"
    assert "hidden" not in answer.stdout


def test_a_wrong_setting_is_one_sentence(tmp_path: Path) -> None:
    answer = reelsense("status", "--json", "--data", tmp_path, REELSENSE_THREADS="none")
    assert answer.status == 1
    assert answer.json["error"]["code"] == "settings.invalid"


def test_importing_the_command_line_loads_no_model_library() -> None:
    code = (
        "import sys, app.cli, app.operations, app.stack, workers.stages, workers.graph, workers.celery_app, json;"
        "print(json.dumps([m for m in ('torch','transformers','whisper','librosa','ctranslate2','onnxruntime','av')"
        " if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []


def test_codes_are_namespaced() -> None:
    for code, meaning in CODES.items():
        assert code == "internal" or code.count(".") == 1, code
        assert meaning.endswith("."), code
