"""How the pictures look: their colours by name, how light, how full of contrast and how sharp they are.

Colours are compared in OKLab (Ottosson 2020, "A perceptual color space for image processing"), where equal distances
look about equally large. A colour has the name of the nearest of some eighty prototypes: an everyday word such as
"green" covers navy-dark to mint-light shades, which no single prototype would. Pixels are counted in 32 x 32 x 32 bins,
each of which keeps the exact mean of what fell into it; everything after is computed from these whole numbers, and so
does not depend on the order of the frames.

Frames of one colour (a fade, black before the first shot) say nothing about how a video looks: they are left out of
everything but `blank_share`, unless there is nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from encoders.pictures import Float64, Pixels, blank, luma, shorter_side
from store.records import AppearanceAttributes, Colour, Frames

# The everyday words and what they are for: chosen by hand, then held against CSS colour names by the tests.
PROTOTYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "black": ("000000", "141414", "1c1816", "161a20", "121a14"),
        "grey": (
            *("303030", "3c3c3c", "484848", "686868", "808080", "a0a0a0", "bcbcbc", "d4d4d4", "708090", "34383e"),
            *("5a5450", "98908a", "b0aca0", "dcd8d0", "606468", "90989a", "40403c"),
        ),
        "white": ("ffffff", "f2f2f2", "f0f4fa", "faf6ee"),
        "red": ("ff0000", "d01820", "a01018", "780000", "e04848", "c03030", "400808"),
        "orange": ("ff8000", "ffa030", "e87020", "f08050", "ff9a60", "d86810"),
        "yellow": ("ffff00", "f8d820", "e0c020", "c8b010", "fff080", "d8d020", "ffd850"),
        "green": (
            *("00ff00", "00a000", "006400", "0c300c", "80c040", "90e090", "6b8e23", "2e8b57", "a8c8a0"),
            *("556b2f", "808000", "a0c010", "303a18", "60a070", "00e080", "b8f0a0", "98a010", "b8bc18"),
        ),
        "cyan": ("00ffff", "00b8c0", "008080", "a0f0f0", "48d0c8", "005860", "80c8d0", "58a0a4"),
        "blue": (
            *("0000ff", "000080", "4080e0", "88b8e8", "203060", "5080a8", "00a0ff", "0c1030", "2040c0", "a8c4e8"),
            *("6070d8", "405878", "a8d8f0", "88c8f0", "483d9b"),
        ),
        "purple": ("800080", "8040c0", "4b0082", "b088d8", "602868", "9370db", "300838", "c8a8e0", "a040e0", "663399"),
        "pink": ("ff69b4", "ffb6c8", "ff1493", "e080a0", "ff00ff", "d050a0", "f0a0b8", "e8a0e0", "f8d0d8"),
        "brown": ("8b4513", "5a3a20", "a0703c", "38220f", "805a40", "a05030", "604818", "b08050", "6a4a3a"),
        "beige": ("f5f0d8", "e8d8b8", "d2b48c", "ffe0c0", "c8b090", "e0c8a8", "f0d0b0", "c8bca0"),
    }
)
NAMES = tuple(PROTOTYPES)

_COLOUR_SIDE, _SHARP_SIDE, _LONGEST = 96, 240, 4  # pixels; the longer side may be this many times the shorter
_BIN_BITS = 5
_ROUNDS = 12
_BANDS = (0.4, 0.7)  # of OKLab's lightness: dark, middle and light shades of a name start a cluster of their own
_BLUR_TAPS = 9
_LEAST_STEP = 2.0  # levels of 255: what differs less from its neighbour is noise


class AppearanceConfig(BaseModel):
    """What changes the result of the appearance encoder.

    At most `colours` dominant colours with a share of at least `min_share` (0..1) are named; two that are nearer than
    `merge_distance` in OKLab (white is 1 from black) are one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    colours: int = Field(6, ge=1, le=32)
    min_share: float = Field(0.03, gt=0, le=1)
    merge_distance: float = Field(0.09, ge=0, le=1)


