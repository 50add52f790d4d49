"""A trained fusion as an object: what it fuses, what it refuses, and what it is called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from fusion.attention import Fused, FusionConfig, fuse
from fusion.network import AttentionNetwork, NetworkConfig
from fusion.trained import TrainedFusion
from store.errors import InputError, ModelError
from store.records import Modality, Tokens
from tests.fusion.test_network import tokens_of

WIDTHS: dict[Modality, int] = {"vision": 40, "audio": 24, "text": 33}
CONFIG = NetworkConfig(widths={**WIDTHS}, dim=64, width=16, heads=2, layers=1, queries=3, token_limit=12)


def fusion_of(seed: int = 1, config: NetworkConfig = CONFIG) -> TrainedFusion:
    network = AttentionNetwork(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return TrainedFusion.of(network)


FUSION = fusion_of()


def video(seed: int, **counts: int) -> dict[Modality, Tokens]:
    names: tuple[Modality, ...] = ("vision", "audio", "text")
    return {name: tokens_of(counts[name], WIDTHS[name], seed) for name in names if name in counts}


def sources(tokens: dict[Modality, Tokens]) -> dict[Modality, list[str]]:
    return {name: [f"{name}-{place}" for place in range(len(part))] for name, part in tokens.items()}


def fused(tokens: dict[Modality, Tokens], fusion: TrainedFusion = FUSION) -> Fused:
    return fusion.fuse(tokens, sources(tokens))


VIDEOS = [
    video(1, vision=5, audio=3, text=2),
    video(2, vision=1),
    video(3, audio=7, text=1),
    video(4, text=4),
    *(video(number, vision=number % 9 + 1, text=number % 4 + 1) for number in range(5, 40)),
]


def test_the_vector_is_made_with_the_weights_and_vectors_that_it_reports() -> None:
    for tokens in VIDEOS[:6]:
        result = fused(tokens)
        again = result.weights.astype(np.float64) @ result.token_vectors.astype(np.float64)
        assert np.abs(again / np.linalg.norm(again) - result.vector).max() < 1e-6
        assert (result.weights >= 0).all()
        assert result.weights.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)
        assert sum(result.attributes.attention.values()) == pytest.approx(1, abs=1e-6)
        assert np.linalg.norm(result.vector) == pytest.approx(1, abs=1e-6)


def test_the_record_is_that_of_the_training_free_fusion_in_the_same_order() -> None:
    tokens = VIDEOS[0]
    trained, free = fused(tokens), fuse(tokens, sources(tokens), FusionConfig(dim=64))
    assert trained.attributes.tokens == free.attributes.tokens
    assert trained.attributes.attention.keys() == free.attributes.attention.keys()
    turned = dict(reversed(list(tokens.items())))
    assert fused(turned).vector.tobytes() == trained.vector.tobytes()


def test_many_at_once_are_as_one_by_one_and_one_by_one_are_the_same_bytes() -> None:
    one_by_one = [fused(tokens) for tokens in VIDEOS]
    many = FUSION.fuse_many([(tokens, sources(tokens)) for tokens in VIDEOS])
    for one, other in zip(one_by_one, many, strict=True):
        assert np.abs(one.vector - other.vector).max() < 1e-5
        assert np.abs(one.weights - other.weights).max() < 1e-5
        assert one.attributes.tokens == other.attributes.tokens
    for tokens, one in zip(VIDEOS[:5], one_by_one, strict=False):
        assert fused(tokens).vector.tobytes() == one.vector.tobytes()
    assert FUSION.fuse_many([]) == []


def test_bytes_go_there_and_back_and_the_version_is_the_content() -> None:
    data = FUSION.to_bytes()
    again = TrainedFusion.from_bytes(data, FUSION.version)
    assert again.to_bytes() == data
    assert again.version == FUSION.version
    assert fused(VIDEOS[0], again).vector.tobytes() == fused(VIDEOS[0]).vector.tobytes()
    assert fusion_of(2).version != FUSION.version
    assert fusion_of(1).version == FUSION.version


def refused(data: bytes, version: str = "") -> str:
    with pytest.raises(ModelError) as raised:
        TrainedFusion.from_bytes(data, version)
    return raised.value.code


@pytest.mark.parametrize("data", [b"", b"\x00" * 7, b"\xff" * 200, b"not a fusion at all" * 10])
def test_what_is_no_fusion_is_refused(data: bytes) -> None:
    assert refused(data) == "model.damaged"


def test_damage_anywhere_is_seen() -> None:
    data = FUSION.to_bytes()
    assert refused(data[: len(data) // 2]) == "model.damaged"
    for place in range(200, len(data), len(data) // 23):
        flipped = data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :]
        assert refused(flipped) in ("model.damaged", "fusion.bad_checkpoint")
    assert refused(data, "0" * 16) == "model.damaged"


def resealed(fusion: TrainedFusion, **changed: object) -> bytes:
    """The object of a fusion whose insides were changed, with a digest that fits."""
    for name, value in changed.items():
        setattr(fusion, name, value)
    return fusion.to_bytes()


def test_a_network_that_does_not_give_its_stored_vectors_is_refused() -> None:
    probes = {name: array.copy() for name, array in FUSION._probes.items()}
    probes["1.vector"] = -probes["1.vector"]
    assert refused(resealed(fusion_of(), _probes=probes)) == "fusion.bad_checkpoint"
    assert refused(resealed(fusion_of(), _probes={})) == "fusion.bad_checkpoint"
    other = fusion_of(2)
    assert refused(resealed(other, _probes=dict(FUSION._probes))) == "fusion.bad_checkpoint"


def test_a_network_of_another_shape_is_refused() -> None:
    data = FUSION.to_bytes()
    length = int.from_bytes(data[:8], "little")
    facts = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["reelsense"])
    facts["network"]["dim"] = 128
    assert refused(save(load(data), metadata={"reelsense": json.dumps(facts)})) == "fusion.bad_checkpoint"
    facts["network"]["dim"] = 63
    assert refused(save(load(data), metadata={"reelsense": json.dumps(facts)})) == "fusion.bad_checkpoint"
    facts["format"] = 99
    assert refused(save(load(data), metadata={"reelsense": json.dumps(facts)})) == "fusion.bad_checkpoint"


def test_weights_that_are_not_finite_are_never_served() -> None:
    network = AttentionNetwork(CONFIG)
    with torch.no_grad():
        network.prior[0] = float("nan")
    with pytest.raises(ModelError) as raised:
        TrainedFusion.of(network)
    assert raised.value.code == "fusion.bad_checkpoint"


@pytest.mark.parametrize(
    "tokens",
    [
        {},
        {"vision": Tokens.none(40)},
        {"vision": Tokens(np.zeros((3, 40), np.float32), *[np.ones(3, np.float32)] * 3)},
        {"text": Tokens(np.ones((3, 33), np.float32), *[np.zeros(3, np.float32)] * 3)},
    ],
    ids=["nothing", "empty", "no direction", "no salience"],
)
def test_nothing_to_fuse_is_an_error_of_the_input(tokens: dict[Modality, Tokens]) -> None:
    with pytest.raises(InputError) as raised:
        fused(tokens)
    assert raised.value.code == "fusion.no_tokens"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("array", ["embeddings", "salience", "start_seconds", "end_seconds"])
def test_numbers_that_are_not_finite_are_refused(bad: float, array: str) -> None:
    tokens = video(1, vision=3, text=2)
    arrays = {name: getattr(tokens["text"], name).copy() for name in Tokens.__dataclass_fields__}
    arrays[array].flat[1] = bad
    with pytest.raises(ModelError) as raised:
        fused({**tokens, "text": Tokens(**arrays)})
    assert raised.value.code == "fusion.not_finite"


def test_tokens_of_another_width_are_refused_and_the_message_says_which() -> None:
    with pytest.raises(ModelError, match="text 33") as raised:
        fused({"text": tokens_of(3, 34, 1)})
    assert raised.value.code == "fusion.bad_checkpoint"


def test_sources_must_fit_the_tokens() -> None:
    with pytest.raises(ValueError, match="3 tokens, 2 sources"):
        FUSION.fuse({"text": tokens_of(3, 33, 1)}, {"text": ["title", "tags"]})


def test_of_too_many_tokens_the_most_salient_are_attended_to() -> None:
    part = tokens_of(40, 40, 1)
    result = fused({"vision": part})
    attended = np.flatnonzero(result.weights)
    assert len(attended) == 12
    assert set(attended) == set(np.argsort(-part.salience)[:12])
    assert not result.token_vectors[np.setdiff1d(np.arange(40), attended)].any()
    assert len(result.attributes.tokens) == 40
    fewer = Tokens(*(getattr(part, name)[attended] for name in Tokens.__dataclass_fields__))
    longest = part.end_seconds.max() == fewer.end_seconds.max()
    if longest:
        assert np.abs(fused({"vision": fewer}).vector - result.vector).max() < 1e-6


def test_a_great_many_tokens_cost_no_more_than_the_limit_allows() -> None:
    crowd = tokens_of(200_000, 40, 1)
    result = fused({"vision": crowd})
    assert np.count_nonzero(result.weights) == 12


def test_tokens_that_cancel_out_still_give_a_unit_vector() -> None:
    config = NetworkConfig(widths={"text": 33}, dim=64)
    plain = TrainedFusion.of(AttentionNetwork(config))
    row = tokens_of(1, 33, 3).embeddings
    times = [np.zeros(2, np.float32)] * 2
    result = fused({"text": Tokens(np.concatenate([row, -row]), *times, np.ones(2, np.float32))}, plain)
    assert np.linalg.norm(result.vector) == pytest.approx(1, abs=1e-6)
    again = result.weights @ result.token_vectors
    assert np.abs(again / np.linalg.norm(again) - result.vector).max() < 1e-5


def test_importing_the_module_loads_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, fusion.trained, fusion.attention; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0
