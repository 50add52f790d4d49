"""Training with engagement: planted tastes are found from content alone, and by the modality that holds them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusion.engagement import EngagementConfig, Step, engagement_loss, train_on_histories
from fusion.network import NetworkConfig
from fusion.trained import TrainedFusion
from fusion.training import Training
from store.errors import InputError, ModelError
from store.records import Float32, Tokens

TASTES, VIDEOS, NEW = 6, 120, 30
NETWORK = NetworkConfig(widths={"text": 32, "audio": 24}, dim=32, width=16, heads=2, queries=2)
CONFIG = EngagementConfig(steps=40, people=64, projection_rate=3e-3)
TASTE_OF = np.arange(VIDEOS) % TASTES


def token(row: Float32) -> Tokens:
    return Tokens(row[None], np.zeros(1, np.float32), np.ones(1, np.float32), np.ones(1, np.float32))


def catalogue() -> dict[str, dict[str, Tokens]]:
    """Text tells the taste in a few weak entries under loud ones that tell nothing; sound tells nothing at all."""
    generator = np.random.default_rng(4)
    text = generator.standard_normal((VIDEOS, 32)).astype(np.float32)
    text[:, :TASTES] = 0.3 * text[:, :TASTES] + 1.2 * np.eye(TASTES, dtype=np.float32)[TASTE_OF]
    audio = generator.standard_normal((VIDEOS, 24)).astype(np.float32)
    return {f"{n:03d}": {"text": token(text[n]), "audio": token(audio[n])} for n in range(VIDEOS)}


def histories() -> list[list[str]]:
    """People of one taste each, who never saw the last `NEW` videos."""
    generator = np.random.default_rng(5)
    found = []
    for person in range(90):
        own = np.flatnonzero(TASTE_OF[:-NEW] == person % TASTES)
        found.append([f"{place:03d}" for place in generator.permutation(own)[:6]])
    return found


def new_found(vectors: Float32) -> float:
    """Share of the new videos whose nearest taste, of the mean of its old videos, is their own."""
    means = np.stack([vectors[:-NEW][TASTE_OF[:-NEW] == taste].mean(axis=0) for taste in range(TASTES)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return float(((vectors[-NEW:] @ means.T).argmax(axis=1) == TASTE_OF[-NEW:]).mean())


def run(**changes: object) -> Training:
    return train_on_histories(catalogue(), histories(), NETWORK, CONFIG.model_copy(update=changes))


def vectors_of(fusion: TrainedFusion) -> Float32:
    videos = catalogue()
    return fusion.vectors([videos[name] for name in sorted(videos)])


@pytest.fixture(scope="module")
def result() -> Training:
    return run()


def test_new_videos_are_found_by_content(result: Training) -> None:
    looks: list[float] = []
    train_on_histories(
        catalogue(),
        histories(),
        NETWORK,
        CONFIG.model_copy(update={"steps": 1}),
        lambda v: looks.append(new_found(v)) or 0,
    )
    assert new_found(vectors_of(result.fusion)) >= looks[0] + 0.15


def test_the_modality_that_tells_tastes_gets_more_weight(result: Training) -> None:
    weights = [found["text"].sum() for found, _ in result.fusion.attend(list(catalogue().values()))]
    assert np.mean(weights) > 0.55


def test_the_same_run_gives_the_same_bytes(result: Training) -> None:
    assert run().fusion.to_bytes() == result.fusion.to_bytes()
    assert run(seed=1).fusion.version != result.fusion.version


def test_the_judge_keeps_the_best_and_a_bad_run_changes_nothing() -> None:
    first: list[Float32] = []

    def likes_the_beginning(vectors: Float32) -> float:
        first.append(vectors)
        return -float(len(first))

    kept = train_on_histories(catalogue(), histories(), NETWORK, CONFIG, likes_the_beginning)
    np.testing.assert_allclose(vectors_of(kept.fusion), first[0], atol=1e-5)


def test_loss_by_hand() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [1.0, 0.0]])
    right = torch.tensor([[0.5, 0.0, 0.5]])
    asked = Step(np.arange(4), 3, torch.tensor([[0.0, 0.0, 0.0, 1.0]]), right, right > 0)
    loss = engagement_loss(vectors, asked, torch.tensor([0.0, 0.5, 0.0]), torch.tensor([1.0, 1.0, 3.0]), 0.5)
    wrong = np.exp(0.5)
    each = [-np.log(np.exp(s) / (np.exp(s) + wrong)) for s in (2.0, 1.2)]
    assert float(loss) == pytest.approx((each[0] + 3 * each[1]) / 4, rel=1e-5)


def test_too_few_people_and_bad_tokens_are_refused() -> None:
    with pytest.raises(InputError) as few:
        train_on_histories(catalogue(), [["000"], ["001", "nowhere"]] * 20, NETWORK, CONFIG)
    assert few.value.code == "fusion.too_few_videos"
    videos = catalogue()
    videos["003"]["text"].embeddings[0, 0] = np.nan
    with pytest.raises(ModelError) as bad:
        train_on_histories(videos, histories(), NETWORK, CONFIG)
    assert bad.value.code == "fusion.not_finite"
