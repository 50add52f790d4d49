"""The image-text encoder with small models of the real classes: preprocessing, names, batches, precision."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from encoders.everyday_names import EVERYDAY_NAMES
from encoders.vision_siglip import ImageTextConfig, ImageTextEncoder
from store.artifacts import to_bytes, token_arrays
from store.records import Artifact, Encoded, Frames, VisionAttributes
from tests.encoders import tiny_models

NAMES = ("dog", "mountain", "city at night")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {"siglip": tiny_models.siglip(root / "siglip"), "clip": tiny_models.clip(root / "clip")}


def encoder_of(folder: Path, cache: Path, **fields: Any) -> ImageTextEncoder:
    return ImageTextEncoder(ImageTextConfig(model=str(folder), names=NAMES, min_confidence=0.0, **fields), cache)


def noise(count: int, height: int = 96, width: int = 128, seed: int = 7) -> Frames:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, height // 8, width // 8, 3), np.uint8)
    pixels = coarse.repeat(8, axis=1).repeat(8, axis=2)
    return Frames(pixels, np.arange(count, dtype=np.float64), float(count), count, count, False)


def attributes_of(encoded: Encoded) -> VisionAttributes:
    assert isinstance(encoded.attributes, VisionAttributes)
    return encoded.attributes


def bytes_of(encoded: Encoded) -> bytes:
    attributes = encoded.attributes.model_dump()
    return to_bytes(Artifact("vision", "v", "0" * 32, "", attributes, token_arrays(encoded.tokens)))


@pytest.mark.parametrize("kind", ["siglip", "clip"])
def test_vectors_and_confidences_are_those_of_the_library(folders: dict[str, Path], cache: Path, kind: str) -> None:
    """Against the model's own forward pass over pictures and words together, through PIL and its own preprocessing."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    frames = noise(3)
    encoder = encoder_of(folders[kind], cache, peak_share=0.01, prompt="{}")
    encoded = encoder(frames)
    model = AutoModel.from_pretrained(folders[kind])
    tokenizer = AutoTokenizer.from_pretrained(folders[kind])
    length = model.config.text_config.max_position_embeddings
    # The names are lower-case words without punctuation: what the encoder adds to the tokenizer changes nothing.
    texts = tokenizer(list(NAMES), padding="max_length", padding_side="right", max_length=length, return_tensors="pt")
    if kind == "siglip":
        texts.pop("attention_mask", None)
    images = AutoImageProcessor.from_pretrained(folders[kind])(
        [Image.fromarray(frame) for frame in frames.pixels], return_tensors="pt"
    )
    with torch.inference_mode():
        found = model.eval()(**texts, **images)
    np.testing.assert_allclose(encoded.tokens.embeddings, found.image_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(encoder.embed_text(list(NAMES)), found.text_embeds.numpy(), atol=1e-5)
    logits = found.logits_per_image
    expected = (logits.sigmoid() if kind == "siglip" else logits.softmax(dim=1)).max(dim=0).values.numpy()
    labels = {label.name: label.confidence for label in attributes_of(encoded).labels}
    assert labels == pytest.approx(dict(zip(NAMES, expected.tolist(), strict=True)), abs=2e-3)  # times the contrast
    assert encoder.dim == found.image_embeds.shape[1]


@pytest.mark.parametrize("kind", ["siglip", "clip"])
def test_results_do_not_depend_on_the_batch(folders: dict[str, Path], cache: Path, kind: str) -> None:
    videos = [noise(5), noise(1, seed=8), noise(0), noise(4, 64, 48, seed=9)]
    alone, together = encoder_of(folders[kind], cache, batch_size=1), encoder_of(folders[kind], cache, batch_size=7)
    many = together.encode_many(videos)
    assert len(many) == len(videos)
    for frames, found in zip(videos, many, strict=True):
        expected = alone(frames)
        cosines = (found.tokens.embeddings * expected.tokens.embeddings).sum(axis=1)
        assert cosines.shape == (len(frames.pixels),)
        assert (cosines >= 1 - 1e-5).all()
        np.testing.assert_allclose(found.tokens.salience, expected.tokens.salience, atol=1e-5)
        ours = {label.name: (label.confidence, label.seconds) for label in attributes_of(found).labels}
        theirs = {label.name: (label.confidence, label.seconds) for label in attributes_of(expected).labels}
        assert ours.keys() == theirs.keys()
        for name, (confidence, seconds) in ours.items():
            assert confidence == pytest.approx(theirs[name][0], abs=2e-4)
            assert seconds == theirs[name][1]
    assert bytes_of(together(videos[0])) == bytes_of(together(videos[0]))
    texts = ["a dog", "", "word " * 50, "two", "three", "four", "five", "six"]
    np.testing.assert_allclose(alone.embed_text(texts), together.embed_text(texts), atol=1e-5)
    assert together.embed_text([]).shape == (0, together.dim)


def test_siglip_reads_lower_case_without_punctuation_and_clip_reads_all(folders: dict[str, Path], cache: Path) -> None:
    siglip, clip = (encoder_of(folders[kind], cache) for kind in ("siglip", "clip"))
    plain, loud = siglip.embed_text(["a dog runs", "A dog, runs!"])
    np.testing.assert_array_equal(plain, loud)
    plain, loud = clip.embed_text(["a dog runs", "a dog, runs!"])
    assert np.abs(plain - loud).max() > 1e-3


def test_tokens_are_unit_vectors_that_tile_the_video(folders: dict[str, Path], cache: Path) -> None:
    encoded = encoder_of(folders["siglip"], cache)(noise(3))
    np.testing.assert_allclose(np.linalg.norm(encoded.tokens.embeddings, axis=1), 1.0, atol=1e-5)
    assert encoded.tokens.start_seconds.tolist() == [0.0, 0.5, 1.5]
    assert encoded.tokens.end_seconds.tolist() == [0.5, 1.5, 3.0]
    assert encoded.tokens.salience.min() > 0.4


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_frame_is_silent(folders: dict[str, Path], cache: Path, value: int) -> None:
    pixels = np.full((2, 300, 400, 3), value, np.uint8)
    encoded = encoder_of(folders["siglip"], cache)(Frames(pixels, np.array([0.0, 1.0]), 2.0, 2, 2, False))
    assert encoded.tokens.salience.max() == 0.0
    assert attributes_of(encoded).labels == []


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 16, 2000), (2, 700, 9)])
def test_odd_shapes_are_no_error(folders: dict[str, Path], cache: Path, shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (*shape, 3), np.uint8)
    frames = Frames(pixels, np.arange(len(pixels), dtype=np.float64), 3.0, len(pixels), None, False)
    encoded = encoder_of(folders["siglip"], cache)(frames)
    assert np.isfinite(encoded.tokens.embeddings).all()


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_near(folders: dict[str, Path], cache: Path, precision: str) -> None:
    frames = noise(2)
    whole = encoder_of(folders["siglip"], cache)(frames).tokens.embeddings
    half = encoder_of(folders["siglip"], cache, precision=precision)(frames).tokens.embeddings
    assert half.dtype == np.float32
    assert ((whole * half).sum(axis=1) > 0.99).all()
    assert np.abs(whole - half).max() > 0


