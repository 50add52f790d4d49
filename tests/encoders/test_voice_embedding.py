"""The voice model: the same vectors as the package it comes from, whatever else is in the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.audio_reference import read
from encoders.voice_embedding import PIECE_FRAMES, VOICE_DIM, VoiceEmbedding, mel_power, raising
from encoders.weights import WEIGHTS, locate
from store.records import Float32

# What Resemblyzer 0.1.4's own `VoiceEncoder.embed_utterance` gives for ljspeech_0001.wav: of the
# fourth of its partials, which begins 2.31 s into the clip: its eight largest values and two that are none.
REFERENCE_START_FRAME = 231
REFERENCE = {
    0: 0.000000,
    3: 0.000000,
    10: 0.176763,
    16: 0.202436,
    81: 0.296151,
    87: 0.179316,
    102: 0.194380,
    150: 0.205060,
    169: 0.230301,
    180: 0.171815,
}


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> VoiceEmbedding:
    return VoiceEmbedding(tmp_path_factory.mktemp("cache"))


def pieces_of(media: Path, name: str) -> Float32:
    samples = read(media / "audio" / name, 16000)
    assert samples is not None
    mel = mel_power(samples[0])
    return np.stack([mel[start : start + PIECE_FRAMES] for start in range(0, len(mel) - PIECE_FRAMES + 1, 33)])


@pytest.mark.models
def test_vectors_are_those_of_the_package(embedding: VoiceEmbedding, shared_media: Path) -> None:
    found = embedding(pieces_of(shared_media, "ljspeech_0001.wav")[REFERENCE_START_FRAME // 33][None])[0]
    assert found.shape == (VOICE_DIM,)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    assert {place: float(found[place]) for place in REFERENCE} == pytest.approx(REFERENCE, abs=1e-4)


@pytest.mark.models
def test_a_voice_does_not_hang_on_its_batch(embedding: VoiceEmbedding, shared_media: Path) -> None:
    pieces = pieces_of(shared_media, "ljspeech_0004.wav")
    whole = embedding(pieces)
    assert embedding(pieces[::-1].copy())[::-1].tobytes() == whole.tobytes()
    assert np.concatenate([embedding(piece[None]) for piece in pieces]).tobytes() == whole.tobytes()
    assert embedding(pieces[:0]).shape == (0, VOICE_DIM)


@pytest.mark.models
def test_silence_has_a_finite_vector(embedding: VoiceEmbedding) -> None:
    found = embedding(np.zeros((1, PIECE_FRAMES, 40), np.float32))
    assert np.isfinite(found).all()


@pytest.mark.models
def test_weights_are_found_by_their_digest(tmp_path: Path) -> None:
    assert locate(WEIGHTS["resemblyzer-voice"], tmp_path).stat().st_size == WEIGHTS["resemblyzer-voice"].bytes


def test_quiet_is_raised_and_loud_stays() -> None:
    noise = np.random.default_rng(1).normal(0, 1, 16000).astype(np.float32)
    quiet = noise * np.float32(0.001)
    assert 20 * np.log10(raising(quiet) * np.sqrt(np.mean(quiet**2))) == pytest.approx(-30, abs=0.01)
    assert raising(noise) == raising(np.zeros(10, np.float32)) == raising(noise[:0]) == 1.0