class AppearanceEncoder:
    """Frames in, how they look out. The same frames, in any order, give the same bytes."""

    def __init__(self, config: AppearanceConfig, cache: Path, threads: int = 1) -> None:
        """Nothing is loaded: `cache` and `threads` are what every encoder is given."""
        del cache, threads
        self.config = config

    def __call__(self, frames: Frames) -> AppearanceAttributes:
        """Colours, histogram, brightness, contrast, sharpness and `blank_share`; shots, cut rate, motion and faces are
        others' to fill.

        `brightness` is the mean of lightness. `contrast` is twice the standard deviation of lightness in a frame
        (1: half black, half white), `sharpness` see `sharpness_of`; both are means over the frames. `histogram` has
        every name of `NAMES` and sums to 1; without frames it is empty.
        """
        count = len(frames.pixels)
        if not count or not min(frames.pixels.shape[1:3]):
            return AppearanceAttributes()
        # One frame at a time: what is between is four times the size of the pixels.
        pictures = [shorter_side(frame[np.newaxis], _SHARP_SIDE, _LONGEST * _SHARP_SIDE) for frame in frames.pixels]
        reduced = np.concatenate(pictures)
        uniform = blank(reduced)
        shown = reduced if uniform.all() else reduced[~uniform]
        small = shorter_side(shown, _COLOUR_SIDE, _LONGEST * _COLOUR_SIDE)
        lightness = luma(small) / 255.0
        weights, colours = _counted(small)
        histogram = _histogram(weights, colours)
        return AppearanceAttributes(
            colours=_palette(weights, colours, self.config),
            histogram=histogram,
            brightness=_mean([float(frame.mean()) for frame in lightness]),
            contrast=_mean([min(2.0 * float(frame.std()), 1.0) for frame in lightness]),
            sharpness=_mean([sharpness_of(frame) for frame in shown]),
            blank_share=round(float(uniform.sum()) / count, 4),
        )


def colour_name(red: int, green: int, blue: int) -> str:
    """The everyday name of an sRGB colour, 0..255 each."""
    return NAMES[int(_named(oklab(np.array([[red, green, blue]], np.float64)))[0])]


def oklab(colours: Float64) -> Float64:
    """float64 [n, 3] lightness 0..1, green to red and blue to yellow, of sRGB `colours` [n, 3] in 0..255.

    The two matrices are those of Ottosson (2020); the curve is that of IEC 61966-2-1.
    """
    unit = colours / 255.0
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(linear @ _LINEAR_TO_CONES.T)
    result: Float64 = cones @ _CONES_TO_LAB.T
    return result


def sharpness_of(frame: Pixels) -> float:
    """How sharp a frame uint8 [height, width, 3] is, 0 (blurred, or nothing to see) to 1.

    The blur effect of Crete, Dolmiere, Ladret and Nicolas (2007), turned round: what is sharp loses much of the
    differences between neighbours when it is blurred, what is blurred already loses little. Being a ratio, it does not
    rise with contrast. It is taken at 240 pixels on the shorter side, whatever the size of the frame, and in the
    direction in which the frame is less sharp.
    """
    grey = luma(shorter_side(frame[np.newaxis], _SHARP_SIDE, _LONGEST * _SHARP_SIDE))[0]
    return min(_lost_by_blurring(grey), _lost_by_blurring(grey.T))


def _lost_by_blurring(grey: Float64) -> float:
    """Share of the differences between vertical neighbours that a blur of nine pixels takes away, 0..1."""
    if grey.shape[0] < _BLUR_TAPS:
        return 0.0
    sums = np.cumsum(np.concatenate([np.zeros((1, grey.shape[1])), grey]), axis=0)
    blurred = (sums[_BLUR_TAPS:] - sums[:-_BLUR_TAPS]) / _BLUR_TAPS
    inner = _BLUR_TAPS // 2
    steps = np.abs(np.diff(grey, axis=0))[inner : inner + len(blurred) - 1]
    steps = np.where(steps >= _LEAST_STEP, steps, 0.0)
    total = float(steps.sum())
    if total <= 0.0:
        return 0.0
    lost = np.maximum(steps - np.abs(np.diff(blurred, axis=0)), 0.0)
    return float(np.clip(float(lost.sum()) / total, 0.0, 1.0))


# --- colours ---------------------------------------------------------------------------------------------------------


def _counted(pixels: Pixels) -> tuple[Float64, Float64]:
    """Pixels in each bin that holds any, float64 [n_bins], and the mean sRGB colour of each, float64 [n_bins, 3]."""
    flat = pixels.reshape(-1, 3)
    shift = 8 - _BIN_BITS
    coarse = (flat >> shift).astype(np.int64)
    bins = (coarse[:, 0] << 2 * _BIN_BITS) | (coarse[:, 1] << _BIN_BITS) | coarse[:, 2]
    size = 1 << 3 * _BIN_BITS
    counts = np.bincount(bins, minlength=size)
    # Sums of whole numbers stay exact in float64, in any order.
    sums = np.stack([np.bincount(bins, weights=flat[:, channel], minlength=size) for channel in range(3)], axis=1)
    held = np.flatnonzero(counts)
    weights = counts[held].astype(np.float64)
    return weights, sums[held] / weights[:, np.newaxis]


