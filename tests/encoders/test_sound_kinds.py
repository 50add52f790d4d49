"""Speech, music, noise and silence over time: on real clips, one after another, and on made-up evidence."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import quality_sound
from bench.audio_reference import read
from encoders.audio import AudioConfig, AudioEncoder, sound_frames
from encoders.sound_kinds import LEAST_SECONDS, levels_and_tones, shifted, sound_segments
from store.records import AudioAttributes, Float32, Sound, SoundSegment

RATE_HZ = 22050


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> AudioEncoder:
    return AudioEncoder(AudioConfig(), tmp_path_factory.mktemp("cache"))


@cache
def clip(path: Path) -> Float32:
    """float32 [1, n]: as loud as -23 dBFS, of the quiet ones too."""
    samples = read(path, RATE_HZ)
    assert samples is not None
    mono = samples.mean(axis=0, keepdims=True)
    return np.asarray(mono * 0.07 / np.sqrt(np.square(mono).mean()), np.float32)


def heard(encoder: AudioEncoder, samples: Float32, start_seconds: float = 0.0) -> AudioAttributes:
    attributes = encoder(Sound(samples, RATE_HZ, present=True, start_seconds=start_seconds)).attributes
    assert isinstance(attributes, AudioAttributes)
    return attributes


def seconds_of(segments: list[SoundSegment]) -> dict[str, float]:
    found: dict[str, float] = {}
    for segment in segments:
        found[segment.kind] = found.get(segment.kind, 0.0) + segment.end - segment.start
    return found


def assert_tiles(segments: list[SoundSegment], start: float, end: float) -> None:
    assert segments[0].start == pytest.approx(start, abs=1e-3)
    assert segments[-1].end == pytest.approx(end, abs=1e-3)
    for one, two in pairwise(segments):
        assert one.end == two.start
        assert one.kind != two.kind
    assert all(segment.start < segment.end for segment in segments)


# --- real sounds -----------------------------------------------------------------------------------------------------


@pytest.mark.models
@pytest.mark.parametrize(
    ("name", "kind", "share"),
    [
        ("ljspeech_0001.wav", "speech", 0.95),
        ("jfk.flac", "speech", 0.8),
        ("voice_es.wav", "speech", 0.8),
        ("music_brahms_strings.ogg", "music", 0.8),
        ("music_jazz_vibe_ace.ogg", "music", 0.95),
        ("music_song_fishin.ogg", "music", 0.95),
        ("room_tone_no_speech.wav", "noise", 0.95),
        ("bird_robin.ogg", "noise", 0.95),
    ],
)
def test_a_clip_is_of_its_kind(encoder: AudioEncoder, shared_media: Path, name: str, kind: str, share: float) -> None:
    samples = clip(shared_media / "audio" / name)[:, : 50 * RATE_HZ]
    found = heard(encoder, samples)
    assert_tiles(found.segments, 0.0, samples.shape[1] / RATE_HZ)
    seconds = seconds_of(found.segments)
    assert seconds.get(kind, 0.0) / found.seconds_decoded > share
    assert found.speech_share == pytest.approx(seconds.get("speech", 0.0) / found.seconds_decoded, abs=1e-3)
    if kind != "speech":
        assert found.speech_share == 0.0  # nobody speaks, though the voice-activity model says so of jazz and singing


@pytest.mark.models
def test_kinds_follow_each_other(encoder: AudioEncoder, shared_media: Path) -> None:
    audio = shared_media / "audio"
    parts = [
        ("speech", clip(audio / "ljspeech_0004.wav")),
        ("silence", np.zeros((1, 3 * RATE_HZ), np.float32)),
        ("music", clip(audio / "music_song_fishin.ogg")[:, 20 * RATE_HZ : 32 * RATE_HZ]),
        ("speech", clip(audio / "libri_1272-128104-0000.wav")[:, RATE_HZ : 5 * RATE_HZ]),
        ("noise", clip(audio / "room_tone_no_speech.wav")),
    ]
    samples = np.concatenate([part for _, part in parts], axis=1)
    found = heard(encoder, samples, start_seconds=1.5)
    assert_tiles(found.segments, 1.5, 1.5 + samples.shape[1] / RATE_HZ)
    assert [segment.kind for segment in found.segments] == [kind for kind, _ in parts]
    borders = 1.5 + np.cumsum([part.shape[1] for _, part in parts])[:-1] / RATE_HZ
    assert np.abs([segment.end for segment in found.segments[:-1]] - borders).max() < 1.5


@pytest.mark.models
def test_speech_over_quiet_music_is_speech(encoder: AudioEncoder, shared_media: Path) -> None:
    speech = clip(shared_media / "audio" / "ljspeech_0001.wav")
    behind = clip(shared_media / "audio" / "music_jazz_vibe_ace.ogg")[:, : speech.shape[1]]
    assert heard(encoder, speech + np.float32(0.3) * behind).speech_share > 0.9


@pytest.mark.models
def test_the_gaps_of_a_slow_beat_are_no_silence(encoder: AudioEncoder) -> None:
    beat = heard(encoder, quality_sound.drum_loop(quality_sound.LOOPS["halves"], 80))
    assert [segment.kind for segment in beat.segments] == ["music"]
    assert beat.silence_share > 0.3  # frame by frame there is nothing for a third of the time


@pytest.mark.models
def test_silence_is_silence_and_nothing_is_nothing(encoder: AudioEncoder) -> None:
    silent = heard(encoder, np.zeros((1, 2 * RATE_HZ), np.float32), start_seconds=0.5)
    assert silent.segments == [SoundSegment(start=0.5, end=2.5, kind="silence")]
    assert heard(encoder, np.zeros((1, 0), np.float32)).segments == []


def test_a_lower_rate_hears_the_same_levels_and_tones(shared_media: Path) -> None:
    name = shared_media / "audio" / "music_jazz_vibe_ace.ogg"
    low, high = read(name, 16000), read(name, RATE_HZ)
    assert low is not None
    assert high is not None
    frames = sound_frames(high, RATE_HZ)
    level_db, sustained, rate_hz = levels_and_tones(low.mean(axis=0), 16000)
    assert rate_hz == pytest.approx(frames.rate_hz, rel=0.002)
    assert np.median(level_db) == pytest.approx(np.median(frames.level_db), abs=0.5)
    assert sustained.mean() == pytest.approx(frames.sustained.mean(), rel=0.1)


# --- made-up evidence ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seconds=st.floats(0.01, 40.0), seed=st.integers(0, 1000), flicker=st.integers(1, 60))
def test_segments_tile_any_sound_and_do_not_flicker(seconds: float, seed: int, flicker: int) -> None:
    random = np.random.default_rng(seed)
    count = 1 + int(seconds * 43.07)
    blocks = -(-count // flicker)
    level, tones = (np.repeat(random.uniform(low, high, blocks), flicker)[:count] for low, high in ((-90, 0), (0, 1)))
    speech = random.uniform(0, 1, max(int(np.ceil(seconds / 0.032)), 1)).astype(np.float32)
    found = sound_segments(level, tones, speech, rate_hz=43.07, speech_window_seconds=0.032, seconds=seconds)
    assert_tiles(found, 0.0, seconds)
    if len(found) > 1:
        assert all(one.end - one.start > LEAST_SECONDS[one.kind] - 0.06 for one in found)


def test_no_time_has_no_segments_and_segments_move_together() -> None:
    none = np.zeros(0)
    assert sound_segments(none, none, np.zeros(0, np.float32), rate_hz=43, speech_window_seconds=1, seconds=0) == []
    moved = shifted([SoundSegment(start=0.0, end=1.0, kind="noise")], 2.25)
    assert moved == [SoundSegment(start=2.25, end=3.25, kind="noise")]
