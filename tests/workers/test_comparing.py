"""The numbers that stop a job: what broken encoders make is told from what good ones make."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from store.records import Float32
from store.settings import Reembedding
from workers.comparing import Pair, compare, complaints

COUNT, DIM, TOKENS = 24, 32, 6
LIMITS = Reembedding()


def unit(rows: Float32) -> Float32:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def catalogue(seed: int = 0) -> Float32:
    """Tokens [COUNT, TOKENS, DIM] of videos that have six subjects between them: two of a subject are alike, tokens of
    one video more so."""
    random = np.random.default_rng(seed)
    subjects = random.normal(size=(6, DIM))
    videos = subjects[np.arange(COUNT) % 6] + 0.5 * random.normal(size=(COUNT, DIM))
    return (videos[:, None] + 0.3 * random.normal(size=(COUNT, TOKENS, DIM))).astype(np.float32)


def numbers_of(made: Float32, failed: int = 0) -> dict[str, object]:
    served = catalogue()
    pairs = [
        Pair(unit(old.mean(axis=0)), unit(new.mean(axis=0)), {"vision": old}, {"vision": new})
        for old, new in zip(served, made, strict=True)
    ]
    return compare(pairs, ["vision"], failed)


def another_basis(tokens: Float32) -> Float32:
    """What a better or another encoder does: other axes, another width, some noise of its own."""
    random = np.random.default_rng(7)
    turned = tokens @ random.normal(size=(DIM, 48)) + 0.5 * random.normal(size=(*tokens.shape[:2], 48))
    return turned.astype(np.float32)


def random_weights(tokens: Float32) -> Float32:
    """An encoder whose weights are noise: a deep network of large random weights, in which neighbours part."""
    random = np.random.default_rng(3)
    found = tokens
    for _ in range(12):
        found = np.tanh(found @ random.normal(scale=1.0, size=(found.shape[-1], 64)))
    return found.astype(np.float32)


def test_the_same_again_is_good() -> None:
    numbers = numbers_of(catalogue())
    assert complaints(numbers, LIMITS) == []
    assert numbers["vector"] == {"spread": 1.0, "neighbours": 1.0}


def test_another_good_encoder_is_good() -> None:
    assert complaints(numbers_of(another_basis(catalogue())), LIMITS) == []


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        (random_weights, "find each other"),
        (lambda tokens: np.random.default_rng(1).normal(size=tokens.shape).astype(np.float32), "neighbours"),
        (lambda tokens: np.ones_like(tokens) + 1e-3 * tokens, "hardly differ"),
    ],
)
def test_a_broken_encoder_is_bad(broken: Callable[[Float32], Float32], word: str) -> None:
    found = complaints(numbers_of(broken(catalogue())), LIMITS)
    assert any(word in complaint for complaint in found), found


def test_nan_is_bad_and_does_not_stop_the_numbers() -> None:
    made = catalogue()
    made[3, 2, 1] = np.nan
    numbers = numbers_of(made)
    assert complaints(numbers, LIMITS) == ["There are numbers that are NaN or infinite."]
    json.dumps(numbers, allow_nan=False)


def test_a_wrong_length_is_bad() -> None:
    pairs = [Pair(unit(item.mean(axis=0)), 2 * unit(item.mean(axis=0))) for item in catalogue()]
    assert "length 1" in complaints(compare(pairs, [], 0), LIMITS)[0]


def test_failures_count_by_their_share() -> None:
    assert complaints(numbers_of(catalogue(), failed=1), LIMITS) == []
    assert complaints(numbers_of(catalogue(), failed=6), LIMITS) == ["6 of 30 videos failed."]


def test_a_small_sample_says_less_and_not_wrong() -> None:
    pairs = [Pair(unit(item.mean(axis=0)), unit(-item.mean(axis=0))) for item in catalogue()[:3]]
    numbers = compare(pairs, ["vision"], 0)
    assert numbers["vector"]["neighbours"] is None
    assert complaints(numbers, LIMITS) == []
    assert complaints(compare([], ["vision"], 0), LIMITS) == []
