"""Colours against CSS names and made pictures, sharpness against blur, and whatever pixels Hypothesis can think of."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageColor, ImageFilter

from encoders.appearance import NAMES, AppearanceConfig, AppearanceEncoder, colour_name, oklab, sharpness_of
from encoders.pictures import blank, block_means, luma, shorter_side
from store.records import AppearanceAttributes, Frames
from store.settings import Limits
from workers.frame_decoding import read_frames
from workers.frame_sampling import FrameSampling

ENCODER = AppearanceEncoder(AppearanceConfig(), Path())


def made_of(pixels: np.ndarray) -> Frames:
    count = len(pixels)
    return Frames(pixels, np.arange(count, dtype=np.float64), float(count), count, count, False)


def plain(colour: str, count: int = 1, height: int = 90, width: int = 160) -> np.ndarray:
    return np.full((count, height, width, 3), ImageColor.getrgb(colour), np.uint8)


def stripes(*colours: str, height: int = 90, width: int = 160) -> np.ndarray:
    """One frame of upright stripes, equally wide."""
    picture = np.zeros((1, height, width, 3), np.uint8)
    for place, colour in enumerate(colours):
        picture[:, :, place * width // len(colours) :] = ImageColor.getrgb(colour)
    return picture


def noise(count: int = 3, height: int = 90, width: int = 160, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def photograph() -> np.ndarray:
    """The astronaut of scikit-image, 512 x 512."""
    from skimage import data

    return np.asarray(data.astronaut(), np.uint8)


# --- smaller pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 48, 64, 3), (1, 37, 91, 3), (1, 1, 1, 3), (0, 50, 50, 3), (2, 3, 900, 3)])
@pytest.mark.parametrize("size", [(24, 32), (48, 85), (1, 1), (7, 300)])
def test_a_reduced_picture_is_the_rounded_means_of_its_blocks(
    shape: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    found = block_means(pixels, *size)
    height, width = min(size[0], shape[1]), min(size[1], shape[2])
    assert found.shape == (shape[0], height, width, 3)
    for row in range(height):
        for column in range(width):
            top, bottom = row * shape[1] // height, (row + 1) * shape[1] // height
            left, right = column * shape[2] // width, (column + 1) * shape[2] // width
            block = pixels[:, top:bottom, left:right].astype(np.int64)
            mean = np.floor(block.sum(axis=(1, 2)) / ((bottom - top) * (right - left)) + 0.5)
            np.testing.assert_array_equal(found[:, row, column], mean)


def test_a_reduced_picture_keeps_its_shape_and_is_never_enlarged() -> None:
    assert shorter_side(noise(1, 480, 853), 96, 1000).shape == (1, 96, 171, 3)
    assert shorter_side(noise(1, 90, 30), 96, 1000).shape == (1, 90, 30, 3)
    assert shorter_side(noise(1, 4, 3000), 96, 300).shape == (1, 1, 300, 3)


def test_lightness_is_that_of_bt_601() -> None:
    assert luma(stripes("red", "lime", "blue", "white", width=4)[0])[0].tolist() == [76.245, 149.685, 29.07, 255.0]


# --- blank frames ----------------------------------------------------------------------------------------------------


def test_a_frame_of_one_colour_is_blank_and_a_picture_is_not() -> None:
    grain = np.random.default_rng(3).normal(0.0, 8.0, (90, 160, 3))
    grainy = np.clip(plain("#202428")[0] + grain, 0, 255).astype(np.uint8)
    cursor = plain("navy")[0].copy()
    cursor[40:50, 60:72] = 255  # less than one percent
    text = plain("white")[0].copy()
    text[30:60:3, 20:140] = 0
    two = stripes("black", "white")[0]
    frames = np.stack([plain("black")[0], plain("white")[0], plain("teal")[0], grainy, cursor, text, two, noise(1)[0]])
    assert blank(frames).tolist() == [True, True, True, True, True, False, False, False]
    assert ENCODER(made_of(frames)).blank_share == pytest.approx(5 / 8)


def test_colours_alone_make_a_frame_that_is_not_blank() -> None:
    equal = stripes("#ff0000", "#0082ff")  # of the same lightness
    assert abs(float(np.ptp(luma(equal)))) < 30
    assert not blank(equal).any()


def test_blank_frames_do_not_dominate_the_palette_unless_there_is_nothing_else() -> None:
    shown = stripes("red", "blue")
    faded = ENCODER(made_of(np.concatenate([plain("black", 9), shown])))
    alone = ENCODER(made_of(shown))
    assert faded.colours == alone.colours
    assert faded.histogram == alone.histogram
    assert (faded.brightness, faded.contrast) == (alone.brightness, alone.contrast)
    assert (faded.blank_share, alone.blank_share) == (0.9, 0.0)
    nothing = ENCODER(made_of(plain("black", 3)))
    assert [(colour.name, colour.hex, colour.share) for colour in nothing.colours] == [("black", "#000000", 1.0)]
    assert (nothing.blank_share, nothing.brightness, nothing.sharpness) == (1.0, 0.0, 0.0)


# --- names -----------------------------------------------------------------------------------------------------------

# CSS names that end in an everyday word and are another everyday colour to most eyes, with the name found here.
OTHERWISE = {
    "aliceblue": "white",
    "antiquewhite": "beige",
    "brown": "red",
    "cadetblue": "cyan",
    "greenyellow": "green",
    "lightcyan": "white",
    "lightgoldenrodyellow": "beige",
    "lightseagreen": "cyan",
    "lightyellow": "white",
    "mediumvioletred": "pink",
    "navajowhite": "beige",
    "palevioletred": "pink",
    "rosybrown": "grey",
    "sandybrown": "orange",
}
CSS = {
    name: next(word for word in NAMES if name.replace("gray", "grey").endswith(word))
    for name in ImageColor.colormap
    if name.replace("gray", "grey").endswith(NAMES)
}
SPOKEN = {
    "#e60000": "red",
    "#ff7f11": "orange",
    "#ffd700": "yellow",
    "#228b22": "green",
    "#00ced1": "cyan",
    "#1e90ff": "blue",
    "#6a0dad": "purple",
    "#ff85b3": "pink",
    "#6b4226": "brown",
    "#d9c4a0": "beige",
    "#0a0a0a": "black",
    "#777777": "grey",
    "#fafafa": "white",
}


@pytest.mark.parametrize(("css", "word"), sorted((CSS | OTHERWISE).items()))
def test_css_colours_have_the_everyday_word_in_their_name(css: str, word: str) -> None:
    assert len(CSS) > 60
    assert colour_name(*ImageColor.getrgb(css)) == word


@pytest.mark.parametrize(("code", "word"), sorted(SPOKEN.items()))
def test_colours_have_their_everyday_name(code: str, word: str) -> None:
    assert colour_name(*ImageColor.getrgb(code)) == word


def test_every_grey_is_black_grey_or_white_and_they_follow_each_other() -> None:
    names = [colour_name(level, level, level) for level in range(256)]
    assert set(names) == {"black", "grey", "white"}
    assert names == sorted(names)  # the alphabet happens to be on our side
    assert 20 < names.count("black") < 60
    assert 15 < names.count("white") < 50


def test_oklab_has_the_published_values() -> None:
    """White, and red, green and blue as the CSS Color 4 specification gives them."""
    codes = [[255, 255, 255], [255, 0, 0], [0, 128, 0], [0, 0, 255], [0, 0, 0]]
    expected = [[1, 0, 0], [0.62796, 0.22486, 0.12585], [0.51975, -0.1403, 0.10768], [0.45201, -0.03246, -0.31153]]
    np.testing.assert_allclose(oklab(np.array(codes, np.float64)), [*expected, [0, 0, 0]], atol=2e-4)


# --- palette and measures --------------------------------------------------------------------------------------------


def test_the_palette_of_a_made_picture_is_what_it_was_made_of() -> None:
    found = ENCODER(made_of(stripes("#d02020", "#2050c0", "#2050c0", "#f0f0f0", "#f0f0f0", "#f0f0f0", width=192)))
    assert [(colour.name, colour.hex) for colour in found.colours] == [
        ("white", "#f0f0f0"),
        ("blue", "#2050c0"),
        ("red", "#d02020"),
    ]
    assert [colour.share for colour in found.colours] == pytest.approx([1 / 2, 1 / 3, 1 / 6], abs=1e-3)
    assert {name for name, share in found.histogram.items() if share} == {"white", "blue", "red"}
    assert found.histogram["blue"] == pytest.approx(1 / 3, abs=1e-3)


def test_shades_of_one_name_are_told_apart_and_near_ones_are_one() -> None:
    far = ENCODER(made_of(stripes("#104810", "#a0e8a0")))
    near = ENCODER(made_of(stripes("#7a7258", "#7c7250")))  # two names, and yet nearly the same colour
    assert (colour_name(0x7A, 0x72, 0x58), colour_name(0x7C, 0x72, 0x50)) == ("grey", "brown")
    assert [colour.name for colour in far.colours] == ["green", "green"]
    assert len(near.colours) == 1
    assert near.colours[0].share == 1.0


def test_little_of_a_colour_is_not_dominant_and_no_more_than_asked_for_are_named() -> None:
    picture = stripes("white", "#808080", "black", "red", "blue", "lime", "yellow", width=140)
    picture[:, :2, :2] = (255, 0, 255)
    found = ENCODER(made_of(picture))
    assert len(found.colours) == AppearanceConfig().colours == 6
    assert "pink" not in {colour.name for colour in found.colours}
    assert found.histogram["pink"] > 0
    two = AppearanceEncoder(AppearanceConfig(colours=2), Path())(made_of(picture))
    assert two.colours == found.colours[:2]


def test_brightness_and_contrast_are_those_of_lightness() -> None:
    half = ENCODER(made_of(stripes("black", "white")))
    assert (half.brightness, half.contrast) == (0.5, 1.0)
    grey = ENCODER(made_of(plain("#404040")))
    assert (grey.brightness, grey.contrast) == (pytest.approx(64 / 255, abs=1e-4), 0.0)


def test_sharpness_falls_with_blur_and_depends_neither_on_size_nor_on_contrast() -> None:
    picture = Image.fromarray(photograph())

    def sharpness(image: Image.Image) -> float:
        return sharpness_of(np.asarray(image, np.uint8))

    blurred = [sharpness(picture.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 2, 4, 8, 16)]
    assert blurred == sorted(blurred, reverse=True)
    assert blurred[0] > 0.6
    assert blurred[-1] < 0.15
    for side in (256, 384, 1024):
        scaled = picture.resize((side, side), Image.Resampling.LANCZOS)
        assert sharpness(scaled) == pytest.approx(blurred[0], abs=0.05)
    weak = picture.point(lambda value: 64 + value // 2)
    assert sharpness(weak) == pytest.approx(blurred[0], abs=0.05)


def test_faces_are_left_to_others() -> None:
    assert ENCODER(made_of(noise())).faces == AppearanceAttributes().faces


# --- whatever comes --------------------------------------------------------------------------------------------------


def holds(found: AppearanceAttributes) -> None:
    """What is true of any frames."""
    assert tuple(found.histogram) == NAMES
    assert math.fsum(found.histogram.values()) == pytest.approx(1.0, abs=1e-9)
    assert all(0.0 <= share <= 1.0 for share in found.histogram.values())
    shares = [colour.share for colour in found.colours]
    assert 1 <= len(shares) <= AppearanceConfig().colours
    assert shares == sorted(shares, reverse=True)
    assert all(0.0 < share <= 1.0 for share in shares)
    assert sum(shares) <= 1.0 + 1e-3
    assert all(colour_name(*ImageColor.getrgb(colour.hex)) == colour.name for colour in found.colours)
    for value in (found.brightness, found.contrast, found.sharpness, found.blank_share):
        assert 0.0 <= value <= 1.0
    assert AppearanceAttributes.model_validate_json(found.model_dump_json()) == found


@settings(max_examples=60, deadline=None)
@given(
    pixels=st.tuples(st.integers(1, 4), st.integers(1, 24), st.integers(1, 24)).flatmap(
        lambda shape: arrays.arrays(np.uint8, (*shape, 3))
    ),
    seed=st.integers(0, 1000),
)
def test_any_frames_have_a_palette_and_their_order_changes_nothing(pixels: np.ndarray, seed: int) -> None:
    found = ENCODER(made_of(pixels))
    holds(found)
    shuffled = pixels[np.random.default_rng(seed).permutation(len(pixels))]
    assert ENCODER(made_of(shuffled)) == found


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 3000), (2, 3000, 1), (1, 16, 4000), (3, 700, 90)])
@pytest.mark.parametrize("kind", ["black", "white", "noise"])
def test_odd_shapes_are_no_error(shape: tuple[int, int, int], kind: str) -> None:
    pixels = noise(*shape) if kind == "noise" else plain(kind, *shape)
    found = ENCODER(made_of(pixels))
    holds(found)
    if kind != "noise":
        assert [(colour.name, colour.share) for colour in found.colours] == [(kind, 1.0)]


def test_no_frames_have_no_colours() -> None:
    assert ENCODER(made_of(np.zeros((0, 20, 20, 3), np.uint8))) == AppearanceAttributes()


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ValueError):
        AppearanceConfig(colours=0)
    with pytest.raises(ValueError):
        AppearanceConfig(min_share=0)


# --- real clips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "colours"),
    [
        ("man_green_wall.mp4", {"green"}),
        ("ski_mountain_panorama.mp4", {"blue"}),
        ("earth_night_rotation.mp4", {"black"}),
        ("slides_two_states.mp4", {"white", "black"}),
        ("cars_parking.mp4", {"grey"}),
        ("toy_frog.mp4", {"brown", "green"}),
    ],
)
def test_real_clips_have_the_colours_that_are_seen_in_them(shared_media: Path, name: str, colours: set[str]) -> None:
    frames = read_frames(shared_media / "good" / name, FrameSampling(max_frames=8), Limits())
    found = ENCODER(frames)
    holds(found)
    assert colours <= {colour.name for colour in found.colours}
    assert max(found.histogram, key=lambda word: found.histogram[word]) in colours | {"brown"}
