"""Tempo, key, music presence and mood: on synthesised sounds with known answers, and on real clips."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bench import quality_sound
from encoders import music
from encoders.audio import AudioConfig, AudioEncoder, sound_frames
from store.errors import ModelError
from store.records import AudioAttributes, Float32, Music, Sound

RATE_HZ = 22050
MAJOR_SCALE, MINOR_SCALE = (0, 2, 4, 5, 7, 9, 11, 12), (0, 2, 3, 5, 7, 8, 11, 12)
MAJOR_CADENCE = ((0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7))
MINOR_CADENCE = ((0, 3, 7), (5, 8, 12), (7, 11, 14), (0, 3, 7))
MUSIC = ("music_brahms_strings.ogg", "music_jazz_vibe_ace.ogg", "music_song_fishin.ogg")
NO_MUSIC = (
    *(f"ljspeech_000{number}.wav" for number in (1, 3, 4, 5)),
    *(f"austen_08{number}.wav" for number in (70, 80, 90)),
    "austen_0930.wav",
    "jfk.flac",
    "voice_es.wav",
    "room_tone_no_speech.wav",
    "bird_robin.ogg",
)


def clicks(tempo: float, seconds: float) -> Float32:
    """float32 [1, n]: a short 1 kHz blip on every beat."""
    samples = np.zeros(round(seconds * RATE_HZ))
    time = np.arange(round(0.03 * RATE_HZ)) / RATE_HZ
    blip = 0.5 * np.sin(2 * np.pi * 1000.0 * time) * np.exp(-time / 0.006)
    for beat in np.arange(0.1, seconds, 60.0 / tempo):
        start = round(beat * RATE_HZ)
        samples[start : start + len(blip)] += blip[: len(samples) - start]
    return samples[np.newaxis].astype(np.float32)


def tone(note: float, seconds: float) -> npt.NDArray[np.float64]:
    """float64 [n]: a note (MIDI number) with six harmonics, faded in and out."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    hertz = 440.0 * 2 ** ((note - 69) / 12)
    fade = np.minimum(1.0, np.minimum(time / 0.01, (seconds - time) / 0.05))
    waves = [np.sin(2 * np.pi * hertz * part * time) / part**1.2 for part in range(1, 7)]
    return np.asarray(0.3 * fade * np.sum(waves, axis=0))


def melody(notes: Sequence[int]) -> Float32:
    return np.concatenate([tone(note, 0.4) for note in notes])[np.newaxis].astype(np.float32)


def chords(root: int, cadence: Sequence[Sequence[int]]) -> Float32:
    """float32 [1, n]: each chord over its bass, for 0.8 s, twice around."""
    sounding = [sum(tone(root + step, 0.8) for step in (*chord, chord[0] - 12)) / 4 for chord in cadence]
    return np.concatenate([*sounding, *sounding])[np.newaxis].astype(np.float32)


def key_of(samples: Float32) -> music.Key:
    frames = sound_frames(samples, RATE_HZ)
    return music.key_of(frames.chroma, frames.sustained, frames.rate_hz)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> AudioEncoder:
    return AudioEncoder(AudioConfig(), tmp_path_factory.mktemp("cache"))


def heard(encoder: AudioEncoder, samples: Float32) -> AudioAttributes:
    attributes = encoder(Sound(samples, RATE_HZ, present=True)).attributes
    assert isinstance(attributes, AudioAttributes)
    return attributes


def read(path: Path) -> Float32:
    import librosa

    samples, _ = librosa.load(path, sr=RATE_HZ, mono=False)
    return np.ascontiguousarray(np.atleast_2d(samples), np.float32)


# --- tempo -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [10.0, 30.0])
@pytest.mark.parametrize("tempo", [60, 90, 120, 150, 180])
def test_tempo_of_clicks_within_4_percent_and_in_the_right_octave(tempo: int, seconds: float) -> None:
    frames = sound_frames(clicks(tempo, seconds), RATE_HZ)
    assert music.pulse_of(frames.onset, frames.accent, frames.rate_hz).tempo == pytest.approx(tempo, rel=0.04)
    expected = np.arange(0.1, seconds, 60.0 / tempo)
    assert len(music.onset_frames(frames.onset)) == pytest.approx(len(expected), abs=1)


@pytest.mark.parametrize("tempo", [*range(65, 180, 10)])
def test_every_tempo_of_clicks_and_of_a_rock_beat(tempo: int) -> None:
    assert quality_sound.tempo_of(clicks(tempo, 20.0)) == pytest.approx(tempo, rel=0.04)
    loop = quality_sound.drum_loop(quality_sound.LOOPS["rock"], tempo)
    assert quality_sound.tempo_of(loop) == pytest.approx(tempo, rel=0.04)


