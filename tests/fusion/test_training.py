"""Training on planted catalogues: that it learns what is there, and keeps its promises while it does."""

from __future__ import annotations

import dataclasses
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file

from fusion.card import card_of, markdown
from fusion.network import AttentionNetwork, NetworkConfig
from fusion.objectives import ObjectiveConfig, contrastive
from fusion.optimising import rate_at
from fusion.starts import StartConfig
from fusion.trained import TrainedFusion
from fusion.training import Progress, Training, TrainingConfig, train
from fusion.views import TrainingVideo, ViewConfig, generator_for, two_views
from store.errors import InputError, ModelError, ReelsenseError
from store.records import Tokens
from tests.fusion.synthetic import WIDTHS, catalogue, half, planted

NETWORK = NetworkConfig(widths=WIDTHS, dim=32, width=16, heads=2)
SHORT = TrainingConfig(steps=12, batch=16, evaluate_every=4, checkpoint_every=4)
LEARNS = TrainingConfig(
    steps=150,
    batch=32,
    projection_rate=0.05,
    projection_decay=0.1,
    scalar_rate=0.05,
    start=StartConfig(strength=0),
    views=ViewConfig(most_tokens=12, modality_dropout=0.2, feature_dropout=0.1),
    objective=ObjectiveConfig(temperature=0.1),
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def found_first(fusion: TrainedFusion, first: int = 1000, count: int = 40) -> float:
    """Share of unseen videos whose later half is nearest to their earlier one."""
    videos = [planted(number) for number in range(first, first + count)]
    one, other = (fusion.vectors([half(video, number) for video in videos]) for number in (0, 1))
    return float((np.argmax(one @ other.T, axis=1) == np.arange(count)).mean())


def test_it_finds_the_planted_structure_and_turns_away_from_the_modality_that_says_nothing() -> None:
    before = TrainedFusion.of(AttentionNetwork(NETWORK))
    after = train(catalogue(48), NETWORK, LEARNS).fusion
    assert found_first(before) < 0.4
    assert found_first(after) > found_first(before) + 0.2
    attention = [after.fuse_any(planted(number))[1] for number in range(2000, 2020)]
    shares = {name: np.mean([found[name].sum() for found in attention]) for name in WIDTHS}
    assert shares["audio"] < 0.25 < shares["vision"]


@pytest.mark.slow
def test_it_does_not_when_the_answers_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: with the right answers shuffled there is nothing to be learnt."""
    import fusion.objectives

    def shuffled(one: torch.Tensor, other: torch.Tensor, *rest: object, **named: object) -> torch.Tensor:
        return contrastive(one, other.roll(1, dims=0), *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(fusion.objectives, "contrastive", shuffled)
    after = train(catalogue(48), NETWORK, LEARNS.model_copy(update={"held_out": 0.0, "steps": 60})).fusion
    assert found_first(after) < 0.4


def test_where_the_whitening_begins_is_already_better_than_no_training() -> None:
    begun = train(
        catalogue(48), NETWORK, SHORT.model_copy(update={"steps": 1, "start": StartConfig(within=1, strength=1)})
    ).fusion
    assert found_first(begun) > found_first(TrainedFusion.of(AttentionNetwork(NETWORK))) + 0.1


def test_what_does_not_help_on_held_out_videos_is_not_kept() -> None:
    wild = LEARNS.model_copy(update={"projection_rate": 100.0, "steps": 40, "evaluate_every": 10, "patience": 2})
    run = train(catalogue(24), NETWORK, wild)
    assert run.facts["held_out_loss"] <= run.facts["held_out_loss_before"]
    assert run.facts["steps"] <= 40


def test_the_same_run_gives_the_same_bytes_and_another_seed_others() -> None:
    videos = catalogue(20)
    first = train(videos, NETWORK, SHORT)
    torch.manual_seed(99)
    np.random.seed(99)
    again = train(dict(reversed(videos.items())), NETWORK, SHORT)
    assert first.fusion.to_bytes() == again.fusion.to_bytes()
    other = train(videos, NETWORK, SHORT.model_copy(update={"seed": 1}))
    assert other.fusion.version != first.fusion.version


def interrupted_after(steps: int, checkpoint: Path, videos: Mapping[str, TrainingVideo]) -> None:
    seen: list[int] = []
    with pytest.raises(ReelsenseError) as raised:
        train(
            videos,
            NETWORK,
            SHORT,
            checkpoint=checkpoint,
            progress=lambda progress: seen.append(progress.step),
            stop=lambda: bool(seen) and seen[-1] >= steps,
        )
    assert raised.value.code == "fusion.interrupted"
    assert seen[-1] == steps


@pytest.mark.parametrize("steps", [1, 5, 8])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(steps: int, tmp_path: Path) -> None:
    videos = catalogue(20)
    whole = train(videos, NETWORK, SHORT)
    checkpoint = tmp_path / "run.safetensors"
    interrupted_after(steps, checkpoint, videos)
    resumed: list[int] = []
    again = train(
        videos, NETWORK, SHORT, checkpoint=checkpoint, progress=lambda progress: resumed.append(progress.step)
    )
    assert resumed[0] == steps + 1
    assert again.fusion.to_bytes() == whole.fusion.to_bytes()
    assert again.facts == whole.facts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.safetensors"]


KILLED = """
import os, sys
import torch
from pathlib import Path
from fusion.training import train
from tests.fusion.synthetic import catalogue
from tests.fusion.test_training import NETWORK, SHORT
torch.set_num_threads(1)
train(catalogue(20), NETWORK, SHORT, checkpoint=Path(sys.argv[1]),
      progress=lambda progress: os.kill(os.getpid(), 9) if progress.step == 7 else None)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint_to_the_same_bytes(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.safetensors"
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", KILLED, str(checkpoint)], cwd=root, check=False)
    assert killed.returncode == -9
    steps: list[int] = []
    again = train(
        catalogue(20), NETWORK, SHORT, checkpoint=checkpoint, progress=lambda progress: steps.append(progress.step)
    )
    assert steps[0] == 5
    assert again.fusion.to_bytes() == train(catalogue(20), NETWORK, SHORT).fusion.to_bytes()


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.safetensors"
    interrupted_after(5, checkpoint, catalogue(20))

    def code(videos: Mapping[str, TrainingVideo], config: TrainingConfig = SHORT) -> str:
        with pytest.raises(ModelError) as raised:
            train(videos, NETWORK, config, checkpoint=checkpoint)
        return raised.value.code

    assert code(catalogue(21)) == "fusion.bad_checkpoint"
    assert code(catalogue(20), SHORT.model_copy(update={"seed": 5})) == "fusion.bad_checkpoint"
    whole = checkpoint.read_bytes()
    tensors = load(whole)
    checkpoint.write_bytes(whole[: len(whole) // 2])
    assert code(catalogue(20)) == "fusion.bad_checkpoint"
    save_file(tensors, str(checkpoint))
    assert code(catalogue(20)) == "fusion.bad_checkpoint"


CREW = """
import sys
import torch
from pathlib import Path
from fusion.training import train
from tests.fusion.synthetic import catalogue
from tests.fusion.test_training import CREW_RUN, NETWORK, PAIRS
torch.set_num_threads(1)
run = train(catalogue(21), NETWORK, CREW_RUN, pairs=PAIRS)
Path(sys.argv[1] + "-" + __import__("os").environ["RANK"]).write_bytes(run.fusion.to_bytes())
"""
# An odd batch, so that the processes' shares differ; engagement, so that some rows have no partner.
CREW_RUN = SHORT.model_copy(update={"batch": 15, "held_out": 0.2, "steps": 10, "scalar_rate": 0.05})
PAIRS = [(f"video-{number:04d}", f"video-{number + 1:04d}") for number in range(0, 12, 2)]


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = tmp_path / "crew.py"
    script.write_text(CREW)
    root = Path(__file__).parents[2]
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    crew = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "made")],
            cwd=root,
            env={**os.environ, **given, "RANK": str(rank), "PYTHONPATH": str(root)},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=240) for process in crew] == [0, 0]
    assert (tmp_path / "made-0").read_bytes() == (tmp_path / "made-1").read_bytes()
    two = TrainedFusion.from_bytes((tmp_path / "made-0").read_bytes())
    one = train(catalogue(21), NETWORK, CREW_RUN, pairs=PAIRS).fusion
    videos = [planted(number) for number in range(3000, 3020)]
    start = train(catalogue(21), NETWORK, CREW_RUN.model_copy(update={"steps": 1, "evaluate_every": 9}), pairs=PAIRS)
    assert np.abs(one.vectors(videos) - start.fusion.vectors(videos)).max() > 1e-2
    assert np.abs(one.vectors(videos) - two.vectors(videos)).max() < 1e-3