def test_without_names_there_are_no_labels(folders: dict[str, Path], cache: Path) -> None:
    encoder = ImageTextEncoder(ImageTextConfig(model=str(folders["siglip"]), names=()), cache)
    assert attributes_of(encoder(noise(2))).labels == []


def test_everyday_names_are_what_is_looked_for_unless_told(folders: dict[str, Path], cache: Path) -> None:
    config = ImageTextConfig(model=str(folders["clip"]), min_confidence=0.0, labels=1000, peak_share=1.0)
    encoder = ImageTextEncoder(config, cache)
    labels = attributes_of(encoder(noise(2))).labels
    assert {label.name for label in labels} <= set(EVERYDAY_NAMES)
    assert len(labels) > 300
    assert sum(label.confidence for label in labels) == pytest.approx(1.0, abs=0.05)  # CLIP shares one among all


def test_names_are_distinct_plain_words() -> None:
    assert len(set(EVERYDAY_NAMES)) == len(EVERYDAY_NAMES) > 300
    assert all(re.fullmatch(r"[a-zé]+([ -][a-zé]+)*", name) for name in EVERYDAY_NAMES)


@pytest.mark.parametrize("prompt", ["", "a photo", "{} and {}"])
def test_a_prompt_without_one_place_is_refused(prompt: str) -> None:
    with pytest.raises(ValidationError):
        ImageTextConfig(prompt=prompt)
