"""`reelsense train`: a fusion trained on the catalogue comes in beside the served one,
re-fuses without decoding or encoding, and is served when it is whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from app.operations import ReelSense
from app.tables import show_fusion
from fusion.network import NetworkConfig
from fusion.training import TrainingConfig, train
from fusion.views import TrainingVideo
from ranker.events import Event, record
from store.artifacts import learnt_model_card_key, learnt_model_key
from store.errors import InputError, ReelsenseError
from store.records import Float32, Tokens
from store.settings import load_settings
from tests import clips
from tests.app.commands import free_port
from workers import extraction
from workers.plans import plans
from workers.stages import token_space

COUNT = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation with a few short videos, all read."""
    folder = tmp_path_factory.mktemp("trained")
    reelsense = ReelSense(load_settings(data=folder / "data"))
    encoders = extraction.Encoders(reelsense.settings)
    for number in range(COUNT):
        clip = folder / f"{number}.mp4"
        picture = clips.source(("rgbtestsrc", "smptebars", "yuvtestsrc")[number % 3], 0.5, rate=4 + number)
        clips.render(clip, picture, vcodec="libx264", pix_fmt="yuv420p")
        reelsense.add(clip, title=f"Number {number} of some clips", tags=("one", "two", "three")[: 1 + number % 3])
    drain(reelsense, encoders)
    return folder


def drain(reelsense: ReelSense, encoders: extraction.Encoders) -> list[str]:
    """Do what a worker would, without a broker: all that is queued, until nothing is. The stages that ran."""
    ran = []
    while queued := [run for run in reelsense.catalogue.runs() if run.state == "queued"]:
        for run in queued:
            key = next(
                key
                for video in reelsense.catalogue.videos([run.video_id])
                for key in reelsense.graph.keys(video, run.stage)
                if key.version == run.version
            )
            reelsense.graph.run(key, encoders)
            ran.append(run.stage)
    return ran


@pytest.mark.models
def test_a_trained_fusion_is_served_when_it_is_whole_and_explains_itself(folder: Path) -> None:
    reelsense = ReelSense(load_settings(data=folder / "data"))
    videos = reelsense.catalogue.videos()
    ids = [video.id for video in videos]
    for user in ("ana", "ben"):
        for video in ids[:3]:
            event = Event.checked(user=user, video=video, kind="like", at=time.time())
            assert record(reelsense.catalogue, event)
    before = {video.id: reelsense.graph.artifact(reelsense.graph.key(video, "fused")) for video in videos}
    seen: list[int] = []
    document = reelsense.train_fusion(seed=1, steps=10, on_progress=lambda progress: seen.append(progress.step))
    assert 0 < document["card"]["engaged_pairs"] <= 6, "those of videos that are not held out"
    assert seen
    assert reelsense.table.version == reelsense.graph.plans[0].versions["published"]
    assert len(reelsense.table) == COUNT, "the served fusion serves on"
    ran = drain(reelsense, extraction.Encoders(reelsense.settings))
    assert sorted(set(ran)) == ["fused", "published"], "nothing is decoded, nothing is encoded"
    reelsense.graph.reconcile()
    assert reelsense.catalogue.choices()["fusion"] == document["model"]
    assert sorted(reelsense.table.ids) == sorted(ids)
    for video in videos:
        fused = reelsense.graph.artifact(reelsense.graph.key(video, "fused"))
        assert fused.version != before[video.id].version
        pooled = fused.arrays["weights"] @ fused.arrays["token_vectors"]
        np.testing.assert_allclose(pooled / np.linalg.norm(pooled), fused.arrays["vector"], atol=1e-5)
        assert sum(fused.attributes["attention"].values()) == pytest.approx(1.0, abs=1e-4)
    assert reelsense.recommend("ana", 3)["items"]
    exported = reelsense.export("npy", folder / "vectors")
    assert exported["versions"]["fused"] == reelsense.graph.versions["fused"]
    vectors = np.load(folder / "vectors" / "fused_feat.npy", allow_pickle=False)
    assert vectors.shape == (COUNT, 256)


