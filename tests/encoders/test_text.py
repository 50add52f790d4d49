"""MiniLM against the library that it was made with; tokens, salience; no network and no noise."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encoders.text import DIM, TextConfig, TextEncoder
from encoders.weights import WEIGHTS, locate
from store.records import TextPiece

TEXTS = (
    "A dog runs along the beach.",
    "Stock markets fell sharply on Monday.",
    "",
    "Ein Hund läuft am Strand.",
    "海辺を走る犬",
    "word " * 600,
    *(f"Sentence {number} is about " + "many " * number + "things" for number in range(0, 36, 3)),
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return TextEncoder(TextConfig(), tmp_path_factory.mktemp("cache"))


@pytest.mark.models
def test_vectors_are_those_of_sentence_transformers(encoder: TextEncoder, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(locate(WEIGHTS["minilm-l6-v2"], tmp_path)), device="cpu")
    expected = reference.encode(list(TEXTS), normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(encoder.embed(TEXTS), expected, atol=1e-5)


@pytest.mark.models
def test_a_vector_does_not_depend_on_its_batch(encoder: TextEncoder) -> None:
    together = encoder.embed(TEXTS)
    assert together.dtype == np.float32
    assert together.shape == (len(TEXTS), DIM)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([encoder.embed([text]) for text in TEXTS]), together, atol=1e-5)
    np.testing.assert_allclose(encoder.embed(TEXTS[::-1])[::-1], together, atol=1e-5)
    assert encoder.embed(TEXTS).tobytes() == together.tobytes()
    assert encoder.embed([]).shape == (0, DIM)


@pytest.mark.models
def test_what_is_longer_than_the_model_reads_is_cut_off(encoder: TextEncoder) -> None:
    long, cut, shorter = encoder.embed(["word " * 600, "word " * 254, "word " * 200])  # 254 and the two ends are 256
    np.testing.assert_allclose(long, cut, atol=1e-6)
    assert np.abs(long - shorter).max() > 1e-4


@pytest.mark.models
def test_like_meanings_are_near(encoder: TextEncoder) -> None:
    dog, puppy, stocks = encoder.embed(["A dog runs along the beach.", "A puppy at the seaside", "share prices fall"])
    assert dog @ puppy > dog @ stocks + 0.25


@pytest.mark.models
def test_pieces_become_tokens(encoder: TextEncoder) -> None:
    pieces = [
        TextPiece(source="title", text="Beetle"),
        TextPiece(source="caption", text="the the and of it"),
        TextPiece(source="transcript", text="red green blue red green blue"),
        TextPiece(
            source="caption", text="Plows harvesters tractors engines wheels fields barns farmers seeds and rain clouds"
        ),
    ]
    tokens = encoder(pieces, [0.0, 1.0, 2.5, 4.0], [9.0, 2.0, 4.0, 5.0])
    np.testing.assert_array_equal(tokens.embeddings, encoder.embed([piece.text for piece in pieces]))
    assert tokens.start_seconds.tolist() == [0.0, 1.0, 2.5, 4.0]
    assert tokens.end_seconds.tolist() == [9.0, 2.0, 4.0, 5.0]
    assert tokens.salience.tolist() == pytest.approx([0.2, 0.0, 1 - 0.8**3, 1 - 0.8**11], abs=1e-6)
    assert len(encoder([], [], [])) == 0


OFFLINE = """
import hashlib, socket, sys
from pathlib import Path

def refuse(*_args, **_keywords):
    raise AssertionError("somebody reached for the network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from encoders.text import TextConfig, TextEncoder

vectors = TextEncoder(TextConfig(), Path(sys.argv[1])).embed(["no network", "and no noise, whatever the company"])
print(hashlib.sha256(vectors.tobytes()).hexdigest())
"""


@pytest.mark.models
def test_another_process_gives_the_same_bytes_without_network_and_without_a_word(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    found = subprocess.run([sys.executable, "-c", OFFLINE, str(tmp_path)], capture_output=True, text=True, check=True)
    expected = encoder.embed(["no network", "and no noise, whatever the company"])
    assert found.stdout == hashlib.sha256(expected.tobytes()).hexdigest() + "\n"
    assert found.stderr == ""


def test_importing_encoders_loads_no_heavy_library() -> None:
    code = """
import sys
import encoders.catalogue, encoders.efficientnet_lite, encoders.keywords, encoders.text, encoders.vision
print(sorted({"torch", "torchvision", "transformers", "huggingface_hub"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
