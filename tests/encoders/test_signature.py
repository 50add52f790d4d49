"""The near-duplicate signature of frames: what it survives, what it tells apart, and what has none."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from encoders.signature import BITS, Signature, signature_of
from ranker.duplicates import MOST_BITS
from store.artifacts import from_bytes, to_bytes
from store.records import Artifact, Frames


def made_of(pixels: np.ndarray) -> Frames:
    count = len(pixels)
    return Frames(pixels, np.arange(count, dtype=np.float64) / 2, count / 2, count, count, False)


def pictures(*images: Image.Image) -> np.ndarray:
    return np.stack([np.asarray(image.convert("RGB"), np.uint8) for image in images])


def photograph(name: str) -> Image.Image:
    """A photograph that ships with scikit-image."""
    from skimage import data

    return Image.fromarray(getattr(data, name)())


def bits_apart(first: Image.Image, second: Image.Image) -> int:
    one, other = (signature_of(made_of(pictures(image))).hashes for image in (first, second))
    return int(np.unpackbits(one ^ other).sum())


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_a_copy_that_looks_the_same_has_nearly_the_same_bits(name: str) -> None:
    image = photograph(name)
    width, height = image.size
    copies = {
        "encoded badly": (as_jpeg(image, 12), 6),
        "smaller": (image.resize((width // 4, height // 4), Image.Resampling.BICUBIC), 4),
        "squeezed": (image.resize((width, height // 2), Image.Resampling.BICUBIC), 4),
        "brighter": (image.point(lambda value: min(value + 24, 255)), 8),
        "weaker": (image.point(lambda value: 64 + value // 2), 4),
        "cropped": (image.crop((width // 40, height // 40, width - width // 40, height - height // 40)), MOST_BITS),
    }
    for kind, (copy, most) in copies.items():
        assert bits_apart(image, copy) <= most, kind


def test_other_pictures_have_other_bits() -> None:
    names = ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins", "page", "hubble_deep_field", "retina")
    images = [photograph(name) for name in names]
    apart = [bits_apart(one, other) for place, one in enumerate(images) for other in images[:place]]
    assert min(apart) > MOST_BITS
    assert np.mean(apart) == pytest.approx(BITS / 2, abs=4)
    mirrored = images[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert bits_apart(images[0], mirrored) > MOST_BITS


def test_blank_frames_have_no_bits() -> None:
    shown = np.asarray(photograph("astronaut"), np.uint8)
    frames = np.stack([np.zeros_like(shown), shown, np.full_like(shown, 255), np.full_like(shown, 90)])
    found = signature_of(made_of(frames))
    assert found.hashes.shape == (1, 8)
    assert found.seconds.tolist() == [0.5]
    assert len(signature_of(made_of(frames[[0, 2, 3]])).hashes) == 0


def test_a_frame_does_not_depend_on_its_neighbours() -> None:
    frames = pictures(photograph("astronaut"), photograph("astronaut").rotate(90), photograph("astronaut").rotate(180))
    together = signature_of(made_of(frames)).hashes
    alone = [signature_of(made_of(frames[place : place + 1])).hashes[0] for place in range(3)]
    np.testing.assert_array_equal(together, alone)
    assert len(np.unique(together, axis=0)) == 3


def test_about_half_of_the_bits_are_set() -> None:
    found = signature_of(made_of(pictures(photograph("coffee"), photograph("coffee").rotate(90, expand=False))))
    assert np.unpackbits(found.hashes, axis=1).sum(axis=1).tolist() == [32, 32]


def test_a_signature_goes_through_an_artifact() -> None:
    found = signature_of(made_of(pictures(photograph("rocket"))))
    back = from_bytes(to_bytes(Artifact("appearance", "v", "0" * 32, "", {}, found.arrays()))).arrays
    np.testing.assert_array_equal(back["signature"], found.hashes)
    assert back["signature"].dtype == np.uint8
    np.testing.assert_array_equal(back["signature_seconds"], found.seconds)


def test_a_signature_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError):
        Signature(np.zeros((2, 7), np.uint8), np.zeros(2, np.float32))
    with pytest.raises(ValueError):
        Signature(np.zeros((2, 8), np.uint8), np.zeros(3, np.float32))


@settings(max_examples=60, deadline=None)
@given(
    pixels=st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(1, 40)).flatmap(
        lambda shape: arrays.arrays(np.uint8, (*shape, 3))
    )
)
def test_any_frames_have_a_signature_that_does_not_depend_on_their_order(pixels: np.ndarray) -> None:
    found = signature_of(made_of(pixels))
    assert len(found.hashes) == len(found.seconds) <= len(pixels)
    turned = signature_of(made_of(pixels[::-1]))
    np.testing.assert_array_equal(turned.hashes[::-1], found.hashes)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 4000), (1, 4000, 1), (2, 16, 3000)])
def test_odd_shapes_are_no_error(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    assert len(signature_of(made_of(pixels)).hashes) <= shape[0]
    assert len(signature_of(made_of(np.zeros((*shape, 3), np.uint8))).hashes) == 0