@pytest.mark.slow
def test_the_octave_of_most_loops_is_right_and_nothing_else_is_wrong() -> None:
    rows = quality_sound.measure_tempo()
    assert rows["clicks"]["right"] == rows["clicks"]["tracks"]
    assert all(row["wrong"] == {} for row in rows.values())
    assert sum(row["right"] for row in rows.values()) >= 140


@pytest.mark.parametrize("level", [0.001, 0.1, 1.0])
def test_noise_has_no_tempo_and_few_onsets(level: float) -> None:
    frames = sound_frames(np.random.default_rng(1).normal(0, level, (1, RATE_HZ * 10)).astype(np.float32), RATE_HZ)
    assert music.pulse_of(frames.onset, frames.accent, frames.rate_hz) == music.Pulse(None, 0.0)
    assert len(music.onset_frames(frames.onset)) <= 1  # its beginning


def test_three_clicks_are_too_few_for_a_tempo() -> None:
    frames = sound_frames(clicks(60, 3.0), RATE_HZ)
    assert music.pulse_of(frames.onset, frames.accent, frames.rate_hz).tempo is None


def test_a_weak_pulse_counts_in_music_only() -> None:
    weak, clear = music.Pulse(100.0, 0.3), music.Pulse(100.0, 0.9)
    assert [music.tempo_of(weak, 0.0), music.tempo_of(weak, 0.9), music.tempo_of(clear, 0.0)] == [None, 100.0, 100.0]


# --- key -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tonic", range(12))
@pytest.mark.parametrize("mode", ["major", "minor"])
def test_key_of_scales_and_cadences(mode: str, tonic: int) -> None:
    names, scale, cadence = {
        "major": (music.MAJOR_NAMES, MAJOR_SCALE, MAJOR_CADENCE),
        "minor": (music.MINOR_NAMES, MINOR_SCALE, MINOR_CADENCE),
    }[mode]
    root = 60 + tonic - (12 if tonic > 5 else 0)
    expected = f"{names[tonic]} {mode}"
    for found in (key_of(melody([root + step for step in (*scale, *scale[::-1])])), key_of(chords(root, cadence))):
        assert found.name == expected
        assert (found.majorness > 0) == (mode == "major")
        assert found.confidence is not None
        assert 0.3 < found.confidence <= 1


def test_noise_and_a_single_tone_have_no_key() -> None:
    noise = np.random.default_rng(2).normal(0, 0.1, (1, RATE_HZ * 8)).astype(np.float32)
    assert key_of(noise).name is None
    assert key_of(tone(69, 8.0)[np.newaxis].astype(np.float32)).name is None


# --- presence and mood -----------------------------------------------------------------------------------------------


@pytest.mark.models
def test_music_is_told_from_speech_rooms_and_birds(encoder: AudioEncoder, shared_media: Path) -> None:
    shares = {name: heard(encoder, read(shared_media / "audio" / name)).music for name in (*MUSIC, *NO_MUSIC)}
    assert min(shares[name].share for name in MUSIC) > 0.6
    assert max(shares[name].share for name in NO_MUSIC) < 0.2
    assert all(shares[name].mood in {"happy", "calm", "sad", "tense"} for name in MUSIC)
    assert all(shares[name] == Music(share=shares[name].share) for name in NO_MUSIC)  # nothing is said of no music


@pytest.mark.models
def test_keys_of_real_music(encoder: AudioEncoder, shared_media: Path) -> None:
    # The Hungarian Dance is played in G minor, whatever its file name says; a constant-Q chroma agrees on both.
    orchestra = heard(encoder, read(shared_media / "audio" / "music_brahms_strings.ogg"))
    song = heard(encoder, read(shared_media / "audio" / "music_song_fishin.ogg"))
    assert (orchestra.key, song.key) == ("G minor", "Bb major")
    assert song.tempo == pytest.approx(117.5, rel=0.04)
    assert orchestra.music.valence is not None
    assert song.music.valence is not None
    assert orchestra.music.valence < song.music.valence


@pytest.mark.models
def test_types_of_real_music_and_of_synthesised_beats_and_pads(encoder: AudioEncoder, shared_media: Path) -> None:
    types = {name: heard(encoder, read(shared_media / "audio" / name)[:, : 60 * RATE_HZ]).music for name in MUSIC}
    assert [types[name].type for name in MUSIC] == ["orchestral", "instrumental", "song"]
    beat = heard(encoder, quality_sound.drum_loop(quality_sound.LOOPS["four on the floor"], 120)).music
    pad = sum(tone(note, 12.0) for note in (48, 55, 60, 64))
    ambient = heard(encoder, 0.2 * np.asarray(pad, np.float32)[np.newaxis]).music
    assert (beat.type, ambient.type) == ("rhythmic", "ambient")
    for found in (*types.values(), beat, ambient):
        assert found.type_confidence is not None
        assert 0.5 <= found.type_confidence <= 1


