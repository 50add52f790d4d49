"""Speech to text: known words are found where they are said, nothing is invented, and the guards keep their word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.speech_quality import (
    count_errors,
    known_words,
    mixed,
    normalised,
    over_radio,
    read_clip,
    spoken_text,
    without_speech,
)
from encoders.speech import SpeechConfig, SpeechEncoder
from encoders.speech_activity import WINDOW_SECONDS, speech_spans
from encoders.speech_guards import Line, compression_ratio, lines_of, token_cap, without_hasty_repeats, without_loops
from encoders.speech_windows import speech_within, windows_of
from encoders.whisper_runtimes import RATE_HZ, SECONDS_PER_TIMESTAMP
from store.records import Float32, Sound, TranscriptAttributes
from store.settings import Limits
from tests.clips import spoken
from tests.encoders.spoken_checks import holds_together, sound
from workers.sound_decoding import read_sound

ZERO = 50364  # Whisper's token for the time stamp 0.00

# Clips above an error rate of 0.15, as bench/results/speech.json has them, rounded up. Beams of 5 and 10 for every
# window, a wider margin around speech, 30 s windows for all, or always taking the second hearing mend some of them and
# break others: 17 to 23 errors in place of 21, over all clips. Whisper base is that unsure of them.
KNOWN_ABOVE = {
    "audio/ljspeech_0003.wav": (0.17, '"and graved" for "engraved", and "wood cutters" in two words: 4 of 24'),
    "audio/voice_de.wav": (0.31, '"liegen der" for "liegenden", "Leichenhaler" for "Leichenhalle": 3 of 10'),
    "audio/voice_fr.wav": (0.24, '"d\'inzo et forêt" for "des eaux et forêts": 3 of 13'),
    "audio/voice_it.wav": (0.37, '"nacque rancarcuni" for "nacquero anche alcune", "canzoni": 4 of 11'),
    "audio/voice_ko.wav": (0.22, '"1위절이" for "이리저리": 4 characters of 19'),
}
MOST_ERRORS = 0.15

PROBABILITIES = st.lists(st.tuples(st.integers(1, 400), st.floats(0, 1, width=32)), min_size=1, max_size=12).map(
    lambda parts: np.concatenate([np.full(count, value, np.float32) for count, value in parts])
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def encoder(cache: Path) -> SpeechEncoder:
    return SpeechEncoder(SpeechConfig(), cache)


# --- configuration ---------------------------------------------------------------------------------------------------


def test_config_goes_to_json_and_back_and_knows_its_fields() -> None:
    config = SpeechConfig(runtime="openai-whisper", gate=0.3, beam_size=5)
    assert SpeechConfig.model_validate_json(config.model_dump_json()) == config
    for wrong in ({"temperature": 0.2}, {"runtime": "faster-whisper"}, {"gate": 1.0}, {"beam_size": 0}):
        with pytest.raises(ValidationError):
            SpeechConfig.model_validate(wrong)


def test_importing_loads_no_heavy_library() -> None:
    code = (
        "import sys, encoders.speech\n"
        "print(sorted({'torch', 'whisper', 'ctranslate2', 'onnxruntime', 'silero_vad'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# --- windows ---------------------------------------------------------------------------------------------------------


@given(
    probabilities=PROBABILITIES,
    threshold=st.floats(0.05, 0.9),
    join=st.floats(0.0, 5.0),
    limit=st.floats(1.0, 29.0),
)
@settings(deadline=None, derandomize=True)
def test_windows_hold_every_span_in_order_and_none_is_too_long(
    probabilities: Float32, threshold: float, join: float, limit: float
) -> None:
    spans = speech_spans(probabilities, threshold, min_silence_seconds=0.3, pad_seconds=0.3)
    windows = windows_of(spans, probabilities, join, limit)
    bounds = np.array([bound for window in windows for bound in (window.start, window.end)])
    assert (np.diff(bounds) >= -1e-9).all()
    assert all(0 < window.end - window.start <= limit + 1e-9 for window in windows)
    for start, end in spans:
        held = sum(max(min(end, window.end) - max(start, window.start), 0.0) for window in windows)
        assert held == pytest.approx(end - start)
    # Nothing but spans and the pauses between them.
    assert bool(windows) == bool(spans)
    if spans:
        assert (windows[0].start, windows[-1].end) == (spans[0][0], spans[-1][1])
    for window in windows:
        assert 0 <= window.speech_seconds <= window.end - window.start + 2 * WINDOW_SECONDS


def test_near_spans_share_a_window_and_far_ones_do_not() -> None:
    probabilities = np.ones(2000, np.float32)
    spans = [(0.0, 5.0), (7.0, 10.0), (14.0, 20.0), (21.0, 40.0)]
    found = [(window.start, window.end) for window in windows_of(spans, probabilities, 3.0, 29.0)]
    assert found == [(0.0, 10.0), (14.0, 40.0)]
    found = [(window.start, window.end) for window in windows_of(spans, probabilities, 3.0, 20.0)]
    assert found == [(0.0, 10.0), (14.0, 20.0), (21.0, 40.0)]


def test_a_long_span_is_cut_in_its_pause() -> None:
    probabilities = np.full(round(50 / WINDOW_SECONDS), 0.9, np.float32)
    pause = round(23.5 / WINDOW_SECONDS)
    probabilities[pause - 4 : pause + 4] = 0.2
    probabilities[round(26 / WINDOW_SECONDS)] = 0.0  # one window of 32 ms is no pause
    first, second = windows_of([(0.0, 50.0)], probabilities, 3.0, 29.0)
    assert first.end == second.start == pytest.approx(23.5, abs=0.1)


def test_speech_seconds_are_the_integral_of_the_probabilities() -> None:
    probabilities = np.array([0.0, 1.0, 0.5, 0.0], np.float32)
    assert speech_within(probabilities, 0.0, 4 * WINDOW_SECONDS) == pytest.approx(1.5 * WINDOW_SECONDS)
    assert speech_within(probabilities, 2 * WINDOW_SECONDS, 9.0) == pytest.approx(0.5 * WINDOW_SECONDS)


# --- guards ----------------------------------------------------------------------------------------------------------


def stamp(seconds: float) -> int:
    return ZERO + round(seconds / SECONDS_PER_TIMESTAMP)


@pytest.mark.parametrize(
    ("tokens", "lines"),
    [
        ((), []),
        ((stamp(0), 7, 8, stamp(1.5)), [(0.0, 1.5, (7, 8))]),
        ((stamp(0), 7, stamp(1.5), stamp(2), 8, stamp(3)), [(0.0, 1.5, (7,)), (2.0, 3.0, (8,))]),
        ((7, stamp(1.5)), [(0.0, 1.5, (7,))]),  # the first stamp is missing
        ((stamp(1), 7, 8), [(1.0, 5.0, (7, 8))]),  # the cap was reached
        ((stamp(1), 7, stamp(9)), [(1.0, 5.0, (7,))]),  # an end in the silence after the window
        ((stamp(0), 7, stamp(5), stamp(5), 8, stamp(6)), [(0.0, 5.0, (7,))]),  # words in the silence after it
        ((stamp(0), stamp(2)), []),
    ],
)
def test_lines_lie_between_time_stamps(
    tokens: tuple[int, ...], lines: list[tuple[float, float, tuple[int, ...]]]
) -> None:
    assert [(line.start, line.end, line.tokens) for line in lines_of(tokens, ZERO, 5.0)] == lines


@given(
    tokens=st.lists(st.integers(0, 5) | st.integers(ZERO, ZERO + 1500), max_size=30),
    seconds=st.floats(0.3, 30.0),
)
@settings(deadline=None, derandomize=True)
def test_lines_of_any_tokens_stay_in_their_window(tokens: list[int], seconds: float) -> None:
    lines = lines_of(tuple(tokens), ZERO, seconds)
    assert all(0 <= line.start <= line.end <= seconds and line.tokens for line in lines)
    words = iter(token for token in tokens if token < ZERO)
    assert all(token in words for line in lines for token in line.tokens)  # a subsequence: in order, none twice


def loops(tokens: list[int], max_repeats: int) -> bool:
    """Whether any phrase comes more than `max_repeats` times in a row, by trying them all."""
    most = max_repeats + 1
    return any(
        tokens[place : place + period] * most == tokens[place : place + period * most]
        for place in range(len(tokens))
        for period in range(1, (len(tokens) - place) // most + 1)
    )


def lines_from(parts: list[list[int]]) -> list[Line]:
    return [Line(float(index), index + 1.0, tuple(part)) for index, part in enumerate(parts) if part]


def flat(lines: list[Line]) -> list[int]:
    return [token for line in lines for token in line.tokens]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([[1] * 4], [[1] * 4]),  # four times is emphasis
        ([[1] * 5], [[1]]),
        ([[9, *[1, 2, 3] * 20, 8]], [[9, 1, 2, 3, 8]]),
        ([[1, 2]] * 7, [[1, 2]]),  # over several lines, which go
        ([[5], [1, 2, 1, 2, 1], [2, 1, 2, 1, 2], [6]], [[5], [1, 2], [6]]),
        ([[1, 1, 1, 1, 1, 2] * 5], [[1, 2]]),  # a loop of loops
    ],
)
def test_loops_are_said_once(said: list[list[int]], kept: list[list[int]]) -> None:
    found = without_loops(lines_from(said), 4)
    assert [list(line.tokens) for line in found] == kept
    assert found[0].start == 0.0


@given(
    parts=st.lists(
        st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=3), st.integers(1, 9)).map(lambda it: it[0] * it[1]),
        max_size=5,
    ),
    max_repeats=st.integers(1, 5),
)
@settings(deadline=None, derandomize=True)
def test_no_loop_is_left_and_nothing_else_is_lost(parts: list[list[int]], max_repeats: int) -> None:
    lines = lines_from(parts)
    kept = without_loops(lines, max_repeats)
    assert not loops(flat(kept), max_repeats)
    if not loops(flat(lines), max_repeats):
        assert kept == lines
    assert set(flat(kept)) == set(flat(lines))
    by_start = {line.start: line for line in lines}
    for line in kept:
        whole = iter(by_start[line.start].tokens)
        assert line.tokens
        assert all(token in whole for token in line.tokens)


def test_a_line_is_not_said_again_in_no_time() -> None:
    sentence = tuple(range(20))
    said, again = Line(0.0, 5.5, sentence), Line(5.5, 5.6, sentence)
    assert without_hasty_repeats([said, again], 12.0) == [said]
    other, slowly = Line(5.5, 5.6, (*sentence, 21)), Line(5.5, 8.0, sentence)
    assert without_hasty_repeats([said, other], 12.0) == [said, other]
    assert without_hasty_repeats([said, slowly], 12.0) == [said, slowly]
    assert without_hasty_repeats([], 12.0) == []


def test_what_repeats_compresses_and_speech_does_not() -> None:
    speech = (
        "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
    )
    assert compression_ratio(speech) < 1.5
    assert compression_ratio("I'm going to go to the next room. " * 6) > SpeechConfig().max_compression_ratio
    assert compression_ratio("") == 0.0
    assert compression_ratio("客観的実在の判断的知識") < 2.4


@given(seconds=st.floats(0, 30), more=st.floats(0, 30), rate=st.floats(0.1, 50))
@settings(deadline=None, derandomize=True)
def test_the_token_cap_grows_with_the_window_and_ends(seconds: float, more: float, rate: float) -> None:
    cap = token_cap(seconds, rate, 224)
    assert 16 <= cap <= token_cap(seconds + more, rate, 224) <= 224


# --- words -----------------------------------------------------------------------------------------------------------


def test_errors_are_counted_on_normalised_words() -> None:
    assert count_errors("one two three", "1, 2, 3", "en").edits == 0
    assert count_errors("and mister John Dashwood", "And Mr. John, Dashwood.", "en").edits == 0
    assert count_errors("in the fifteenth century", "in the 15th century", "en").edits == 0
    missing = count_errors("ask what you can do", "ask what can do it", "en")
    assert (missing.edits, missing.said, missing.rate) == (2, 5, 0.4)
    assert count_errors("he was there", "", "en").rate == 1.0
    assert normalised("그는 이리", "ko") == "그 는 이 리"


@pytest.mark.models
def test_words_of_a_video_at_their_times(encoder: SpeechEncoder, shared_media: Path, tmp_path: Path) -> None:
    video = spoken(tmp_path / "jfk.mkv", shared_media / "audio" / "jfk.flac")
    heard = read_sound(video, RATE_HZ, Limits())
    found = encoder(heard)
    holds_together(found, 0.0, heard.seconds)
    said = known_words(shared_media)["audio/jfk.flac"]
    assert count_errors(said.text, spoken_text(found), "en").rate <= MOST_ERRORS
    assert found.language == "en"
    assert found.language_confidence is not None
    assert 0.9 < found.language_confidence <= 1
    assert found.seconds_decoded == heard.seconds == pytest.approx(11.0, abs=0.05)
    assert found.speech_seconds > 8
    assert not found.degraded


@pytest.mark.models
def test_same_sound_same_transcript_and_a_later_start_shifts_it(encoder: SpeechEncoder, shared_media: Path) -> None:
    samples = read_clip(shared_media / "audio" / "austen_0870.wav").samples
    first, second, later = (encoder(sound(samples, start)) for start in (0.0, 0.0, 1.5))
    assert first.segments
    assert first.model_dump_json() == second.model_dump_json()
    holds_together(later, 1.5, 1.5 + samples.shape[1] / RATE_HZ)
    assert [line.start for line in later.segments] == pytest.approx([line.start + 1.5 for line in first.segments])
    assert [line.end for line in later.segments] == pytest.approx([line.end + 1.5 for line in first.segments])
    assert [line.text for line in later.segments] == [line.text for line in first.segments]
    assert later.speech_seconds == first.speech_seconds


@pytest.mark.models
def test_two_like_channels_are_one(encoder: SpeechEncoder, shared_media: Path) -> None:
    samples = read_clip(shared_media / "audio" / "ljspeech_0004.wav").samples
    assert encoder(sound(np.repeat(samples, 2, axis=0))) == encoder(sound(samples))


@pytest.mark.models
def test_times_after_silence_are_those_of_the_sound(encoder: SpeechEncoder, shared_media: Path) -> None:
    samples = read_clip(shared_media / "audio" / "ljspeech_0004.wav").mono()
    silence = np.zeros(8 * RATE_HZ, np.float32)
    found = encoder(sound(np.concatenate([silence, samples, silence])))
    holds_together(found, 7.5, 8.5 + len(samples) / RATE_HZ)
    said = known_words(shared_media)["audio/ljspeech_0004.wav"]
    assert count_errors(said.text, spoken_text(found), "en").rate <= MOST_ERRORS


@pytest.mark.slow
@pytest.mark.models
def test_french_is_french(encoder: SpeechEncoder, shared_media: Path) -> None:
    found = encoder(read_clip(shared_media / "audio" / "voice_fr.wav"))
    assert found.language == "fr"
    assert "conservateur" in spoken_text(found)


@pytest.mark.models
def test_loud_music_does_not_hide_a_voice(encoder: SpeechEncoder, shared_media: Path) -> None:
    name = "audio/libri_1272-128104-0000.wav"
    jazz = read_clip(shared_media / "audio" / "music_jazz_vibe_ace.ogg").mono()
    samples = mixed(read_clip(shared_media / name).mono(), jazz, -5)
    said = known_words(shared_media)[name].text
    assert count_errors(said, spoken_text(encoder(sound(samples))), "en").rate <= MOST_ERRORS


# --- no words --------------------------------------------------------------------------------------------------------


@pytest.mark.models
def test_silence_noise_and_a_quiet_room_say_nothing(encoder: SpeechEncoder, shared_media: Path) -> None:
    noise = np.random.default_rng(7).normal(0, 0.1, 10 * RATE_HZ).astype(np.float32)
    room = read_clip(shared_media / "audio" / "room_tone_no_speech.wav")
    for heard in (room, sound(np.zeros(10 * RATE_HZ, np.float32)), sound(noise)):
        assert encoder(heard) == TranscriptAttributes(seconds_decoded=heard.seconds)


@pytest.mark.models
def test_music_that_passes_the_gate_is_stopped_by_the_guard(
    encoder: SpeechEncoder, cache: Path, shared_media: Path
) -> None:
    music = sound(read_clip(shared_media / "good" / "slides_two_states.mp4").samples[:, : 5 * RATE_HZ])
    credulous = SpeechEncoder(SpeechConfig(min_logprob=-100.0, doubt_logprob=-100.0), cache)
    assert spoken_text(credulous(music))  # Whisper writes words where nobody speaks
    assert encoder(music).segments == []


@pytest.mark.slow
@pytest.mark.models
def test_a_voice_that_noise_has_drowned_is_given_no_words(
    encoder: SpeechEncoder, cache: Path, shared_media: Path
) -> None:
    name = "audio/libri_1272-128104-0000.wav"
    drowned = sound(over_radio(read_clip(shared_media / name).mono(), 0, "radio"))
    credulous = SpeechEncoder(SpeechConfig(min_logprob=-1.0, max_no_speech_prob=0.6), cache)
    made_up = spoken_text(credulous(drowned))
    assert count_errors(known_words(shared_media)[name].text, made_up, "en").rate > 1  # Whisper writes what nobody said
    assert encoder(drowned).segments == []


@pytest.mark.models
def test_no_sound_is_no_error(encoder: SpeechEncoder) -> None:
    none = np.zeros((1, 0), np.float32)
    assert encoder(Sound(none, RATE_HZ, present=False)) == TranscriptAttributes()
    assert encoder(Sound(none, RATE_HZ, present=True, degraded=True)) == TranscriptAttributes(degraded=True)
    assert encoder(sound(np.zeros(1, np.float32))).segments == []


@pytest.mark.models
def test_a_wrong_rate_is_refused(encoder: SpeechEncoder) -> None:
    with pytest.raises(ValueError, match="16000 Hz, got 22050"):
        encoder(Sound(np.zeros((1, 22050), np.float32), 22050, present=True))


# --- every clip ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.timeout(900)
def test_known_words_of_every_clip(encoder: SpeechEncoder, shared_media: Path) -> None:
    known = known_words(shared_media)
    assert len(known) == 19
    assert KNOWN_ABOVE.keys() <= known.keys()
    rates = {}
    for name, said in known.items():
        heard = read_clip(shared_media / name)
        found = encoder(heard)
        holds_together(found, 0.0, heard.seconds)
        assert found.language == said.language, name
        rates[name] = count_errors(said.text, spoken_text(found), said.language).rate
    above = {name: rate for name, rate in rates.items() if rate > KNOWN_ABOVE.get(name, (MOST_ERRORS,))[0]}
    assert above == {}
    mended = {name: rates[name] for name in KNOWN_ABOVE if rates[name] <= MOST_ERRORS}
    assert mended == {}, "no longer an exception: take it out of KNOWN_ABOVE"


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.timeout(900)
def test_no_clip_without_speech_is_given_words(encoder: SpeechEncoder, shared_media: Path) -> None:
    names = without_speech(shared_media)
    assert len(names) >= 19
    invented = {name: spoken_text(encoder(read_clip(shared_media / name))) for name in names}
    assert {name: text for name, text in invented.items() if text} == {}
