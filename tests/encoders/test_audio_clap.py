"""CLAP with small models of the real class: windows, levels, batches, and what people read of the sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.audio import AudioConfig, AudioEncoder
from encoders.audio_clap import ClapConfig, ClapEncoder
from store.artifacts import to_bytes, token_arrays
from store.records import Artifact, AudioAttributes, Sound
from tests.encoders import tiny_models

RATE_HZ = 48_000


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.clap(tmp_path_factory.mktemp("models") / "clap")


@pytest.fixture(scope="module")
def encoder(folder: Path, cache: Path) -> ClapEncoder:
    return encoder_of(folder, cache)


def encoder_of(folder: Path, cache: Path, **fields: Any) -> ClapEncoder:
    return ClapEncoder(ClapConfig(model=str(folder), **fields), cache)


def melody(seconds: float, rate_hz: int = RATE_HZ, seed: int = 7, start: float = 0.0) -> Sound:
    """Half-second notes at random pitches."""
    generator = np.random.default_rng(seed)
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    pitch = 220.0 * 2 ** (generator.integers(0, 24, int(seconds * 2) + 1) / 12)
    samples = 0.3 * np.sin(2 * np.pi * pitch[(at * 2).astype(int)] * at) * np.exp(-3 * (at % 0.5))
    return Sound(samples[np.newaxis].astype(np.float32), rate_hz, present=True, start_seconds=start)


@pytest.mark.models
def test_vectors_are_those_of_the_library(folder: Path, encoder: ClapEncoder) -> None:
    import torch
    from transformers import AutoFeatureExtractor, AutoModel

    sound = melody(20.0)
    found = encoder(sound).tokens.embeddings
    model, extractor = AutoModel.from_pretrained(folder).eval(), AutoFeatureExtractor.from_pretrained(folder)
    halves = [sound.samples[0, : 10 * RATE_HZ], sound.samples[0, 10 * RATE_HZ :]]
    with torch.inference_mode():
        inputs = extractor(halves, sampling_rate=RATE_HZ, return_tensors="pt")
        expected = model.get_audio_features(**inputs).pooler_output.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.models
@pytest.mark.parametrize(
    ("seconds", "start", "expected"),
    [(0.4, 0.0, [0.0, 0.4]), (10.0, 1.5, [1.5, 11.5]), (25.0, 0.0, [0.0, 25 / 3, 50 / 3, 25.0])],
)
def test_tokens_tile_the_sound(encoder: ClapEncoder, seconds: float, start: float, expected: list[float]) -> None:
    tokens = encoder(melody(seconds, start=start)).tokens
    np.testing.assert_allclose([*tokens.start_seconds, tokens.end_seconds[-1]], expected, atol=1e-3)
    np.testing.assert_array_equal(tokens.start_seconds[1:], tokens.end_seconds[:-1])
    np.testing.assert_allclose(np.linalg.norm(tokens.embeddings, axis=1), 1.0, atol=1e-5)
    assert (tokens.salience > 0.5).all()


@pytest.mark.models
def test_a_long_sound_has_no_more_tokens_than_allowed(folder: Path, cache: Path, encoder: ClapEncoder) -> None:
    sound = melody(40.0)
    tokens = encoder_of(folder, cache, max_windows=2)(sound).tokens
    assert tokens.end_seconds.tolist() == [20.0, 40.0]
    middle = Sound(sound.samples[:, 5 * RATE_HZ : 15 * RATE_HZ], RATE_HZ, present=True)
    np.testing.assert_allclose(tokens.embeddings[0], encoder(middle).tokens.embeddings[0], atol=1e-5)


@pytest.mark.models
def test_attributes_are_those_of_the_features(encoder: ClapEncoder, cache: Path) -> None:
    rate_hz = AudioConfig().rate_hz
    sound = melody(12.0, rate_hz)
    expected = AudioEncoder(AudioConfig(), cache)(sound).attributes
    assert encoder(sound).attributes == expected
    assert isinstance(expected, AudioAttributes)
    assert expected.present
    heard = encoder(melody(12.0)).attributes
    assert isinstance(heard, AudioAttributes)
    assert heard.key == expected.key
    assert heard.seconds_decoded == 12.0
    assert encoder.rate_hz == RATE_HZ


@pytest.mark.models
def test_sound_of_another_rate_is_resampled(encoder: ClapEncoder) -> None:
    whole, half = (encoder(melody(9.0, rate_hz)).tokens.embeddings for rate_hz in (RATE_HZ, RATE_HZ // 2))
    assert float((whole * half).sum(axis=1).min()) > 0.999


@pytest.mark.models
@pytest.mark.parametrize("fused", [False, True])
def test_results_do_not_depend_on_the_batch_or_on_chance(tmp_path: Path, cache: Path, fused: bool) -> None:
    folder = tiny_models.clap(tmp_path / "clap", fused)
    silence = Sound(np.zeros((1, RATE_HZ), np.float32), RATE_HZ, present=True)
    sounds = [melody(25.0), silence, melody(3.0, seed=8, start=2.0), melody(14.0, 16_000, seed=9)]
    alone, together = encoder_of(folder, cache, batch_size=1), encoder_of(folder, cache, batch_size=4)
    for sound, found in zip(sounds, together.encode_many(sounds), strict=True):
        expected = alone(sound)
        cosines = (found.tokens.embeddings * expected.tokens.embeddings).sum(axis=1)
        assert (cosines >= 1 - 1e-5).all()
        np.testing.assert_array_equal(found.tokens.start_seconds, expected.tokens.start_seconds)
        assert found.attributes == expected.attributes

    def artifact() -> bytes:
        encoded = together(sounds[0])
        attributes = encoded.attributes.model_dump()
        return to_bytes(Artifact("audio", "v", "0" * 32, "", attributes, token_arrays(encoded.tokens)))

    assert artifact() == artifact()


@pytest.mark.models
def test_no_sound_and_silence_have_no_tokens(encoder: ClapEncoder) -> None:
    none = np.zeros((1, 0), np.float32)
    for sound in (
        Sound(none, RATE_HZ, present=False),
        Sound(none, RATE_HZ, present=True),
        Sound(np.zeros((2, RATE_HZ), np.float32), RATE_HZ, present=True),
    ):
        encoded = encoder(sound)
        assert encoded.tokens.embeddings.shape == (0, encoder.dim)
        assert isinstance(encoded.attributes, AudioAttributes)
        assert encoded.attributes.present == sound.present
    assert encoder.encode_many([]) == []


@pytest.mark.models
def test_damage_and_opposite_channels_are_heard_as_what_they_are(encoder: ClapEncoder) -> None:
    sound = melody(4.0)
    broken = sound.samples.copy()
    broken[0, 1000:1010] = np.nan
    broken[0, 2000] = np.inf
    encoded = encoder(Sound(broken, RATE_HZ, present=True))
    assert isinstance(encoded.attributes, AudioAttributes)
    assert encoded.attributes.degraded
    assert np.isfinite(encoded.tokens.embeddings).all()
    opposite = Sound(np.concatenate([sound.samples, -sound.samples]), RATE_HZ, present=True)
    np.testing.assert_allclose(encoder(opposite).tokens.embeddings, encoder(sound).tokens.embeddings, atol=1e-5)


@pytest.mark.models
def test_words_share_the_space(encoder: ClapEncoder) -> None:
    texts = ["a dog barks", "rain", "word " * 100]
    found = encoder.embed_text(texts)
    assert found.shape == (3, encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([encoder.embed_text([text]) for text in texts]), found, atol=1e-5)


@pytest.mark.models
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_near(folder: Path, cache: Path, encoder: ClapEncoder, precision: str) -> None:
    half = encoder_of(folder, cache, precision=precision)(melody(5.0)).tokens.embeddings
    assert half.dtype == np.float32
    assert float((half * encoder(melody(5.0)).tokens.embeddings).sum()) > 0.99