def _histogram(weights: Float64, colours: Float64) -> dict[str, float]:
    """The share of the pixels under each name, in the order of `NAMES`."""
    totals = np.bincount(_named(oklab(colours)), weights=weights, minlength=len(NAMES))
    return dict(zip(NAMES, (totals / totals.sum()).tolist(), strict=True))


def _named(lab: Float64) -> npt.NDArray[np.intp]:
    """Index in `NAMES` [n] of the nearest prototype of each of `lab` [n, 3]."""
    result: npt.NDArray[np.intp] = _PROTOTYPE_NAMES[_nearest(lab, _PROTOTYPE_LAB)]
    return result


def _nearest(points: Float64, centres: Float64) -> npt.NDArray[np.intp]:
    """Index of the nearest of `centres` [m, 3] to each of `points` [n, 3]; the first of equals."""
    distances = np.stack([np.square(points - centre).sum(axis=1) for centre in centres])
    nearest: npt.NDArray[np.intp] = np.argmin(distances, axis=0)
    return nearest


def _palette(weights: Float64, colours: Float64, config: AppearanceConfig) -> list[Colour]:
    """The dominant colours, the largest share first: weighted k-means in OKLab that starts from the means of the dark,
    middle and light shades of each name, and merges what comes to lie close together."""
    lab = oklab(colours)
    group = _named(lab) * (len(_BANDS) + 1) + np.digitize(lab[:, 0], _BANDS)
    shares = np.bincount(group, weights=weights) / weights.sum()
    starts = np.flatnonzero(shares >= config.min_share / 2.0)
    if not len(starts):
        starts = np.array([int(shares.argmax())])
    centres = np.stack([np.average(lab[group == start], axis=0, weights=weights[group == start]) for start in starts])
    for _ in range(_ROUNDS):
        member = _nearest(lab, centres)
        sizes = _sizes(weights, member, len(centres))
        moved = _group_means(lab, weights, member, sizes)[sizes > 0]
        merged = _merged(moved, sizes[sizes > 0], config.merge_distance)
        if merged.shape == centres.shape and np.array_equal(merged, centres):
            break
        centres = merged
    member = _nearest(lab, centres)
    sizes = _sizes(weights, member, len(centres))
    means = _group_means(colours, weights, member, sizes)
    found = [
        _colour(means[index], float(sizes[index] / weights.sum()))
        for index in np.argsort(-sizes, kind="stable")[: config.colours].tolist()
        if sizes[index] >= config.min_share * weights.sum()
    ]
    return found or [_colour(means[int(sizes.argmax())], float(sizes.max() / weights.sum()))]


def _sizes(weights: Float64, member: npt.NDArray[np.intp], count: int) -> Float64:
    """Weight [count] of each group."""
    return np.asarray(np.bincount(member, weights=weights, minlength=count), np.float64)


def _group_means(points: Float64, weights: Float64, member: npt.NDArray[np.intp], sizes: Float64) -> Float64:
    """Weighted mean [m, 3] of the `points` of each group; zeros for a group without any."""
    sums = [np.bincount(member, weights=weights * points[:, axis], minlength=len(sizes)) for axis in range(3)]
    result: Float64 = np.stack(sums, axis=1) / np.maximum(sizes, 1.0)[:, np.newaxis]
    return result


def _merged(centres: Float64, sizes: Float64, distance: float) -> Float64:
    """`centres` with the nearest two replaced by their mean until none are nearer than `distance`."""
    while len(centres) > 1:
        gaps = np.linalg.norm(centres[:, np.newaxis] - centres[np.newaxis], axis=2)
        gaps[np.tril_indices(len(centres))] = np.inf
        first, second = divmod(int(gaps.argmin()), len(centres))
        if gaps[first, second] >= distance:
            break
        both = sizes[first] + sizes[second]
        centres, sizes = centres.copy(), sizes.copy()
        centres[first] = (centres[first] * sizes[first] + centres[second] * sizes[second]) / both
        sizes[first] = both
        centres, sizes = np.delete(centres, second, axis=0), np.delete(sizes, second)
    return centres


def _colour(srgb: Float64, share: float) -> Colour:
    red, green, blue = (int(value) for value in np.floor(srgb + 0.5))
    return Colour(name=colour_name(red, green, blue), hex=f"#{red:02x}{green:02x}{blue:02x}", share=round(share, 4))


def _mean(values: list[float]) -> float:
    """The mean, the same in any order of the values."""
    return round(math.fsum(values) / len(values), 4)


_LINEAR_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_CONES_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_PROTOTYPE_LAB = oklab(np.array([list(bytes.fromhex(code)) for codes in PROTOTYPES.values() for code in codes], float))
_PROTOTYPE_NAMES = np.repeat(np.arange(len(NAMES)), [len(codes) for codes in PROTOTYPES.values()])
