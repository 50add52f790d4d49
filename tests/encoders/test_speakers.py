"""Who speaks when: real readers alone, one after the other and at once; and nobody in music, rooms and silence."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from bench.audio_reference import read
from encoders.samples import mended, mixed, streams
from encoders.speakers import SpeakersConfig, SpeakersEncoder, alike, piece_bounds
from encoders.voice_embedding import VOICE_DIM, unit
from store.records import Float32, Sound, SpeakersAttributes

RATE_HZ = 16_000
NOBODY = SpeakersAttributes()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SpeakersEncoder:
    return SpeakersEncoder(SpeakersConfig(), tmp_path_factory.mktemp("cache"))


@cache
def clip(path: Path) -> Float32:
    """float32 [channels, n] at 16 kHz."""
    samples = read(path, RATE_HZ)
    assert samples is not None
    return samples


def sound(samples: Float32, start_seconds: float = 0.0) -> Sound:
    return Sound(np.ascontiguousarray(samples, np.float32), RATE_HZ, present=True, start_seconds=start_seconds)


def voices_apart(voices: Float32) -> float:
    """The highest cosine of two of the voices."""
    cosines = voices @ voices.T
    return float(cosines[np.triu_indices(len(voices), 1)].max())


# --- who is heard ----------------------------------------------------------------------------------------------------


@pytest.mark.models
@pytest.mark.parametrize(
    "name", ["austen_0870.wav", "ljspeech_0004.wav", "jfk.flac", "voice_fr.wav", "one_two_three.wav"]
)
def test_one_reader_is_one_speaker(encoder: SpeakersEncoder, shared_media: Path, name: str) -> None:
    samples = clip(shared_media / "audio" / name)
    found, voices = encoder(sound(samples))
    assert (found.count, {one.speaker for one in found.segments}) == (1, {0})
    assert voices.shape == (1, VOICE_DIM)
    assert np.linalg.norm(voices[0]) == pytest.approx(1, abs=1e-5)
    spoken = sum(one.end - one.start for one in found.segments)
    assert 0.5 < spoken / (samples.shape[1] / RATE_HZ) < 1.001


@pytest.mark.models
@pytest.mark.parametrize(
    ("first", "second"), [("ljspeech_0004.wav", "libri_1272-128104-0000.wav"), ("austen_0890.wav", "voice_es.wav")]
)
@pytest.mark.parametrize("gain", [1.0, 0.2])
def test_two_readers_change_within_half_a_second(
    encoder: SpeakersEncoder, shared_media: Path, first: str, second: str, gain: float
) -> None:
    one, two = (clip(shared_media / "audio" / name).mean(axis=0, keepdims=True) for name in (first, second))
    found, voices = encoder(sound(np.concatenate([one, two * np.float32(gain)], axis=1)))
    assert found.count == len(voices) == 2
    assert voices_apart(voices) < 0.7
    turns = [segment.speaker for segment in found.segments]
    assert turns == sorted(turns)  # 0 ... 0 1 ... 1
    change = turns.index(1)
    border = one.shape[1] / RATE_HZ
    assert found.segments[change - 1].end <= border + 0.5
    assert found.segments[change].start >= border - 0.5
    assert found.segments[change].start - found.segments[change - 1].end < 1.5


@pytest.mark.models
def test_who_comes_back_has_the_same_number(encoder: SpeakersEncoder, shared_media: Path) -> None:
    names = ("ljspeech_0004.wav", "libri_1272-128104-0000.wav", "ljspeech_0005.wav")
    found, _ = encoder(sound(np.concatenate([clip(shared_media / "audio" / name) for name in names], axis=1)))
    turns = [segment.speaker for segment in found.segments]
    assert [turn for index, turn in enumerate(turns) if index == 0 or turns[index - 1] != turn] == [0, 1, 0]


@pytest.mark.models
def test_talkers_in_two_channels_are_both_heard(encoder: SpeakersEncoder, shared_media: Path) -> None:
    samples = clip(shared_media / "audio" / "stereo_two_talkers.wav")
    found, voices = encoder(sound(samples))
    assert found.count == 2
    first, second = found.segments
    assert min(first.end, second.end) - max(first.start, second.start) > 1.5  # they talk at once
    alone = [encoder(sound(channel[np.newaxis]))[1][0] for channel in samples]
    assert np.sort((voices @ np.stack(alone).T).max(axis=1)).min() > 0.99


@pytest.mark.models
def test_a_conversation_is_several_speakers_in_turn(encoder: SpeakersEncoder, shared_media: Path) -> None:
    found, voices = encoder(sound(clip(shared_media / "audio" / "conversation_multi_speaker.wav")))
    assert 2 <= found.count <= 4  # nobody wrote down how many; the index says "several"
    assert [segment.start for segment in found.segments] == sorted(segment.start for segment in found.segments)
    assert voices_apart(voices) < 0.7


@pytest.mark.models
@pytest.mark.parametrize(
    "name",
    [
        *("audio/music_brahms_strings.ogg", "audio/music_jazz_vibe_ace.ogg", "audio/music_song_fishin.ogg"),
        *("audio/room_tone_no_speech.wav", "audio/bird_robin.ogg", "good/cartoon_bunny_20s.mp4", "good/toy_frog.mp4"),
    ],
)
def test_nobody_speaks_in_music_rooms_and_cartoons(encoder: SpeakersEncoder, shared_media: Path, name: str) -> None:
    found, voices = encoder(sound(clip(shared_media / name)))
    assert found == NOBODY
    assert voices.shape == (0, VOICE_DIM)


# --- absence, shortness, damage --------------------------------------------------------------------------------------


@pytest.mark.models
@pytest.mark.parametrize("count", [0, 1, 100, RATE_HZ // 2, RATE_HZ * 3])
@pytest.mark.parametrize("channels", [1, 2])
def test_silence_and_hardly_a_sound_have_no_speakers(encoder: SpeakersEncoder, count: int, channels: int) -> None:
    found, voices = encoder(sound(np.zeros((channels, count), np.float32)))
    assert found == NOBODY
    assert voices.shape == (0, VOICE_DIM)
    assert encoder(Sound(np.zeros((1, 0), np.float32), RATE_HZ, present=False))[0] == NOBODY


@pytest.mark.models
@pytest.mark.parametrize("seconds", [0.2, 0.5, 0.9, 1.7])
def test_a_scrap_of_speech_gives_times_within_it(encoder: SpeakersEncoder, shared_media: Path, seconds: float) -> None:
    samples = clip(shared_media / "audio" / "ljspeech_0004.wav")[:, 8000 : 8000 + round(seconds * RATE_HZ)]
    found, voices = encoder(sound(samples, start_seconds=2.5))
    assert found.count == len(voices) <= 1
    assert all(2.5 <= one.start < one.end <= 2.5 + seconds + 1e-3 for one in found.segments)
    assert np.isfinite(voices).all()
    if seconds >= 0.9:
        assert found.count == 1


@pytest.mark.models
def test_damaged_samples_count_as_silence(encoder: SpeakersEncoder, shared_media: Path) -> None:
    samples = clip(shared_media / "audio" / "ljspeech_0004.wav").copy()
    samples[:, 1000:1200] = np.nan
    samples[:, 30000] = np.inf
    samples[:, 50000] = 1e30
    found, voices = encoder(sound(samples))
    assert found.count == 1
    assert np.isfinite(voices).all()


@pytest.mark.models
def test_the_same_sound_gives_the_same_bytes(encoder: SpeakersEncoder, shared_media: Path, tmp_path: Path) -> None:
    given = sound(clip(shared_media / "audio" / "conversation_multi_speaker.wav"))
    found, voices = encoder(given)
    again, others = SpeakersEncoder(SpeakersConfig(), tmp_path)(given)
    assert again == found
    assert others.tobytes() == voices.tobytes()


@pytest.mark.models
def test_a_wrong_rate_is_refused(encoder: SpeakersEncoder) -> None:
    with pytest.raises(ValueError, match="16000 Hz, got 22050"):
        encoder(Sound(np.zeros((1, 100), np.float32), 22050, present=True))


def test_importing_loads_no_heavy_library() -> None:
    code = (
        "import sys, encoders.speakers, encoders.voice_embedding, encoders.sound_kinds\n"
        "print(sorted({'librosa', 'scipy', 'numba', 'onnxruntime', 'torch', 'resemblyzer'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_config_goes_to_json_and_back_and_knows_its_fields() -> None:
    config = SpeakersConfig(hop_seconds=0.8)
    assert SpeakersConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError):
        SpeakersConfig.model_validate({"voices": 2})


# --- the parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end", "count"), [(1.0, 2.6, 1), (1.0, 3.0, 2), (0.5, 10.5, 22)])
def test_pieces_reach_from_end_to_end(start: float, end: float, count: int) -> None:
    bounds = piece_bounds(start, end, 20.0, 0.4)
    assert (len(bounds), bounds[0, 0], bounds[-1, 1]) == (count, start, pytest.approx(end))
    np.testing.assert_allclose(np.diff(bounds, axis=1), 1.6)


def test_a_short_piece_is_widened_within_the_sound() -> None:
    assert piece_bounds(1.0, 1.2, 20.0, 0.4).tolist() == [pytest.approx([0.7, 1.5])]
    assert piece_bounds(0.0, 0.2, 0.4, 0.4).tolist() == [pytest.approx([0.0, 0.4])]


def test_groups_do_not_hang_on_the_order_and_scraps_join_the_likest() -> None:
    random = np.random.default_rng(4)
    centres = unit(random.normal(0, 1, (2, 256)))
    voices = unit(np.repeat(centres, [20, 15], axis=0) + random.normal(0, 0.02, (35, 256)))
    scrap = unit((0.6 * centres[1] + unit(random.normal(0, 1, (1, 256)))[0])[np.newaxis])
    every = np.concatenate([voices, scrap])
    labels = alike(every, np.full(36, 0.4), SpeakersConfig())
    assert len(set(labels[:20])) == len(set(labels[20:])) == 1
    assert labels[0] != labels[20]
    shuffled = random.permutation(36)
    again = alike(every[shuffled], np.full(36, 0.4), SpeakersConfig())
    assert ((again[:, None] == again) == (labels[shuffled][:, None] == labels[shuffled])).all()


def test_channels_are_parted_only_where_they_differ() -> None:
    random = np.random.default_rng(5)
    one, two = random.normal(0, 0.1, (2, 16000)).astype(np.float32)
    assert [len(streams(np.stack(pair))) for pair in ((one, two), (one, one), (one, -one), (one, 0 * one))] == [
        2,
        1,
        1,
        1,
    ]
    np.testing.assert_array_equal(streams(np.stack([one, -one]))[0], one)  # they cancel out, so one of them is taken
    np.testing.assert_array_equal(streams(np.stack([0 * one, one]))[0], one)
    np.testing.assert_array_equal(mixed(np.stack([one, one])), one)


def test_what_is_no_number_is_mended() -> None:
    broken = np.array([[np.nan, np.inf, -np.inf, 1e30, 0.5]], np.float32)
    samples, damaged = mended(broken)
    assert damaged
    assert samples.tolist() == [[0.0, 0.0, 0.0, 8.0, 0.5]]
    assert mended(samples)[0] is samples
