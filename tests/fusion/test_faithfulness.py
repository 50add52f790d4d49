"""Deletion curves: that they rise, and that they tell true weights from made-up ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from fusion.faithfulness import deletion
from fusion.network import AttentionNetwork, NetworkConfig
from fusion.trained import TrainedFusion
from store.records import Float32, Tokens
from tests.fusion.synthetic import WIDTHS, planted

FUSION = TrainedFusion.of(AttentionNetwork(NetworkConfig(widths=WIDTHS, dim=32, width=16, heads=2)))


def uneven(number: int) -> dict[str, Tokens]:
    tokens = planted(number)
    random = np.random.default_rng(number)
    return {
        name: Tokens(
            part.embeddings,
            part.start_seconds,
            part.end_seconds,
            random.uniform(0.02, 1, len(part)).astype(np.float32) ** 2,
        )
        for name, part in tokens.items()
    }


VIDEOS = [uneven(number) for number in range(6)]


def backwards(tokens: Mapping[str, Tokens]) -> tuple[Float32, Mapping[str, Float32]]:
    """The same vectors, explained by weights that are turned about."""
    vector, weights = FUSION.fuse_any(tokens)
    return vector, {name: 1 - part for name, part in weights.items()}


def test_weights_that_made_the_vector_are_faithful_and_turned_about_they_are_not() -> None:
    true = deletion(VIDEOS, FUSION.fuse_any)
    assert true.gain > 0.02
    assert (true.by_weight > true.at_random).all()
    assert deletion(VIDEOS, backwards).gain < 0
    assert true.random_area == pytest.approx(deletion(VIDEOS, backwards).random_area)


def test_videos_of_two_tokens_have_no_curve() -> None:
    short = {"vision": Tokens(*(getattr(VIDEOS[0]["vision"], name)[:2] for name in Tokens.__dataclass_fields__))}
    with pytest.raises(ValueError, match="three tokens"):
        deletion([short], FUSION.fuse_any)
