"""What breaks in other extraction pipelines must not break here: one test a mistake, over one real installation.

Mistakes that belong to one room have their test there; `docs/reliability.md` lists them all.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from store.catalogue import Catalogue
from store.objects import open_objects
from store.settings import Settings, load_settings
from tests import clips
from tests.app.commands import Answer, descendants, reelsense, stack
from workers.graph import Graph

pytestmark = [pytest.mark.models, pytest.mark.stack]
REFUSED = {"random bytes.mp4": "media.not_media", "sound only.mp4": "media.no_video"}
TAKEN = ("clip.a.mp4", "clip.b.mp4", "with space.webm", "bars.mkv", "cut.mp4")


class Round(NamedTuple):
    """The same files added twice to one installation."""

    data: Path
    first: Answer
    second: Answer


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Round:
    folder = tmp_path_factory.mktemp("a folder")
    data = tmp_path_factory.mktemp("data")
    (folder / "random bytes.mp4").write_bytes(random.Random(1).randbytes(20_000))
    clips.audio_only(folder / "sound only.mp4")
    clips.test_pattern(folder / "clip.a.mp4", seconds=1.0, tone_hz=440.0)
    clips.colour_bars(folder / "clip.b.mp4", seconds=2.0)
    clips.test_pattern(folder / "with space.webm", seconds=1.0, tone_hz=None, vcodec="libvpx")
    clips.colour_bars(folder / "bars.mkv", seconds=1.5)
    whole = clips.test_pattern(folder / "whole.mp4", seconds=6.0, tone_hz=330.0, movflags="faststart").read_bytes()
    (folder / "whole.mp4").unlink()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    files = sorted(folder.iterdir())
    rounds = [reelsense("add", *files, "--wait", "--json", "--data", data) for _ in range(2)]
    return Round(data, *rounds)


def entry(answer: Answer, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in answer.json["videos"] if Path(item["path"]).name == name)
    return found


def shown(added: Round, name: str) -> dict[str, Any]:
    document: dict[str, Any] = reelsense("show", entry(added.first, name)["id"], "--json", "--data", added.data).json
    return document


def graph_of(settings: Settings) -> Graph:
    return Graph(settings, open_objects(settings), Catalogue(settings.database_url()), send=lambda _: None)


@pytest.mark.parametrize(("name", "code"), REFUSED.items())
def test_what_is_refused_is_refused_again(added: Round, name: str, code: str) -> None:
    """video_features saves an empty result with exit status 0, and says "already exists" the next time."""
    for answer in (added.first, added.second):
        assert answer.status == 1
        assert entry(answer, name)["error"]["code"] == code
    listed = reelsense("status", "--json", "--data", added.data).json["videos"]
    assert len(listed) == len(TAKEN)


@pytest.mark.parametrize("name", TAKEN)
def test_one_corrupt_input_stops_no_other(added: Round, name: str) -> None:
    """clip-video-encode aborts the run, or ends with status 0 and no output; others refuse MKV, WebM or a space."""
    for answer in (added.first, added.second):
        assert (entry(answer, name)["state"], entry(answer, name)["error"]) == ("ready", None)


def test_like_names_do_not_collide(added: Round) -> None:
    """Ducho writes `clip.a` and `clip.b` into one output."""
    first, second = shown(added, "clip.a.mp4"), shown(added, "clip.b.mp4")
    assert first["id"] != second["id"]
    assert (first["duration"], second["duration"]) == (pytest.approx(1.0, abs=0.1), pytest.approx(2.0, abs=0.1))
    assert first["tokens"] != second["tokens"]


def test_a_truncated_video_is_flagged_and_ends_with_a_real_frame(added: Round) -> None:
    """NeMo Curator gives a blank last frame as if it were real."""
    video = shown(added, "cut.mp4")
    settings = load_settings(data=added.data)
    graph = graph_of(settings)
    frames = graph.artifact(graph.key(graph.catalogue.video(video["id"]), "frames")).attributes
    assert frames["degraded"] is True
    assert frames["frames_decoded"] < frames["frames_declared"]
    tokens = graph.artifact(graph.key(graph.catalogue.video(video["id"]), "vision")).tokens()
    assert tokens.end_seconds[-1] <= frames["duration"] + 0.05
    unit = tokens.embeddings / np.linalg.norm(tokens.embeddings, axis=1, keepdims=True)
    # The pattern hardly changes: a blank picture would be far from its neighbours.
    assert float(unit[-1] @ unit[-2]) > 0.7


def test_results_carry_ids_versions_and_masks(added: Round) -> None:
    """MMRec's features are rows without ids or masks in pickled arrays; Immich's carry no version of their model."""
    graph = graph_of(load_settings(data=added.data))
    for item in graph.objects.list("artifacts/"):
        _, stage, version, leaf = item.key.split("/")
        data = graph.objects.get(item.key)
        header = data[8 : 8 + int.from_bytes(data[:8], "little")]
        assert leaf.partition("-")[0].encode() in header
        assert version.encode() in header
        assert stage.encode() in header
        assert b"pickle" not in data
        assert version == graph.versions[stage]
    silent = shown(added, "with space.webm")
    assert "audio" not in silent["attention"], "a modality that is not there gets no weight, and no row of zeros"


def test_the_catalogue_ends_with_a_census(added: Round) -> None:
    """Immich skips items in silence when a model changes: here every video is ready, failed or still counted."""
    states = [item["state"] for item in reelsense("status", "--json", "--data", added.data).json["videos"]]
    assert states == ["ready"] * len(TAKEN)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc to find what a process has loaded")
@pytest.mark.slow
def test_models_are_loaded_in_the_child_alone(tmp_path: Path) -> None:
    """CUDA does not survive a fork, and torch threads hang in it: the parent of a pool never loads torch."""
    clip = clips.test_pattern(tmp_path / "clip.mp4", seconds=1.0, tone_hz=220.0)
    with stack(tmp_path / "data", REELSENSE_WORKERS="1") as up:
        assert reelsense("add", clip, "--wait", "--json", "--data", tmp_path / "data").status == 0
        workers = [pid for pid, line in descendants(up.pid).items() if "workers.worker" in line]
        loaded = {pid: "libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in workers}
        parents = [pid for pid in workers if set(descendants(pid)) & set(workers)]
        assert parents
        assert any(loaded.values())
        assert not any(loaded[pid] for pid in parents)