@pytest.mark.slow
def test_videos_finished_by_the_same_people_come_together() -> None:
    """Sixteen tastes of three videos each, which share nothing but their viewers."""
    videos = catalogue(48)
    names = sorted(videos)
    pairs = [(names[place], names[place + step]) for place in range(0, 48, 3) for step in (1, 2)]
    pairs += [(names[place + 1], names[place + 2]) for place in range(0, 48, 3)]
    config = LEARNS.model_copy(
        update={
            "objective": ObjectiveConfig(parts=0.2, agreement=0, masked=0, engagement=2.0, temperature=0.1),
            "held_out": 0.0,
        }
    )

    def together(run: Training) -> float:
        vectors = run.fusion.vectors([videos[name].tokens for name in names])
        scores = vectors @ vectors.T
        taste = np.arange(48) // 3
        same = (taste[:, None] == taste[None, :]) & ~np.eye(48, dtype=bool)
        return float(scores[same].mean() - scores[~same & ~np.eye(48, dtype=bool)].mean())

    with_viewers = train(videos, NETWORK, config, pairs=pairs)
    without = train(videos, NETWORK, config)
    assert with_viewers.facts["engaged_pairs"] == 48
    assert together(with_viewers) > together(without) + 0.2


def test_popular_videos_are_not_punished_for_being_popular() -> None:
    """With logQ correction the loss of a popular partner is that of a rare one, when both fit as well."""
    config = ObjectiveConfig(smoothing=0.0, temperature=1.0)
    vectors = torch.eye(4)
    apart = ~torch.eye(4, dtype=torch.bool)
    log_q = torch.log(torch.tensor([0.7, 0.1, 0.1, 0.1]))
    plain = contrastive(vectors, vectors, apart, config, both=False)
    corrected = contrastive(vectors, vectors, apart, config, log_q, both=False)
    asked = torch.tensor([True, False, False, False])
    popular = contrastive(vectors, vectors, apart, config, log_q, both=False, asked=asked)
    assert popular > corrected > plain - 1


