"""Near-duplicates: made signatures, brute force, and real clips with copies made by ffmpeg."""

from __future__ import annotations

import time
from itertools import combinations
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.signature import signature_of
from ranker.duplicates import (
    _MASKS,
    MOST_BITS,
    TABLE_BITS,
    THRESHOLD,
    WHOLE_GROUP,
    _joined,
    find_duplicates,
    similarity_of,
)
from store.errors import InputError
from store.settings import Limits
from tests.clips import colour_bars, render
from workers.frame_decoding import read_frames
from workers.frame_sampling import FrameSampling


def made_up(count: int, frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random signatures: half of the bits of any two frames differ."""
    hashes = np.random.default_rng(seed).integers(0, 256, (count, frames, 8), np.uint8)
    return {f"{place:032x}": hashes[place] for place in range(count)}


def flipped(hashes: np.ndarray, bits: int, seed: int = 1) -> np.ndarray:
    """The same frames with `bits` bits of each turned over."""
    generator = np.random.default_rng(seed)
    unpacked = np.unpackbits(hashes, axis=1)
    for row in unpacked:
        row[generator.permutation(64)[:bits]] ^= 1
    return np.packbits(unpacked, axis=1)


# --- similarity ------------------------------------------------------------------------------------------------------


def test_similarity_is_the_share_of_the_shorter_that_the_longer_has_too() -> None:
    hashes = made_up(1, 10)[f"{0:032x}"]
    other = made_up(1, 10, seed=9)[f"{0:032x}"]
    assert similarity_of(hashes, hashes) == 1.0
    assert similarity_of(hashes, hashes[3:7]) == 1.0
    assert similarity_of(hashes[3:7], hashes) == 1.0
    assert similarity_of(hashes, other) == 0.0
    assert similarity_of(hashes, np.concatenate([other, hashes[:4]])) == pytest.approx(0.4)
    assert similarity_of(hashes, flipped(hashes, MOST_BITS)) == 1.0
    assert similarity_of(hashes, flipped(hashes, MOST_BITS + 1)) == 0.0
    assert similarity_of(hashes, hashes[:0]) == 0.0


def test_of_two_as_long_the_lesser_share_counts() -> None:
    """A still picture that is one frame of another video is not that video."""
    hashes = made_up(1, 10)[f"{0:032x}"]
    still = np.repeat(hashes[:1], 10, axis=0)
    assert similarity_of(hashes, still) == similarity_of(still, hashes) == pytest.approx(0.1)


# --- groups ----------------------------------------------------------------------------------------------------------


def test_copies_are_found_and_others_are_not() -> None:
    signatures = made_up(300, 12)
    signatures["copy"] = flipped(signatures[f"{7:032x}"], 6)
    signatures["cut"] = signatures[f"{7:032x}"][2:9]
    signatures["bad copy"] = flipped(signatures[f"{9:032x}"], 11)
    groups = find_duplicates(signatures)
    assert [group.videos for group in groups] == [(f"{7:032x}", "copy", "cut"), (f"{9:032x}", "bad copy")]
    assert [(pair.first, pair.second) for pair in groups[0].pairs] == [
        (f"{7:032x}", "copy"),
        (f"{7:032x}", "cut"),
        ("copy", "cut"),
    ]
    assert all(pair.similarity == 1.0 for group in groups for pair in group.pairs)
    assert groups[0].as_json()["pairs"][0] == {"first": f"{7:032x}", "second": "copy", "similarity": 1.0}


def test_the_threshold_is_a_share_of_frames() -> None:
    signatures = made_up(50, 10)
    signatures["half"] = np.concatenate([signatures[f"{3:032x}"][:5], made_up(1, 5, seed=4)[f"{0:032x}"]])
    [group] = find_duplicates(signatures, 0.5)
    assert [pair.similarity for pair in group.pairs] == [0.5]
    assert find_duplicates(signatures, 0.51) == []


def test_halves_of_a_video_hang_together_by_the_whole() -> None:
    whole = made_up(1, 10)[f"{0:032x}"]
    [group] = find_duplicates({"first half": whole[:5], "second half": whole[5:], "whole": whole})
    assert group.videos == ("first half", "second half", "whole")
    assert [(pair.first, pair.second) for pair in group.pairs] == [("first half", "whole"), ("second half", "whole")]


def test_chains_meet_whatever_their_order() -> None:
    likeness = {(0, 3): 1.0, (1, 2): 1.0, (2, 3): 1.0, (5, 6): 1.0}
    assert _joined(likeness) == [[0, 1, 2, 3], [5, 6]]
    assert _joined(dict(reversed(likeness.items()))) == [[0, 1, 2, 3], [5, 6]]


def test_videos_without_a_frame_that_shows_anything_are_like_none() -> None:
    empty = np.zeros((0, 8), np.uint8)
    assert find_duplicates({"black": empty, "also black": empty, **made_up(3, 4)}) == []
    assert find_duplicates({}) == []


def test_more_copies_than_a_window_holds_are_one_group() -> None:
    signatures = made_up(100, 12)
    copies = {f"copy {place:03}": flipped(signatures[f"{0:032x}"], 4, seed=place) for place in range(3 * WHOLE_GROUP)}
    [group] = find_duplicates(signatures | copies)
    assert group.videos == (f"{0:032x}", *sorted(copies))
    linked = {video for pair in group.pairs for video in (pair.first, pair.second)}
    assert linked == set(group.videos)


def test_one_frame_that_all_share_makes_no_duplicates() -> None:
    card = np.arange(8, dtype=np.uint8)[np.newaxis]
    signatures = {video: np.concatenate([card, hashes]) for video, hashes in made_up(400, 9).items()}
    signatures["copy"] = flipped(signatures[f"{5:032x}"], 3)
    assert [group.videos for group in find_duplicates(signatures)] == [(f"{5:032x}", "copy")]


def test_a_threshold_without_sense_is_refused() -> None:
    for threshold in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(InputError) as raised:
            find_duplicates({}, threshold)
        assert raised.value.code == "request.invalid"
    with pytest.raises(ValueError):
        find_duplicates({"a": np.zeros((3, 7), np.uint8)})


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 6), min_size=2, max_size=8),
    copied=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 2)), max_size=8),
    seed=st.integers(0, 10_000),
)
def test_pairs_are_those_that_brute_force_finds(
    lengths: list[int], copied: list[tuple[int, int, int]], seed: int
) -> None:
    """Every two frames here differ in at most two bits, which no table misses, or in about half."""
    generator = np.random.default_rng(seed)
    videos = [generator.integers(0, 256, (length, 8), np.uint8) for length in lengths]
    for source, target, bits in copied:
        one, other = videos[source % len(videos)], videos[target % len(videos)]
        if len(one) and len(other) and one is not other:
            other[bits % len(other)] = flipped(one[:1], bits, seed)[0]
    signatures = {f"v{place}": hashes for place, hashes in enumerate(videos)}
    found = find_duplicates(signatures)
    assert find_duplicates(dict(reversed(signatures.items()))) == found
    pairs = {(pair.first, pair.second): pair.similarity for group in found for pair in group.pairs}
    brute = {
        (one, other): round(similarity_of(signatures[one], signatures[other]), 4)
        for one, other in combinations(sorted(signatures), 2)
    }
    assert pairs == {pair: similarity for pair, similarity in brute.items() if similarity >= THRESHOLD}


def test_frames_that_differ_in_few_bits_meet_in_some_table() -> None:
    looks_at = np.array([[int(mask) >> bit & 1 for bit in range(64)] for mask in _MASKS], np.bool_)
    assert (looks_at.sum(axis=1) == TABLE_BITS).all()

    def meeting(bits: int) -> float:
        generator = np.random.default_rng(bits)
        differing = np.stack([generator.permutation(64)[:bits] for _ in range(4000)])
        return float((~looks_at[:, differing].any(axis=2)).any(axis=0).mean())

    assert all((~(looks_at[:, one] | looks_at[:, other])).any() for one, other in combinations(range(64), 2))
    assert meeting(6) > 0.85
    assert meeting(MOST_BITS) > 0.15


@pytest.mark.slow
def test_the_work_grows_with_the_videos_and_not_with_their_pairs() -> None:
    def cpu_seconds(count: int) -> float:
        signatures = made_up(count, 12)
        started = time.process_time()
        assert find_duplicates(signatures) == []
        return time.process_time() - started

    few, many = cpu_seconds(3_000), cpu_seconds(30_000)
    assert many < 30 * max(few, 0.05)


# --- real clips ------------------------------------------------------------------------------------------------------

# What is done to each clip: seconds cut from its start as a share, and ffmpeg's filters and options.
COPIES: dict[str, tuple[float, list[tuple[str, dict[str, Any]]], dict[str, Any]]] = {
    "encoded badly": (0.0, [("scale", {"w": "trunc(iw/4)*2", "h": "trunc(ih/4)*2"})], {"crf": 38}),
    "cropped": (0.0, [("crop", {"out_w": "trunc(iw*0.46)*2", "out_h": "trunc(ih*0.46)*2"})], {"crf": 28}),
    "brighter": (0.0, [("eq", {"brightness": 0.08, "contrast": 1.15, "saturation": 0.8})], {"crf": 28}),
    "cut": (0.25, [("scale", {"w": 480, "h": -2})], {"crf": 28}),
}


def copy_of(source: Path, target: Path, kind: str, seconds: float) -> Path:
    cut, filters, options = COPIES[kind]
    stream = ffmpeg.input(str(source), ss=cut * seconds, t=min((1.0 - cut) * seconds * 0.8, 20.0)).video
    for name, arguments in filters:
        stream = stream.filter(name, **arguments)
    return render(target, stream, vcodec="libx264", preset="ultrafast", pix_fmt="yuv420p", **options)


def hashes_of(path: Path) -> tuple[np.ndarray, float]:
    frames = read_frames(path, FrameSampling(), Limits())
    return signature_of(frames).hashes, frames.duration_seconds


def of_one_origin(video: str) -> str:
    """What a clip or a copy of it shows."""
    stem = video.split("/")[0].split(".")[0]
    return "cartoon_bunny" if stem.startswith("cartoon_bunny") else stem


def right_and_wrong(signatures: dict[str, np.ndarray]) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """The pairs that are of one origin, and those that were found."""
    true = {
        (one, other) for one, other in combinations(sorted(signatures), 2) if of_one_origin(one) == of_one_origin(other)
    }
    found = {(pair.first, pair.second) for group in find_duplicates(signatures) for pair in group.pairs}
    return true, found


def test_real_near_duplicates_are_found_and_nothing_else(shared_media: Path, tmp_path: Path) -> None:
    names = (
        "beetle_on_flower.mp4",
        "cartoon_bunny_20s.mp4",
        "cartoon_bunny_30s.webm",
        "flower_timelapse.mp4",
        "flower_timelapse.webm",
        "man_green_wall.mp4",
        "toy_robot_bricks.mp4",
        "ui_screen_recording.mp4",
    )
    signatures = {}
    for name in names:
        signatures[name], seconds = hashes_of(shared_media / "good" / name)
    for kind in COPIES:
        _, seconds = hashes_of(shared_media / "good" / "toy_robot_bricks.mp4")
        path = copy_of(shared_media / "good" / "toy_robot_bricks.mp4", tmp_path / f"{kind}.mp4", kind, seconds)
        signatures[f"toy_robot_bricks/{kind}"] = hashes_of(path)[0]
    black = ffmpeg.input("color=c=black:size=320x240:rate=10:duration=3", f="lavfi")
    for place in range(2):
        path = render(tmp_path / f"black{place}.mp4", black, vcodec="libx264", pix_fmt="yuv420p", crf=20 + 10 * place)
        signatures[f"black{place}"] = hashes_of(path)[0]
    signatures["bars"] = hashes_of(colour_bars(tmp_path / "bars.mp4", 2.0))[0]
    true, found = right_and_wrong(signatures)
    assert found == true
    assert len(true) == 2 + 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_clips_and_their_copies(shared_media: Path, tmp_path: Path) -> None:
    """Precision and recall over the 28 good clips and four copies of each."""
    signatures = {}
    for source in sorted((shared_media / "good").iterdir()):
        signatures[source.name], seconds = hashes_of(source)
        for kind in COPIES:
            path = copy_of(source, tmp_path / "copy.mp4", kind, seconds)
            signatures[f"{source.name}/{kind}"] = hashes_of(path)[0]
    true, found = right_and_wrong(signatures)
    assert found <= true
    assert len(found) >= 0.97 * len(true)