def test_too_small_a_catalogue_says_how_many_are_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ReelSense(load_settings(data=tmp_path)).train_fusion()
    assert caught.value.code == "fusion.too_few_videos"


@pytest.mark.models
def test_where_enough_people_finished_videos_it_is_trained_to_find_those(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "data", tmp_path / "data")
    reelsense = ReelSense(load_settings(data=tmp_path / "data"))
    ids = sorted(video.id for video in reelsense.catalogue.videos())
    for user in range(12):
        for video in ids[user % 2 :: 2]:
            assert record(reelsense.catalogue, Event.checked(user=f"u{user}", video=video, kind="like", at=time.time()))
    before = reelsense.train_fusion(seed=1, steps=2)
    assert "people" not in before["card"], "too few: engagement is a hint alone"
    seen: list[int] = []
    document = reelsense.train_fusion(
        seed=1, steps=3, least_people=12, on_progress=lambda progress: seen.append(progress.step)
    )
    assert document["card"]["people"] >= 12
    assert seen == [1, 2, 3]
    card = reelsense.objects.get(learnt_model_card_key("fusion", document["model"])).decode()
    assert ", who finished" in card
    show_fusion(document)
    assert reelsense.catalogue.choices()["fusion.next"] == document["model"]


@pytest.mark.models
@pytest.mark.slow
def test_two_processes_of_torchrun_train_one_fusion(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "data", tmp_path / "data")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command += ["--master-port", str(free_port()), "-m", "app.cli", "train", "fusion", "--seed", "1", "--steps", "4"]
    ran = subprocess.run(
        [*command, "--json", "--data", str(tmp_path / "data")],
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()[-3000:]
    document = json.loads(ran.stdout)  # one document: the other process prints none
    assert document["card"]["processes"] == 2
    reelsense = ReelSense(load_settings(data=tmp_path / "data"))
    assert reelsense.catalogue.choices()["fusion.next"] == document["model"]


def test_a_fusion_of_other_encoders_is_passed_over(tmp_path: Path) -> None:
    settings = load_settings(data=tmp_path)
    fitting, strange = f"{'a' * 16}-{token_space(settings)}", f"{'a' * 16}-{'0' * 16}"
    assert [dict(plan.models) for plan in plans(settings, {"fusion": fitting})] == [{"fusion": fitting}]
    assert [dict(plan.models) for plan in plans(settings, {"fusion": strange})] == [{}]
    (only,) = plans(settings, {"fusion.next": strange})
    assert only.models == {}


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    """A flipped byte: the digest or the probes say so, before anything is fused by it."""
    reelsense = ReelSense(load_settings(data=tmp_path / "data"))
    encoders = extraction.Encoders(reelsense.settings)
    fusion = train(_random_videos(12), NetworkConfig(widths={"vision": 8, "text": 6}), TrainingConfig(steps=1)).fusion
    version = f"{fusion.version}-{token_space(reelsense.settings)}"
    data = bytearray(fusion.to_bytes())
    data[-100] ^= 0xFF
    reelsense.objects.put(learnt_model_key("fusion", version), bytes(data))
    with pytest.raises(ReelsenseError) as caught:
        encoders.fusion(version, reelsense.objects)
    assert caught.value.code in ("model.damaged", "fusion.bad_checkpoint")


def _random_videos(count: int) -> dict[str, TrainingVideo]:
    generator = np.random.default_rng(0)

    def tokens(width: int) -> Tokens:
        rows: Float32 = generator.standard_normal((4, width)).astype(np.float32)
        times = np.arange(4, dtype=np.float32)
        return Tokens(rows, times, times + 1, np.ones(4, np.float32))

    return {f"video-{number}": TrainingVideo({"vision": tokens(8), "text": tokens(6)}) for number in range(count)}