def test_the_same_video_under_two_names_is_no_wrong_answer_and_stays_on_one_side() -> None:
    config = ObjectiveConfig(smoothing=0.1)
    vectors = torch.nn.functional.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    twins = torch.cat([vectors, vectors[:1]])
    apart = ~torch.eye(4, dtype=torch.bool)
    apart[0, 3] = apart[3, 0] = False
    alone = contrastive(vectors, vectors, ~torch.eye(3, dtype=torch.bool), config)
    asked = torch.tensor([True, False, False, False])
    first = torch.tensor([True, False, False])
    assert torch.allclose(
        contrastive(twins, twins, apart, config, asked=asked),
        contrastive(vectors, vectors, ~torch.eye(3, dtype=torch.bool), config, asked=first),
    )
    assert torch.isfinite(alone)
    videos = catalogue(20)
    grouped = {
        name: dataclasses.replace(video, group=f"footage {number // 2}")
        for number, (name, video) in enumerate(videos.items())
    }
    from fusion.training import _held_out

    out = _held_out({name: video.group for name, video in grouped.items()}, SHORT)
    assert len(out) % 2 == 0
    assert {grouped[name].group for name in out}.isdisjoint(
        video.group for name, video in grouped.items() if name not in out
    )


def test_views_share_no_token_when_cut_in_time_and_a_title_is_on_one_side() -> None:
    video = planted(1, tokens=8)
    title = Tokens(np.ones((1, 20), np.float32), *[np.array([value], np.float32) for value in (0, 8, 0.9)])
    given = TrainingVideo({**video, "text": title})
    config = ViewConfig(feature_dropout=0.0, modality_dropout=0.0)
    titles = []
    for step in range(30):
        one, other = two_views(given, generator_for(0, step, "v"), config)
        for name in ("vision", "audio"):
            seconds = set(one.tokens[name].start_seconds) & set(other.tokens[name].start_seconds)
            assert not seconds
        titles.append(("text" in one.tokens) + ("text" in other.tokens))
    assert set(titles) == {1}


