"""The attention network: what holds for any tokens and any weights, and where its training begins."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from fusion.attention import FusionConfig, ModalityPriors, fuse
from fusion.batches import batch_of, kept_places
from fusion.network import AttentionNetwork, NetworkConfig, TokenBatch
from store.records import MODALITIES, Float32, Modality, Tokens

WIDTHS: dict[str, int] = {"vision": 40, "audio": 24, "text": 33}
CONFIG = NetworkConfig(widths=WIDTHS, dim=64, width=16, heads=2, layers=2, queries=3)


def tokens_of(count: int, width: int, seed: int) -> Tokens:
    generator = np.random.default_rng([seed, width])
    start = np.sort(generator.uniform(0, 30, count)).astype(np.float32)
    salience = generator.uniform(0.05, 1, count).astype(np.float32)
    embeddings = generator.standard_normal((count, width)).astype(np.float32)
    return Tokens(embeddings, start, start + np.float32(1), salience)


def video(seed: int, **counts: int) -> dict[str, Tokens]:
    return {name: tokens_of(count, WIDTHS[name], seed) for name, count in counts.items()}


def network(config: NetworkConfig = CONFIG, seed: int = 1, size: float = 0.3) -> AttentionNetwork:
    """A network with other weights than those that training begins with, so that every part of it counts."""
    made = AttentionNetwork(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return made.eval()


@torch.inference_mode()
def run(made: AttentionNetwork, *videos: Mapping[str, Tokens]) -> tuple[Float32, Float32]:
    vectors, weights, _ = made(batch_of(videos, made.config))
    return vectors.numpy(), weights.numpy()


def padded(batch: TokenBatch, more: int) -> TokenBatch:
    """The same batch with `more` columns of garbage behind each modality, not given."""
    embeddings, columns, first = {}, [], 0
    total = batch.given.shape[1]
    for name, part in batch.embeddings.items():
        embeddings[name] = torch.cat([part, torch.full((len(part), more, part.shape[2]), 7.5)], dim=1)
        columns += [*range(first, first + part.shape[1]), *[total] * more]
        first += part.shape[1]

    def widened(tensor: torch.Tensor, value: float) -> torch.Tensor:
        filled = torch.full((len(tensor), 1), value).to(tensor.dtype)
        return torch.cat([tensor, filled], dim=1)[:, columns]

    return TokenBatch(
        embeddings,
        widened(batch.salience, 0.9),
        widened(batch.given, 0.0),
        widened(batch.start, 5.0),
        widened(batch.end, 9.0),
        batch.duration,
    )


VIDEOS = (
    video(1, vision=5, audio=3, text=2),
    video(2, vision=1),
    video(3, audio=7, text=1),
    video(4, text=4),
)


def test_weights_are_not_negative_and_sum_to_one_and_vectors_have_unit_length() -> None:
    vectors, weights = run(network(), *VIDEOS)
    assert (weights >= 0).all()
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_padding_and_company_do_not_change_the_result() -> None:
    made = network()
    together, _ = run(made, *VIDEOS)
    alone = np.concatenate([run(made, one)[0] for one in VIDEOS])
    assert np.abs(together - alone).max() < 1e-6
    with torch.inference_mode():
        wider = made(padded(batch_of(VIDEOS, CONFIG), 9))[0].numpy()
    assert np.abs(together - wider).max() < 1e-6


def test_a_missing_modality_is_absent_and_not_zero() -> None:
    made = network()
    absent, _ = run(made, video(5, vision=4, text=2))
    empty, _ = run(made, {**video(5, vision=4, text=2), "audio": Tokens.none(WIDTHS["audio"])})
    assert np.abs(absent - empty).max() < 1e-6
    zeros = Tokens(np.zeros((3, WIDTHS["audio"]), np.float32), *[np.full(3, 0.5, np.float32)] * 3)
    directionless, weights = run(made, {**video(5, vision=4, text=2), "audio": zeros})
    assert not weights[0, :3].any()
    assert np.abs(absent - directionless).max() < 1e-6


def test_tokens_that_are_left_out_might_never_have_been_given() -> None:
    made = network()
    whole = video(6, vision=6, audio=3)
    part = whole["vision"]
    fewer = Tokens(part.embeddings[::2], part.start_seconds[::2], part.end_seconds[::2], part.salience[::2])
    kept = torch.tensor([[True] * 3 + [True, False] * 3])
    batch = batch_of([whole], CONFIG)
    with torch.inference_mode():
        weights = made.weights(made.project(batch), kept).numpy()[0]
        expected = made(batch_of([{**whole, "vision": fewer}], CONFIG, [float(batch.duration)]))[1].numpy()[0]
    assert np.allclose(weights[kept[0].numpy()], expected, atol=1e-6)
    assert not weights[~kept[0].numpy()].any()


def test_repeating_every_token_changes_nothing() -> None:
    made = network()
    once = video(7, vision=3, text=2)
    twice = {
        name: Tokens(*(np.repeat(getattr(part, array), 2, axis=0) for array in part.__dataclass_fields__))
        for name, part in once.items()
    }
    assert np.abs(run(made, once)[0] - run(made, twice)[0]).max() < 1e-5


def test_the_other_modalities_have_a_say_in_the_weights_of_one() -> None:
    made = network()
    first, second = video(8, vision=4, audio=3), video(9, vision=4, audio=3)
    share = run(made, first)[1][0, 3:]
    other = run(made, {"vision": first["vision"], "audio": second["audio"]})[1][0, 3:]
    assert np.abs(share / share.sum() - other / other.sum()).max() > 1e-3


@pytest.mark.parametrize("present", [("vision",), ("audio", "text"), MODALITIES])
def test_the_training_free_attention_is_one_of_its_beginnings(present: tuple[Modality, ...]) -> None:
    priors = ModalityPriors()
    config = NetworkConfig(
        widths=WIDTHS, dim=64, priors=priors.model_dump(), centrality=2.0, fullness=1.0, coherence=0.0
    )
    tokens = {name: tokens_of(5, WIDTHS[name], 3) for name in present}
    known = fuse(tokens, {name: ["given"] * 5 for name in present}, FusionConfig(dim=64, priors=priors))
    vector, weights = run(AttentionNetwork(config), tokens)
    assert np.abs(vector[0] - known.vector).max() < 1e-5
    assert np.allclose(np.sort(weights[0]), np.sort(known.weights), atol=1e-5)


def test_it_begins_with_the_sum_of_the_modalities_directions() -> None:
    tokens = video(5, vision=4, audio=3, text=2)
    made = AttentionNetwork(CONFIG)
    alone = [run(made, {name: part})[0][0] for name, part in tokens.items()]
    total = np.sum(alone, axis=0)
    assert np.abs(run(made, tokens)[0][0] - total / np.linalg.norm(total)).max() < 1e-5


def test_any_names_and_widths() -> None:
    widths = {"a.b c": 1, "vggish": 128, "überschrift": 3}
    made = network(NetworkConfig(widths=widths, dim=16, width=8, heads=1, layers=1))
    found = {name: tokens_of(1, width, 1) for name, width in widths.items()}
    vectors, weights = run(made, found, {"vggish": found["vggish"]})
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-6)


def test_huge_and_tiny_embeddings_are_directions_too() -> None:
    made = network()
    plain = video(3, vision=3)
    part = plain["vision"]
    for factor in (1e30, 1e-20):
        scaled = Tokens(
            (part.embeddings * np.float32(factor)).astype(np.float32),
            part.start_seconds,
            part.end_seconds,
            part.salience,
        )
        assert np.abs(run(made, plain)[0] - run(made, {"vision": scaled})[0]).max() < 1e-5


def test_gradients_are_finite_where_modalities_are_missing() -> None:
    made = network()
    vectors, weights, _ = made(batch_of(VIDEOS, CONFIG))
    (vectors.square().sum() + weights.max() + vectors[0, 0]).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in made.parameters() if parameter.grad is not None)


def test_of_too_many_tokens_the_most_salient_are_kept_and_equals_are_spread_out() -> None:
    salience = np.linspace(0, 1, 10, dtype=np.float32)
    assert kept_places(salience, 3).tolist() == [7, 8, 9]
    even = kept_places(np.full(1000, 0.5, np.float32), 8)
    assert len(set(even.tolist())) == 8
    assert np.diff(even).max() < 260
    assert even[-1] > 600


@pytest.mark.parametrize(
    "wrong", [{"widths": {}}, {"widths": {"a": 0}}, {"dim": 100}, {"heads": 3}, {"priors": {"a": 0.0}}, {"hedas": 1}]
)
def test_configurations_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        NetworkConfig.model_validate({"widths": {"a": 4}} | wrong)


def test_the_config_goes_to_json_and_back() -> None:
    assert NetworkConfig.model_validate_json(CONFIG.model_dump_json()) == CONFIG
