"""The audio encoder: its tokens tile the sound, stay finite on anything, and mean something on real clips."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from encoders import audio
from encoders.audio import AUDIO_DIM, AudioConfig, AudioEncoder, reference_digest, sound_frames, window_bounds
from store.artifacts import to_bytes, token_arrays
from store.records import Artifact, AudioAttributes, Encoded, Float32, Sound
from store.settings import Limits
from workers.sound_decoding import read_sound

RATE_HZ = 22050


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> AudioEncoder:
    return AudioEncoder(AudioConfig(), tmp_path_factory.mktemp("cache"))


def noise(seconds: float, level: float = 0.1, channels: int = 1) -> Float32:
    return np.random.default_rng(7).normal(0, level, (channels, round(seconds * RATE_HZ))).astype(np.float32)


def sound(samples: Float32, **more: float) -> Sound:
    return Sound(samples, RATE_HZ, present=True, **more)  # type: ignore[arg-type]


def read(path: Path) -> Sound:
    """A file of sound alone, which no upload is."""
    import librosa

    samples, _ = librosa.load(path, sr=RATE_HZ, mono=False)
    return sound(np.ascontiguousarray(np.atleast_2d(samples), np.float32))


def attributes_of(encoded: Encoded) -> AudioAttributes:
    assert isinstance(encoded.attributes, AudioAttributes)
    return encoded.attributes


def as_bytes(encoded: Encoded) -> bytes:
    return to_bytes(
        Artifact("audio", "v", "0" * 32, "", encoded.attributes.model_dump(mode="json"), token_arrays(encoded.tokens))
    )


# --- configuration and reference -------------------------------------------------------------------------------------


def test_config_goes_to_json_and_back_and_knows_its_fields() -> None:
    config = AudioConfig(window_seconds=3.0, max_windows=8, music="vibenet")
    assert AudioConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError):
        AudioConfig.model_validate({"hop": 256})


def test_reference_fits_the_features_and_is_identified_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(audio.__file__).with_name(audio.REFERENCE_FILE)
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored["features"] == list(audio.FEATURES)
    assert len(set(audio.FEATURES)) == AUDIO_DIM == len(stored["mean"]) == len(stored["scale"])
    assert min(stored["scale"]) > 0
    before = reference_digest()
    stored["mean"][0] += 0.001
    (tmp_path / "changed.json").write_text(json.dumps(stored), encoding="utf-8")
    monkeypatch.setattr(audio, "_reference_path", lambda: tmp_path / "changed.json")
    assert reference_digest() != before


@pytest.mark.slow
def test_reference_is_what_the_bench_measures(shared_media: Path) -> None:
    from bench.audio_reference import measure

    stored = json.loads(Path(audio.__file__).with_name(audio.REFERENCE_FILE).read_text(encoding="utf-8"))
    measured = measure(shared_media)
    assert measured["clips"] == stored["clips"]
    scale = np.array(stored["scale"])
    assert (np.abs(np.array(measured["mean"]) - stored["mean"]) / scale).max() < 1e-2
    np.testing.assert_allclose(np.array(measured["scale"]), scale, rtol=1e-2)


def test_importing_loads_no_heavy_library() -> None:
    code = (
        "import sys, encoders.audio, encoders.loudness, encoders.music, encoders.music_vibenet\n"
        "print(sorted({'librosa', 'scipy', 'numba', 'onnxruntime', 'torch', 'ffmpeg'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# --- frames ----------------------------------------------------------------------------------------------------------


def test_frames_made_in_pieces_are_those_of_one_spectrogram() -> None:
    import librosa

    samples = noise(30.0)
    frames = sound_frames(samples, RATE_HZ)
    assert len(frames) > audio.PIECE_FRAMES  # more than one piece
    whole = np.abs(librosa.stft(samples[0], n_fft=2048, hop_length=512, pad_mode="constant")) / 512
    whole[:2] = 0.0  # under 20 Hz
    expected = librosa.feature.melspectrogram(S=whole**2, sr=RATE_HZ, n_mels=40, norm=None)
    np.testing.assert_allclose(frames.mel_db.T, 10 * np.log10(expected), atol=1e-3)


def test_levels_are_dbfs() -> None:
    time = np.arange(RATE_HZ * 2) / RATE_HZ
    full = np.sin(2 * np.pi * 440.0 * time).astype(np.float32)[np.newaxis]
    assert np.median(sound_frames(full, RATE_HZ).level_db) == pytest.approx(-3.01, abs=0.05)
    assert np.median(sound_frames(noise(2.0, 0.1), RATE_HZ).level_db) == pytest.approx(-20.0, abs=0.3)


def test_steady_tones_are_sustained_and_gliding_ones_are_not() -> None:
    time = np.arange(RATE_HZ * 3) / RATE_HZ
    steady = np.sin(2 * np.pi * 440.0 * time).astype(np.float32)[np.newaxis]
    glide = np.sin(2 * np.pi * (300.0 * time + 150.0 * time**2)).astype(np.float32)[np.newaxis]
    assert np.median(sound_frames(0.3 * steady, RATE_HZ).sustained) > 0.99
    assert sound_frames(0.3 * glide, RATE_HZ).sustained.mean() < 0.05


# --- windows and tokens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "windows"), [(0.01, 1), (4.9, 1), (7.6, 2), (60.0, 12), (320.0, 64), (600.0, 64)])
def test_windows_are_equal_and_bounded(seconds: float, windows: int) -> None:
    count = round(seconds * RATE_HZ)
    bounds = window_bounds(count, RATE_HZ, AudioConfig())
    assert (len(bounds) - 1, bounds[0], bounds[-1]) == (windows, 0, count)
    assert np.ptp(np.diff(bounds)) <= 1


@pytest.mark.models
def test_tokens_tile_the_sound_on_the_clock_of_the_video(encoder: AudioEncoder) -> None:
    tokens = encoder(sound(noise(23.4), start_seconds=1.5)).tokens
    assert tokens.embeddings.shape == (5, AUDIO_DIM)
    assert tokens.start_seconds[0] == 1.5
    assert tokens.end_seconds[-1] == pytest.approx(1.5 + 23.4, abs=1e-4)
    np.testing.assert_array_equal(tokens.start_seconds[1:], tokens.end_seconds[:-1])


@pytest.mark.models
def test_salience_is_the_level_above_silence(encoder: AudioEncoder) -> None:
    silence = np.zeros((1, RATE_HZ * 5), np.float32)
    levels = [noise(5.0, 10 ** (dbfs / 20)) for dbfs in (-70.0, -45.0, -20.0)]
    encoded = encoder(sound(np.concatenate([silence, *levels], axis=1)))
    assert encoded.tokens.salience.tolist() == pytest.approx([0.0, 0.0, 0.5, 1.0], abs=0.02)
    assert attributes_of(encoded).silence_share == pytest.approx(0.5, abs=0.01)


@pytest.mark.models
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(0, 12 * RATE_HZ) | st.integers(0, 2048),
    kind=st.sampled_from(["noise", "sine", "square"]),
    gain_db=st.floats(-200.0, 80.0),
    channels=st.integers(1, 2),
    start=st.floats(0.0, 5.0),
)
def test_any_sound_gives_finite_tokens_within_it(
    encoder: AudioEncoder, count: int, kind: str, gain_db: float, channels: int, start: float
) -> None:
    time = np.arange(count) / RATE_HZ
    sine = np.sin(2 * np.pi * 330.0 * time)
    shapes = {"noise": noise(count / RATE_HZ, 1.0)[0], "sine": sine, "square": np.sign(sine)}
    samples = np.tile(shapes[kind] * 10 ** (gain_db / 20), (channels, 1)).astype(np.float32)
    encoded = encoder(sound(samples, start_seconds=start))
    tokens, attributes = encoded.tokens, attributes_of(encoded)
    as_bytes(encoded)  # refuses what is not finite
    assert np.abs(tokens.embeddings).max(initial=0.0) <= audio.STANDARD_LIMIT
    assert ((tokens.salience >= 0) & (tokens.salience <= 1)).all()
    assert (tokens.start_seconds < tokens.end_seconds).all() or count < 2
    assert (np.diff(tokens.start_seconds) > 0).all()
    if len(tokens):
        assert tokens.start_seconds[0] == np.float32(start)
        assert tokens.end_seconds[-1] == pytest.approx(start + count / RATE_HZ, abs=1e-5)
    assert attributes.seconds_decoded == pytest.approx(count / RATE_HZ)
    for share in (attributes.speech_share, attributes.silence_share, attributes.music.share):
        assert 0 <= share <= 1


@pytest.mark.models
def test_a_wrong_rate_is_refused(encoder: AudioEncoder) -> None:
    with pytest.raises(ValueError, match="22050 Hz, got 16000"):
        encoder(Sound(noise(1.0), 16000, present=True))


# --- absence, silence, damage ----------------------------------------------------------------------------------------


@pytest.mark.models
def test_no_track_is_absent(encoder: AudioEncoder) -> None:
    encoded = encoder(Sound(np.zeros((1, 0), np.float32), RATE_HZ, present=False))
    assert encoded.tokens.embeddings.shape == (0, AUDIO_DIM)
    assert attributes_of(encoded) == AudioAttributes(present=False)


@pytest.mark.models
def test_a_silent_track_is_present_and_has_nothing_to_attend_to(encoder: AudioEncoder, shared_media: Path) -> None:
    silent = read_sound(shared_media / "good" / "cars_parking.mp4", RATE_HZ, Limits())
    encoded = encoder(silent)
    found = attributes_of(encoded)
    assert encoded.tokens.embeddings.shape == (0, AUDIO_DIM)
    assert (found.present, found.silence_share, found.seconds_decoded) == (True, 1.0, silent.seconds)
    assert silent.seconds > 30
    assert [found.tempo, found.key, found.loudness, found.brightness, found.onset_rate] == [None] * 5
    assert (found.speech_share, found.music.share, found.music.mood) == (0.0, 0.0, None)


def test_a_constant_offset_is_silence() -> None:
    frames = sound_frames(np.full((1, RATE_HZ * 3), 0.3, np.float32), RATE_HZ)
    assert frames.level_db[3:-3].max() < audio.SILENCE_DB  # but for the steps at both ends


@pytest.mark.models
def test_damaged_samples_are_replaced_and_told(encoder: AudioEncoder) -> None:
    clean = noise(6.0)
    zeroed, broken = clean.copy(), clean.copy()
    zeroed[0, 1000:1003] = 0.0
    broken[0, 1000:1003] = np.nan, np.inf, -np.inf
    mended, expected = encoder(sound(broken)), encoder(sound(zeroed))
    np.testing.assert_array_equal(mended.tokens.embeddings, expected.tokens.embeddings)
    assert attributes_of(mended).degraded
    assert not attributes_of(expected).degraded


@pytest.mark.models
def test_opposite_phases_do_not_cancel_out(encoder: AudioEncoder) -> None:
    samples = noise(6.0)
    together = encoder(sound(np.concatenate([samples, samples])))
    opposed = encoder(sound(np.concatenate([samples, -samples])))
    np.testing.assert_allclose(opposed.tokens.embeddings, together.tokens.embeddings, atol=1e-3)
    np.testing.assert_allclose(opposed.tokens.salience, together.tokens.salience, atol=1e-5)


# --- real clips ------------------------------------------------------------------------------------------------------


@pytest.mark.models
def test_same_bytes_twice_by_another_encoder_and_any_number_of_threads(
    encoder: AudioEncoder, shared_media: Path, tmp_path: Path
) -> None:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    heard = read_sound(shared_media / "good" / "slides_two_states.mp4", RATE_HZ, Limits())
    with threadpool_limits(1):
        first = as_bytes(encoder(heard))
    with threadpool_limits(2):
        second = as_bytes(AudioEncoder(AudioConfig(), tmp_path)(heard))
    assert first == second


@pytest.mark.models
def test_speech_is_found_where_there_is_speech(encoder: AudioEncoder, shared_media: Path) -> None:
    shares = {
        name: attributes_of(encoder(read(shared_media / "audio" / name))).speech_share
        for name in ("ljspeech_0001.wav", "austen_0870.wav", "room_tone_no_speech.wav", "music_brahms_strings.ogg")
    }
    assert min(shares["ljspeech_0001.wav"], shares["austen_0870.wav"]) > 0.8
    assert max(shares["room_tone_no_speech.wav"], shares["music_brahms_strings.ogg"]) < 0.05


@pytest.mark.models
def test_tokens_of_like_sounds_are_near(encoder: AudioEncoder, shared_media: Path) -> None:
    def directions(name: str) -> Float32:
        vectors = encoder(read(shared_media / "audio" / name)).tokens.embeddings
        unit: Float32 = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    reader, same_reader = directions("ljspeech_0001.wav"), directions("ljspeech_0003.wav")
    orchestra, room = directions("music_brahms_strings.ogg"), directions("room_tone_no_speech.wav")
    assert (reader @ same_reader.T).min() > 0.6
    assert (reader @ orchestra.T).mean() < 0.2
    assert (reader @ room.T).mean() < 0.2
    assert (orchestra @ orchestra.T).mean() > (orchestra @ room.T).mean() + 0.3


@pytest.mark.models
def test_tokens_are_about_zero_mean_and_unit_scale_on_real_sound(encoder: AudioEncoder, shared_media: Path) -> None:
    names = ("ad_chrome_browser.mp4", "cartoon_bunny_20s.mp4", "man_green_wall.mp4", "toy_crystal.mp4")
    vectors = np.concatenate(
        [encoder(read_sound(shared_media / "good" / name, RATE_HZ, Limits())).tokens.embeddings for name in names]
    )
    assert abs(vectors.mean()) < 0.5  # four quiet clips are not the mean of all sounds
    assert 0.6 < vectors.std() < 1.6
    assert np.abs(vectors.mean(axis=0)).max() < 2.5
