"""The multilingual sentence encoder: against sentence-transformers on small models, and against MiniLM's real
weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.text import TextConfig, TextEncoder
from encoders.text_sentence import SentenceConfig, SentenceEncoder
from encoders.weights import WEIGHTS, locate
from store.records import TextPiece
from tests.encoders import tiny_models

TEXTS = ("a dog runs", "stock markets fell sharply", "", "hund", "word " * 30, *("many " * n for n in range(1, 8)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.sentences(tmp_path_factory.mktemp("models") / "sentences")


def encoder_of(folder: Path, tmp_path: Path, **fields: Any) -> SentenceEncoder:
    return SentenceEncoder(SentenceConfig(model=str(folder), **fields), tmp_path)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_sentence_transformers(folder: Path, tmp_path: Path, pooling: str) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    words = Transformer(str(folder), max_seq_length=40)
    reference = SentenceTransformer(modules=[words, Pooling(32, pooling_mode=pooling), Normalize()], device="cpu")
    encoder = encoder_of(folder, tmp_path, pooling=pooling)
    for prefix, embed in (("passage: ", encoder.embed), ("query: ", encoder.embed_query)):
        expected = reference.encode([prefix + text for text in TEXTS], show_progress_bar=False)
        np.testing.assert_allclose(embed(TEXTS), expected, atol=1e-5)
    assert np.abs(encoder.embed(["dog"]) - encoder.embed_query(["dog"])).max() > 1e-3


@pytest.mark.models
def test_on_minilm_it_agrees_with_the_starter_encoder(tmp_path: Path) -> None:
    directory = locate(WEIGHTS["minilm-l6-v2"], tmp_path)
    encoder = encoder_of(directory, tmp_path, passage_prefix="", query_prefix="", max_tokens=256)
    expected = TextEncoder(TextConfig(), tmp_path).embed(TEXTS)
    np.testing.assert_allclose(encoder.embed(TEXTS), expected, atol=1e-5)
    assert encoder.dim == 384


def test_results_do_not_depend_on_the_batch(folder: Path, tmp_path: Path) -> None:
    alone, together = encoder_of(folder, tmp_path, batch_size=1), encoder_of(folder, tmp_path, batch_size=5)
    found = together.embed(TEXTS)
    assert found.shape == (len(TEXTS), together.dim)
    assert ((found * alone.embed(TEXTS)).sum(axis=1) >= 1 - 1e-5).all()
    np.testing.assert_allclose(together.embed(TEXTS[::-1])[::-1], found, atol=1e-5)
    assert together.embed(TEXTS).tobytes() == found.tobytes()
    groups = [TEXTS[:4], (), TEXTS[4:]]
    for group, vectors in zip(groups, together.encode_many(groups), strict=True):
        assert vectors.shape == (len(group), together.dim)
        np.testing.assert_allclose(vectors, alone.embed(group), atol=1e-5)
    assert together.encode_many([]) == []


def test_what_is_longer_than_the_model_reads_is_cut_off(folder: Path, tmp_path: Path) -> None:
    encoder = encoder_of(folder, tmp_path, max_tokens=512)  # the model's own 40 is less
    long, cut = encoder.embed(["word " * 600, "word " * 30])
    np.testing.assert_allclose(long, cut, atol=1e-6)
    assert np.abs(encoder_of(folder, tmp_path, max_tokens=12).embed(["word " * 30])[0] - cut).max() > 1e-4


def test_pieces_become_tokens_as_with_the_starter_encoder(folder: Path, tmp_path: Path) -> None:
    encoder = encoder_of(folder, tmp_path)
    pieces = [
        TextPiece(source="title", text="Beetle"),
        TextPiece(source="caption", text="the the and of it"),
        TextPiece(source="transcript", text="red green blue red green blue"),
    ]
    tokens = encoder(pieces, [0.0, 1.0, 2.5], [9.0, 2.0, 4.0])
    np.testing.assert_array_equal(tokens.embeddings, encoder.embed([piece.text for piece in pieces]))
    assert tokens.start_seconds.tolist() == [0.0, 1.0, 2.5]
    assert tokens.end_seconds.tolist() == [9.0, 2.0, 4.0]
    assert tokens.salience.tolist() == pytest.approx([0.2, 0.0, 1 - 0.8**3], abs=1e-6)
    assert len(encoder([], [], [])) == 0


def test_a_checkpoint_without_a_pooler_is_whole(tmp_path: Path) -> None:
    folder = tiny_models.sentences(tmp_path / "bare", pooler=False)
    keys = json.loads((folder / "model.safetensors").read_bytes()[8:].split(b"}}", 1)[0] + b"}}")
    assert not any("pooler" in key for key in keys)
    assert encoder_of(folder, tmp_path).embed(["a dog"]).shape == (1, 32)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_near(folder: Path, tmp_path: Path, precision: str) -> None:
    whole = encoder_of(folder, tmp_path).embed(TEXTS)
    half = encoder_of(folder, tmp_path, precision=precision).embed(TEXTS)
    assert half.dtype == np.float32
    assert ((whole * half).sum(axis=1) > 0.99).all()
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1.0, atol=1e-5)