def test_a_type_between_two_is_not_named() -> None:
    assert music.type_of(music.TypeCues(0.11, 0.6, 1.1, 0.2)) == (None, None)
    assert music.type_of(music.TypeCues(0.5, 0.9, 1.1, 0.2))[0] == "song"  # a voice over any beat


def test_mode_is_the_second_word_of_the_key() -> None:
    assert [music.Key(name, 0.5, 0.0).mode for name in ("G minor", "Bb major", None)] == ["minor", "major", None]


@pytest.mark.models
def test_fast_major_is_happier_and_more_energetic_than_slow_minor(encoder: AudioEncoder) -> None:
    fast = np.concatenate([tone(72 + step, 0.2) for step in MAJOR_SCALE * 5])[np.newaxis].astype(np.float32)
    slow = 0.1 * np.concatenate([tone(48 + step, 1.6) for step in MINOR_SCALE])[np.newaxis].astype(np.float32)
    lively, sombre = heard(encoder, fast).music, heard(encoder, slow).music
    assert lively.energy is not None
    assert sombre.energy is not None
    assert lively.valence is not None
    assert sombre.valence is not None
    assert lively.energy > sombre.energy + 0.2
    assert lively.valence > sombre.valence + 0.3
    assert (lively.mood, sombre.mood) == ("happy", "sad")


def test_mood_is_the_quadrant_and_surer_far_from_the_centre() -> None:
    corners = {(1.0, 1.0): "happy", (1.0, 0.0): "tense", (0.0, 1.0): "calm", (0.0, 0.0): "sad"}
    assert {place: music.mood_of(*place) for place in corners} == {
        place: (word, 1.0) for place, word in corners.items()
    }
    assert music.mood_of(0.5, 0.5)[1] == 0.0
    assert music.mood_of(0.6, 0.6)[1] < music.mood_of(0.7, 0.7)[1]


@pytest.mark.parametrize(("share", "seconds", "said"), [(0.1, 60, False), (0.5, 3, False), (0.5, 10, True)])
def test_too_little_music_has_no_mood(share: float, seconds: float, said: bool) -> None:
    found = music.music_of(music.MusicCues(share, seconds, -20.0, 1.0, 1500.0, 120.0, 0.1))
    assert found.share == share
    assert (found.mood is not None) is said
    assert (found.energy is not None) is said


def test_speech_lessens_and_silence_ends_music() -> None:
    sustained, clarity = np.full(3, 0.16), np.zeros(3)
    plain, spoken, silent = music.music_presence(sustained, clarity, np.array([0, 0.9, 0]), np.array([1, 1, 0]))
    assert plain == 1
    assert 0 < spoken < 0.3
    assert silent == 0


def test_drums_are_music_without_tones() -> None:
    found = music.music_presence(np.zeros(2), np.array([0.3, 0.9]), np.zeros(2), np.ones(2))
    assert found.tolist() == [0.0, 1.0]


# --- the optional model ----------------------------------------------------------------------------------------------


@pytest.mark.models
def test_without_vibenet_the_error_names_the_way_out(tmp_path: Path) -> None:
    if importlib.util.find_spec("vibenet") is not None:
        pytest.skip("vibenet is installed here, so that it is missing cannot be tested")
    with pytest.raises(ModelError) as raised:
        AudioEncoder(AudioConfig(music="vibenet"), tmp_path)
    assert raised.value.code == "model.missing"
    assert "pip install --no-deps vibenet pydub" in raised.value.hint


@pytest.mark.models
def test_vibenet_reads_music_where_it_is_installed(tmp_path: Path, shared_media: Path) -> None:
    if importlib.util.find_spec("vibenet") is None:
        pytest.skip("needs the optional package vibenet (GPL-3): pip install --no-deps vibenet pydub")
    encoder = AudioEncoder(AudioConfig(music="vibenet"), tmp_path)
    samples = read(shared_media / "audio" / "music_jazz_vibe_ace.ogg")
    found = heard(encoder, samples).music
    assert found.source == "vibenet"
    assert found.energy is not None
    assert found.valence is not None
    assert 0 <= found.energy <= 1
    assert 0 <= found.valence <= 1
    assert found == heard(encoder, samples).music
    speech = heard(encoder, read(shared_media / "audio" / "ljspeech_0004.wav")).music
    assert (speech.source, speech.mood) == ("librosa", None)  # the model is not asked where there is no music
