"""Sampling: every strategy keeps within its bound, each shot has its frame, and the frame is one worth keeping."""

from __future__ import annotations

import io
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import MediaError
from store.records import Frames, Shot
from store.settings import Limits
from tests import clips
from workers.frame_decoding import read_frames
from workers.frame_sampling import Candidate, FrameSampling, Sampler

LIMITS = Limits()
STRATEGIES: tuple[str, ...] = get_args(FrameSampling.model_fields["strategy"].annotation)
PIXELS = np.zeros((1, 1, 3), np.uint8)


def within(frames: Frames, shot: Shot) -> int:
    return int(((frames.seconds >= shot.start) & (frames.seconds < shot.end)).sum())


def test_each_shot_has_a_frame_and_a_long_one_has_more(tmp_path: Path) -> None:
    parts = [("testsrc", 0.4), ("smptebars", 6.0), ("rgbtestsrc", 0.4), ("mandelbrot", 2.0), ("yuvtestsrc", 0.4)]
    video = clips.scenes(tmp_path / "v.mp4", parts)
    frames = read_frames(video, FrameSampling(max_frames=8), LIMITS)
    counts = [within(frames, shot) for shot in frames.shots]
    assert len(counts) == 5
    assert min(counts) == 1
    assert counts[1] > counts[3] >= 1
    assert sum(counts) == len(frames.pixels) == 8
    # Fewer frames than shots: the longest have them.
    two = read_frames(video, FrameSampling(max_frames=2), LIMITS)
    assert [within(two, shot) for shot in two.shots] == [0, 1, 0, 1, 0]
    # Away from the cuts, where there is time for it.
    for shot in frames.shots:
        inside = frames.seconds[(frames.seconds >= shot.start) & (frames.seconds < shot.end)]
        assert inside[-1] <= shot.end - 0.04


def test_a_sharp_frame_is_preferred_to_a_blank_or_a_blurred_one(tmp_path: Path) -> None:
    picture = clips.source("testsrc", 1.0)
    blank = picture.filter("drawbox", color="gray", t="fill", enable="lt(t,0.4)")
    only = FrameSampling(max_frames=1, interval_seconds=5)
    options = {"vcodec": "libx264", "pix_fmt": "yuv420p"}
    kept = read_frames(clips.render(tmp_path / "blank.mp4", blank, **options), only, LIMITS)
    assert kept.pixels[0].std() > 40
    blurred = picture.filter("gblur", sigma=20, enable="not(between(t,0.5,0.6))")
    kept = read_frames(clips.render(tmp_path / "blurred.mp4", blurred, **options), only, LIMITS)
    assert 0.48 < kept.seconds[0] < 0.62


def test_every_shot_of_real_clips_has_its_frame(shared_media: Path) -> None:
    for name in ("office_intro_googlework.mp4", "ad_chrome_browser.mp4", "mixed_book_machine.webm"):
        frames = read_frames(shared_media / "good" / name, FrameSampling(short_side=64), LIMITS)
        assert len(frames.pixels) == 24
        assert all(within(frames, shot) for shot in frames.shots), name


def test_even_frames_fill_the_bound(tmp_path: Path) -> None:
    video = clips.render(tmp_path / "v.mp4", clips.pattern(30.0, "64x48"), vcodec="libx264", pix_fmt="yuv420p")
    frames = read_frames(video, FrameSampling(strategy="uniform", max_frames=10), LIMITS)
    assert len(frames.seconds) == 10
    gaps = np.diff(frames.seconds)
    assert gaps.max() <= 2 * gaps.min() + 1e-9
    regular = read_frames(video, FrameSampling(strategy="fps", fps=2, max_frames=100), LIMITS)
    assert regular.seconds == pytest.approx(np.arange(60) / 2)
    halved = read_frames(video, FrameSampling(strategy="fps", fps=2, max_frames=30), LIMITS)
    assert halved.seconds == pytest.approx(np.arange(30.0))


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "mp4"), ("libvpx-vp9", "webm")])
def test_key_pictures_alone(tmp_path: Path, codec: str, suffix: str) -> None:
    """The VP9 decoder gives every picture, whatever it is told."""
    video = clips.render(tmp_path / f"v.{suffix}", clips.pattern(6.0), vcodec=codec, pix_fmt="yuv420p", g=10)
    frames = read_frames(video, FrameSampling(strategy="keyframes"), LIMITS)
    assert frames.seconds == pytest.approx(np.arange(6.0))
    assert (frames.decoded, frames.shots, frames.motion, frames.degraded) == (6, (), None, False)
    # Beyond the last key picture, too, there is video.
    assert frames.duration_seconds == pytest.approx(6.0)
    whole = read_frames(video, FrameSampling(strategy="fps", fps=1), LIMITS)
    assert np.array_equal(whole.pixels, frames.pixels)


