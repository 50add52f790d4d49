"""Training with engagement: planted tastes are found from content alone, and by the modality that holds them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fusion.engagement import EngagementConfig, Step, engagement_loss, train_on_histories
from fusion.mapping import MappingConfig, item_factors, mapped_starts
from fusion.network import NetworkConfig
from fusion.starts import StartConfig, starts_of
from fusion.trained import TrainedFusion
from fusion.training import Training
from store.errors import InputError, ModelError
from store.records import Float32, Tokens

TASTES, VIDEOS, NEW = 6, 120, 30
NETWORK = NetworkConfig(widths={"text": 32, "audio": 24}, dim=32, width=16, heads=2, queries=2)
CONFIG = EngagementConfig(steps=40, people=64, mapping=MappingConfig(share=0.0))
TASTE_OF = np.arange(VIDEOS) % TASTES


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small take several times the time when threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


def places() -> list[npt.NDArray[np.intp]]:
    return [np.array(sorted(int(name) for name in history)) for history in histories()]


def test_the_map_finds_new_videos_before_any_step() -> None:
    looks: list[float] = []

    def look(vectors: Float32) -> float:
        looks.append(new_found(vectors))
        return 0.0

    for share in (0.0, 1.0):
        run_of = CONFIG.model_copy(update={"steps": 1, "mapping": MappingConfig(share=share, ridge=1.0)})
        train_on_histories(catalogue(), histories(), NETWORK, run_of, look)
    assert looks[2] >= looks[0] + 0.15  # a look before and one after the step, without the map and with it


def test_the_modality_that_tells_tastes_begins_with_more_mass() -> None:
    videos = [catalogue()[f"{n:03d}"] for n in range(VIDEOS)]
    starts = starts_of(videos, NETWORK, StartConfig())
    _, masses = mapped_starts(videos, places(), NETWORK, MappingConfig(share=1.0, ridge=1.0), starts)
    assert masses["text"] > 1.1 * masses["audio"]


def test_no_share_of_behaviour_leaves_the_start_as_it_was() -> None:
    videos = [catalogue()[f"{n:03d}"] for n in range(VIDEOS)]
    starts = starts_of(videos, NETWORK, StartConfig())
    found, masses = mapped_starts(videos, places(), NETWORK, MappingConfig(share=0.0), starts)
    assert found == starts
    assert masses == {"audio": 1.0, "text": 1.0}


def test_factors_are_those_of_the_whole_decomposition() -> None:
    watched = [np.array([0, 1, 2]), np.array([1, 2]), np.array([4]), np.array([0, 4, 5]), np.array([2, 5])]
    found = item_factors(watched, 7, 8)
    counts = np.zeros((5, 7))
    for person, history in enumerate(watched):
        counts[person, history] = 1
    shares = counts / np.sqrt(counts.sum(axis=1, keepdims=True) * np.maximum(counts.sum(axis=0), 1))
    _, values, right = np.linalg.svd(shares, full_matrices=False)
    gram = (right.T * values) @ right  # the inner products of right vectors by the root of their singular values
    np.testing.assert_allclose(found @ found.T, gram / np.trace(gram) * 5, atol=1e-9)
    assert not found[[3, 6]].any()  # nobody saw them
    assert found.shape == (7, 8)


def test_a_modality_that_nobody_has_changes_nothing_and_is_no_error() -> None:
    videos = {name: {"text": tokens["text"]} for name, tokens in catalogue().items()}
    config = CONFIG.model_copy(update={"steps": 2, "mapping": MappingConfig(share=1.0)})
    result = train_on_histories(videos, histories(), NETWORK, config)
    vectors = result.fusion.vectors([videos[name] for name in sorted(videos)])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert new_found(vectors) > 0.5
