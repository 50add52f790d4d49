"""Fusion: properties that hold for any tokens, and the sense it makes of planted ones."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.attention import Fused, FusionConfig, fuse
from store.errors import InputError, ModelError
from store.records import MODALITIES, Float32, Modality, Tokens

WIDTHS: dict[Modality, int] = {"vision": 300, "audio": 24, "text": 64}
CONFIG = FusionConfig()


def tokens_of(embeddings: Float32, salience: Float32 | float = 0.7) -> Tokens:
    count = len(embeddings)
    start = np.arange(count, dtype=np.float32)
    filled = np.full(count, salience, np.float32) if isinstance(salience, float) else salience
    return Tokens(embeddings.astype(np.float32), start, start + 1, filled)


def random_tokens(modality: Modality, count: int, seed: int) -> Tokens:
    generator = np.random.default_rng([seed, MODALITIES.index(modality)])
    embeddings = generator.standard_normal((count, WIDTHS[modality])).astype(np.float32)
    return tokens_of(embeddings, generator.uniform(0.05, 1, count).astype(np.float32))


def fused(tokens: Mapping[Modality, Tokens], config: FusionConfig = CONFIG) -> Fused:
    return fuse(tokens, {modality: ["given"] * len(part) for modality, part in tokens.items()}, config)


def picked(part: Tokens, order: np.ndarray) -> Tokens:
    return Tokens(part.embeddings[order], part.start_seconds[order], part.end_seconds[order], part.salience[order])


counts = st.fixed_dictionaries({modality: st.integers(0, 6) for modality in MODALITIES}).filter(
    lambda found: sum(found.values()) > 0
)
seeds = st.integers(0, 2**32)


def make(found: Mapping[Modality, int], seed: int) -> dict[Modality, Tokens]:
    return {modality: random_tokens(modality, count, seed) for modality, count in found.items()}


@settings(deadline=None, max_examples=60)
@given(counts, seeds)
def test_unit_vector_and_weights_that_sum_to_one(found: dict[Modality, int], seed: int) -> None:
    tokens = make(found, seed)
    result = fused(tokens)
    assert result.vector.shape == (256,)
    assert result.vector.dtype == result.weights.dtype == result.token_vectors.dtype == np.float32
    assert np.linalg.norm(result.vector.astype(np.float64)) == pytest.approx(1, abs=1e-6)
    assert (result.weights >= 0).all()
    assert result.weights.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    assert [token.modality for token in result.attributes.tokens] == [
        modality for modality in MODALITIES for _ in range(found[modality])
    ]
    sums = dict.fromkeys((modality for modality in MODALITIES if found[modality]), 0.0)
    for token, weight in zip(result.attributes.tokens, result.weights, strict=True):
        sums[token.modality] += float(weight)
    assert result.attributes.attention == pytest.approx(sums, abs=1e-7)


@settings(deadline=None, max_examples=40)
@given(counts, seeds)
def test_the_vector_is_made_with_the_weights_it_reports(found: dict[Modality, int], seed: int) -> None:
    result = fused(make(found, seed))
    again = result.weights.astype(np.float64) @ result.token_vectors.astype(np.float64)
    assert np.allclose(again / np.linalg.norm(again), result.vector, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(counts, seeds)
def test_same_bytes_whatever_the_order_of_modalities_and_with_empty_ones_left_out(
    found: dict[Modality, int], seed: int
) -> None:
    tokens = make(found, seed)
    result = fused(tokens)
    turned = {modality: tokens[modality] for modality in reversed(MODALITIES) if len(tokens[modality])}
    other = fused(turned)
    assert result.vector.tobytes() == other.vector.tobytes()
    assert result.weights.tobytes() == other.weights.tobytes()
    assert result.attributes == other.attributes
    assert set(result.attributes.attention) == set(turned)


@settings(deadline=None, max_examples=40)
@given(counts, seeds, st.randoms(use_true_random=False))
def test_the_order_of_tokens_within_a_modality_does_not_change_the_vector(
    found: dict[Modality, int], seed: int, random: Random
) -> None:
    tokens = make(found, seed)
    shuffled = {}
    for modality, part in tokens.items():
        order = list(range(len(part)))
        random.shuffle(order)
        shuffled[modality] = picked(part, np.array(order, np.int64))
    assert np.allclose(fused(tokens).vector, fused(shuffled).vector, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(counts, seeds, st.integers(2, 5))
def test_repeating_all_tokens_of_a_modality_changes_nothing(found: dict[Modality, int], seed: int, times: int) -> None:
    tokens = make(found, seed)
    longer = dict(tokens)
    longer["vision"] = picked(tokens["vision"], np.tile(np.arange(len(tokens["vision"])), times))
    once, many = fused(tokens), fused(longer)
    assert many.attributes.attention == pytest.approx(once.attributes.attention, abs=1e-6)
    assert np.allclose(once.vector, many.vector, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(seeds, st.integers(1, 6), st.floats(0.01, 0.5), st.floats(1.1, 2.0))
def test_more_salience_gets_more_weight(seed: int, count: int, low: float, factor: float) -> None:
    tokens = make({"vision": count, "audio": 2, "text": 2}, seed)
    part = tokens["vision"]

    def weight(salience: float) -> float:
        changed = part.salience.copy()
        changed[0] = salience
        twisted = {**tokens, "vision": Tokens(part.embeddings, part.start_seconds, part.end_seconds, changed)}
        return float(fused(twisted).weights[0])

    assert weight(0.0) == 0.0
    assert weight(0.0) < weight(low) < weight(low * factor)


@settings(deadline=None, max_examples=30)
@given(seeds, st.floats(-30, 30))
def test_the_scale_of_an_embedding_does_not_matter(seed: int, exponent: float) -> None:
    tokens = make({"vision": 3, "audio": 2, "text": 2}, seed)
    part = tokens["audio"]
    scaled = (part.embeddings.astype(np.float64) * 10.0**exponent).astype(np.float32)
    grown = {**tokens, "audio": Tokens(scaled, part.start_seconds, part.end_seconds, part.salience)}
    assert np.allclose(fused(tokens).vector, fused(grown).vector, atol=1e-5)


def test_a_lone_odd_token_gets_less_than_one_of_many_alike() -> None:
    generator = np.random.default_rng(0)
    topic, odd = generator.standard_normal((2, WIDTHS["vision"]))
    rows = np.stack([topic + 0.3 * generator.standard_normal(WIDTHS["vision"]) for _ in range(5)] + [odd])
    weights = fused({"vision": tokens_of(rows)}).weights
    assert weights[5] < 0.5 * weights[:5].min()


def test_a_mostly_empty_modality_gets_little() -> None:
    full = make({"vision": 4, "audio": 10, "text": 4}, 5)
    part = full["audio"]
    silent = np.zeros(10, np.float32)
    silent[0] = part.salience[0]
    hushed = {**full, "audio": Tokens(part.embeddings, part.start_seconds, part.end_seconds, silent)}
    assert fused(hushed).attributes.attention["audio"] < 0.5 * fused(full).attributes.attention["audio"]


def test_equal_modalities_share_by_their_priors() -> None:
    tokens = {modality: tokens_of(random_tokens(modality, 3, 1).embeddings) for modality in MODALITIES}
    attention = fused(tokens).attributes.attention
    assert attention == pytest.approx({"vision": 0.45, "audio": 0.15, "text": 0.4}, abs=1e-6)


def topical(topic: int, seed: int, without: Modality | None = None) -> dict[Modality, Tokens]:
    tokens: dict[Modality, Tokens] = {}
    for modality, width in WIDTHS.items():
        if modality == without:
            continue
        centre = np.random.default_rng([topic, width]).standard_normal(width)
        noise = np.random.default_rng([seed, width]).standard_normal((5, width))
        tokens[modality] = tokens_of((centre + 0.7 * noise).astype(np.float32))
    return tokens


def test_videos_of_one_topic_are_nearer_than_videos_of_two_even_when_one_has_no_sound() -> None:
    vectors = {
        (topic, seed): fused(topical(topic, 100 * topic + seed, "audio" if seed == 0 else None)).vector
        for topic in range(6)
        for seed in range(4)
    }
    same = [
        float(one @ other)
        for (topic, seed), one in vectors.items()
        for (about, number), other in vectors.items()
        if topic == about and seed < number
    ]
    different = [
        float(one @ other)
        for (topic, _), one in vectors.items()
        for (about, _), other in vectors.items()
        if topic < about
    ]
    assert min(same) > max(different) + 0.2
    assert np.mean(different) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("count", [2, 4])
def test_tokens_that_cancel_out_still_give_a_unit_vector_whatever_their_order(count: int) -> None:
    row = random_tokens("text", 1, 3).embeddings
    rows = np.concatenate([row, -row] * (count // 2)).astype(np.float32)
    one = fused({"text": tokens_of(rows)})
    other = fused({"text": tokens_of(rows[::-1])})
    assert np.linalg.norm(one.vector) == pytest.approx(1, abs=1e-6)
    assert one.weights.sum() == pytest.approx(1, abs=1e-6)
    assert np.allclose(one.vector, other.vector, atol=1e-6)
    made = one.weights @ one.token_vectors
    assert np.allclose(made / np.linalg.norm(made), one.vector, atol=1e-5)


def test_a_token_without_direction_is_not_attended_to() -> None:
    rows = random_tokens("text", 3, 4).embeddings.copy()
    rows[1] = 0
    result = fused({"text": tokens_of(rows)})
    assert result.weights[1] == 0
    assert not result.token_vectors[1].any()


@pytest.mark.parametrize(
    "tokens",
    [
        {},
        {"vision": Tokens.none(300), "text": Tokens.none(64)},
        {"vision": tokens_of(np.zeros((3, 300), np.float32))},
        {"vision": tokens_of(np.ones((3, 300), np.float32), 0.0)},
    ],
    ids=["nothing", "empty", "no direction", "no salience"],
)
def test_nothing_to_fuse_is_an_error_of_the_input(tokens: dict[Modality, Tokens]) -> None:
    with pytest.raises(InputError) as raised:
        fused(tokens)
    assert raised.value.code == "fusion.no_tokens"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["embeddings", "salience"])
def test_numbers_that_are_not_finite_are_refused(bad: float, where: str) -> None:
    part = random_tokens("text", 3, 4)
    arrays = {"embeddings": part.embeddings.copy(), "salience": part.salience.copy()}
    arrays[where].flat[1] = bad
    with pytest.raises(ModelError) as raised:
        fused({"text": Tokens(arrays["embeddings"], part.start_seconds, part.end_seconds, arrays["salience"])})
    assert raised.value.code == "fusion.not_finite"


def test_sources_must_fit_the_tokens() -> None:
    with pytest.raises(ValueError, match="3 tokens, 2 sources"):
        fuse({"text": random_tokens("text", 3, 4)}, {"text": ["title", "tags"]}, CONFIG)


def test_sources_and_seconds_come_out_as_they_went_in() -> None:
    result = fuse(
        {"text": random_tokens("text", 2, 4), "vision": random_tokens("vision", 1, 4)},
        {"text": ["title", "caption"], "vision": ["frame"]},
        CONFIG,
    )
    assert [(token.modality, token.source, token.start, token.end) for token in result.attributes.tokens] == [
        ("vision", "frame", 0.0, 1.0),
        ("text", "title", 0.0, 1.0),
        ("text", "caption", 1.0, 2.0),
    ]


def test_the_config_goes_to_json_and_back_and_refuses_what_it_does_not_know() -> None:
    config = FusionConfig(seed=3, centrality_temperature=0.2)
    assert FusionConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValueError, match="temprature"):
        FusionConfig(temprature=1)  # type: ignore[call-arg]