def test_without_marked_key_pictures_all_are_read(shared_media: Path) -> None:
    data = io.BytesIO((shared_media / "bad/mediabunny_missing_keyflags.ts").read_bytes())
    sampling = FrameSampling(strategy="keyframes", max_frames=4)
    frames = read_frames(data, sampling, LIMITS)
    assert len(frames.pixels) >= 1
    assert frames.pixels.std() > 10


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_pictures_is_an_error_in_every_strategy(shared_media: Path, strategy: str) -> None:
    sampling = FrameSampling.model_validate({"strategy": strategy})
    with pytest.raises(MediaError) as caught:
        read_frames(shared_media / "bad/mp4parse_invalid_userdata.mp4", sampling, LIMITS)
    assert caught.value.code == "media.no_frames"


def test_the_same_frames_each_time_and_from_any_source(shared_media: Path) -> None:
    file = shared_media / "good/mixed_book_machine.webm"
    one = read_frames(file, FrameSampling(), LIMITS)
    other = read_frames(io.BytesIO(file.read_bytes()), FrameSampling(), LIMITS)
    assert np.array_equal(one.pixels, other.pixels)
    assert np.array_equal(one.seconds, other.seconds)
    assert (one.shots, one.motion) == (other.shots, other.motion)


@settings(max_examples=100, deadline=None)
@given(
    gaps=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=300),
    most=st.integers(1, 12),
    interval=st.floats(0.01, 1.0),
    strategy=st.sampled_from(["uniform", "fps", "keyframes"]),
)
def test_slots_are_as_if_known_from_the_start(gaps: list[float], most: int, interval: float, strategy: str) -> None:
    """What is left is the first picture of every slot of the final length, and no more than may be left."""
    seconds = np.cumsum([0.0, *gaps])
    sampling = FrameSampling.model_validate(
        {"strategy": strategy, "max_frames": most, "interval_seconds": interval, "fps": 1 / interval}
    )
    sampler = Sampler(sampling, lambda _: PIXELS)
    for second in seconds:
        sampler.offer(float(second), None, None, False)
        assert len(sampler.candidates) <= max(8, 2 * most)
    kept = [candidate.second for candidate in sampler.chosen([])]
    assert 1 <= len(kept) <= most
    slots = [int(second / sampler._interval + 1e-6) for second in seconds]
    first = [second for place, second in enumerate(seconds) if place == 0 or slots[place] != slots[place - 1]]
    assert [candidate.second for candidate in sampler.candidates] == first
    assert set(kept) <= set(first)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), most=st.integers(1, 10))
def test_any_shots_are_served(data: st.DataObject, most: int) -> None:
    """Whatever the cuts, and suspected cuts that turn out to be none: at most so many, and one for each shot."""
    count = data.draw(st.integers(1, 120))
    suspected = data.draw(st.sets(st.integers(1, count - 1), max_size=15)) if count > 1 else set()
    real = sorted(place for place in suspected if data.draw(st.booleans()))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    sampler = Sampler(FrameSampling(max_frames=most), lambda _: PIXELS)
    for place in range(count):
        thumbnail = random.integers(0, random.integers(1, 256), (36, 64, 3)).astype(np.uint8)
        sampler.offer(place / 10, None, thumbnail, place in suspected)
        assert len(sampler.candidates) <= max(8, 2 * most)
    starts = [0.0, *(place / 10 for place in real)]
    shots = [Shot(start=one, end=two) for one, two in zip(starts, [*starts[1:], count / 10], strict=True)]
    kept = sampler.chosen(shots)
    assert len(kept) <= most
    assert [item.second for item in kept] == sorted({item.second for item in kept})
    if len(suspected) + 1 <= most:
        assert all(any(shot.start <= item.second < shot.end for item in kept) for shot in shots)


def test_joined_slots_keep_the_better_candidate() -> None:
    """One picture in three has something to see; with few slots it is kept, and otherwise the earliest."""
    blank, checked = np.zeros((36, 64, 3), np.uint8), np.zeros((36, 64, 3), np.uint8)
    checked[::2, ::2] = 255
    sampler = Sampler(FrameSampling(max_frames=4), lambda _: PIXELS)
    for place in range(300):
        sampler.offer(place / 2, None, checked if place % 3 == 2 else blank, False)
    assert 4 <= len(sampler.candidates) <= 8
    assert all(round(item.second * 2) % 3 == 2 for item in sampler.candidates)
    for item in sampler.candidates:
        slot_start = int(item.second / sampler._interval) * sampler._interval
        assert item.second - slot_start <= 1.0 or item is sampler.candidates[-1]


def test_candidates_are_few_however_long_and_choppy_it_is() -> None:
    """Ten minutes with a suspected cut every other picture convert few pictures and keep fewer."""
    converted = 0

    def convert(_: object) -> np.ndarray:
        nonlocal converted
        converted += 1
        return PIXELS

    sampler = Sampler(FrameSampling(), convert)
    thumbnail = np.zeros((36, 64, 3), np.uint8)
    for place in range(18_000):
        sampler.offer(place / 30, None, thumbnail, place % 15 == 0)
        assert len(sampler.candidates) <= 48
    assert converted <= 1_200
    assert all(isinstance(item, Candidate) for item in sampler.chosen([Shot(start=0, end=600)]))