def test_items_of_one_token_a_modality_and_other_names_can_be_trained_on() -> None:
    widths = {"text": 12, "vggish": 7, "whisper": 9}
    network = NetworkConfig(widths=widths, dim=16, width=8, heads=1)
    videos = {}
    for number in range(30):
        random = generator_for(5, number, "item")
        tokens = {
            name: Tokens(
                random.standard_normal((1, width)).astype(np.float32),
                np.zeros(1, np.float32),
                np.zeros(1, np.float32),
                np.ones(1, np.float32),
            )
            for name, width in widths.items()
            if number % 3 or name != "whisper"
        }
        videos[f"item {number}"] = TrainingVideo(tokens)
    run = train(videos, network, SHORT)
    assert np.isfinite(run.fusion.vectors([video.tokens for video in videos.values()])).all()
    assert run.facts["videos_with"] == {"text": 30, "vggish": 30, "whisper": 20}


def test_too_few_videos_are_an_error_that_says_how_many_are_needed() -> None:
    with pytest.raises(InputError, match="8 are needed") as raised:
        train(catalogue(7), NETWORK, SHORT)
    assert raised.value.code == "fusion.too_few_videos"
    silent = {
        name: TrainingVideo({"vision": dataclasses.replace(video.tokens["vision"], salience=np.zeros(6, np.float32))})
        for name, video in catalogue(20).items()
    }
    with pytest.raises(InputError) as raised:
        train(silent, NETWORK, SHORT)
    assert raised.value.code == "fusion.too_few_videos"
    same = {name: dataclasses.replace(video, group="one footage") for name, video in catalogue(20).items()}
    with pytest.raises(InputError, match="holds 1 different"):
        train(same, NETWORK, SHORT)


def test_tokens_that_are_not_finite_are_an_error_that_names_the_video() -> None:
    videos = catalogue(20)
    bad = planted(3)
    bad["text"].embeddings[1, 1] = np.nan
    with pytest.raises(ModelError, match="video-0003") as raised:
        train({**videos, "video-0003": TrainingVideo(bad)}, NETWORK, SHORT)
    assert raised.value.code == "fusion.not_finite"


def test_a_loss_that_leaves_the_numbers_is_an_error() -> None:
    with pytest.raises(ModelError) as raised:
        train(catalogue(20), NETWORK, SHORT.model_copy(update={"objective": ObjectiveConfig(temperature=1e-40)}))
    assert raised.value.code == "fusion.training_failed"


def test_the_rate_rises_and_falls() -> None:
    config = TrainingConfig(steps=100, warm_up=0.1)
    rates = [rate_at(step, config) for step in range(100)]
    assert rates[0] < rates[5] < rates[10] == max(rates)
    assert rates[10] == pytest.approx(1)
    assert all(one >= other for one, other in itertools.pairwise(rates[10:]))
    assert rates[-1] < 0.01


def test_progress_and_the_model_card_say_what_happened() -> None:
    told: list[Progress] = []
    run = train(catalogue(20), NETWORK, SHORT, progress=told.append)
    assert [progress.step for progress in told] == list(range(1, 13))
    assert [progress.step for progress in told if progress.held_out is not None] == [4, 8, 12]
    assert set(told[0].loss) == {"parts", "agreement", "masked"}
    card = card_of(run.facts, date="2026-11-24", metrics={"retrieval": 0.5})
    assert card["videos"] + card["held_out_videos"] == 20
    assert card["training"]["seed"] == 0
    text = markdown(card)
    for part in (run.fusion.version, "2026-11-24", "| videos trained on | 17", "retrieval", "torch", "temperature"):
        assert part in text
